"""Atomistic line graph neural network (Choudhary & DeCost, npj Comput. Mater. 7, 185 (2021)).

Edge-gated graph convolution of nodes h and edges e, with messages from j to i:

    m_ij = W_j h_j + W_i h_i + W_e e_ij
    h_i <- h_i + SiLU( BN( U h_i + sum_j sigmoid(m_ij) * V h_j / (sum_j sigmoid(m_ij) + 1e-6) ) )
    e_ij <- e_ij + SiLU( BN( m_ij ) )

An ALIGNN layer applies it to atoms x and bonds y, then to bonds and angles z on the line graph, where bond k -> j sends
to bond j -> i; a GCN layer applies it to atoms and bonds alone. The output is a linear map of the mean over atoms.

Differs from the author's code in how it is computed, not in what: the angles of the last ALIGNN layer and the bonds of
the last layer of all are read by nothing afterwards, so their update is not made. Parameter names and shapes are the
author's, so released weights load unchanged. As there, batch normalisation makes a prediction depend on the batch
while training, not afterwards; the layers of the force field ALIGNN-FF have layer normalisation instead.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from torch_geometric.utils import scatter

from replimat.errors import DataError
from replimat.models.elements import known
from replimat.models.released import load_released

EPSILON = 1e-6  # in the denominator of the gates, as in the author's code
LONGEST = 8.0  # angstrom: where the distance basis ends; longer bonds look alike
NORMS = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


class GaussianBasis(nn.Module):
    """exp(-(x - mu_k)^2 / step) on `count` centres mu evenly from low to high (divided by step, not by its square)."""

    def __init__(self, low: float, high: float, count: int):
        super().__init__()
        self.step = (high - low) / (count - 1)
        self.register_buffer("centers", torch.linspace(low, high, count))

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(-((x[:, None] - self.centers) ** 2) / self.step)  # [len(x), count]


class Dense(nn.Module):
    """SiLU(norm(W x + b))."""

    def __init__(self, inputs: int, outputs: int, norm: type[nn.Module]):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(inputs, outputs), norm(outputs), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class EdgeGatedConvolution(nn.Module):
    """New features of nodes [N, F] and edges [E, F]; the latter None when they are not wanted."""

    def __init__(self, width: int, norm: type[nn.Module]):
        super().__init__()
        self.src_gate = nn.Linear(width, width)
        self.dst_gate = nn.Linear(width, width)
        self.edge_gate = nn.Linear(width, width)
        self.bn_edges = norm(width)
        self.src_update = nn.Linear(width, width)
        self.dst_update = nn.Linear(width, width)
        self.bn_nodes = norm(width)

    def forward(self, h: Tensor, e: Tensor, edge_index: Tensor, edges_too: bool = True) -> tuple[Tensor, Tensor | None]:
        j, i = edge_index  # sender, receiver  [E]
        m = self.src_gate(h).index_select(0, j) + self.dst_gate(h).index_select(0, i) + self.edge_gate(e)  # [E, F]
        gate = torch.sigmoid(m)
        message = gate * self.dst_update(h).index_select(0, j)  # [E, F]
        total, weight = scatter(message, i, dim_size=len(h)), scatter(gate, i, dim_size=len(h))  # [N, F] each
        h = h + silu(self.bn_nodes(self.src_update(h) + total / (weight + EPSILON)))
        return h, e + silu(self.bn_edges(m)) if edges_too else None


class LineGraphLayer(nn.Module):
    """Atoms [N, F] and bonds [E, F], then bonds and angles [T, F]."""

    def __init__(self, width: int, norm: type[nn.Module]):
        super().__init__()
        self.node_update = EdgeGatedConvolution(width, norm)
        self.edge_update = EdgeGatedConvolution(width, norm)

    def forward(self, x, y, z, edge_index, line_index, angles_too):
        x, y = self.node_update(x, y, edge_index)
        y, z = self.edge_update(y, z, line_index, angles_too)
        return x, y, z


class ALIGNN(nn.Module):
    """One output (or class log-probabilities) per structure.

    element_features: table of initial element vectors [101, 92]; alignn_layers and gcn_layers of width hidden;
    embedding: width between a basis and the layers; distances, angles: basis functions; norm: "batch", or "layer" as in
    ALIGNN-FF; classes: 0 for regression, else number of classes.

    Inputs of a batch: z: atomic numbers [N]; pos: cartesian, angstrom [N, 3]; edge_index: sender, receiver [2, E];
    line_index: sender and receiver bond [2, T]; offset: translation of the sender's image, angstrom [E, 3], or None for
    molecules; batch: structure of each atom [N]; n_graphs B. Returns [B], or [B, C] for classes.
    Raises DataError for an element the table has no row for.
    """

    def __init__(
        self,
        element_features: Tensor,
        alignn_layers: int = 4,
        gcn_layers: int = 4,
        hidden: int = 256,
        embedding: int = 64,
        distances: int = 80,
        angles: int = 40,
        norm: str = "batch",
        classes: int = 0,
    ):
        super().__init__()
        kind = NORMS[norm]
        self.classes = classes
        self.register_buffer("element_features", element_features.float(), persistent=False)
        self.atom_embedding = Dense(element_features.shape[1], hidden, kind)
        self.edge_embedding = nn.Sequential(
            GaussianBasis(0.0, LONGEST, distances), Dense(distances, embedding, kind), Dense(embedding, hidden, kind)
        )
        self.angle_embedding = nn.Sequential(
            GaussianBasis(-1.0, 1.0, angles), Dense(angles, embedding, kind), Dense(embedding, hidden, kind)
        )
        self.alignn_layers = nn.ModuleList(LineGraphLayer(hidden, kind) for _ in range(alignn_layers))
        self.gcn_layers = nn.ModuleList(EdgeGatedConvolution(hidden, kind) for _ in range(gcn_layers))
        self.fc = nn.Linear(hidden, classes or 1)

    def forward(
        self,
        z: Tensor,
        pos: Tensor,
        edge_index: Tensor,
        line_index: Tensor,
        batch: Tensor,
        n_graphs: int,
        offset: Tensor | None = None,
    ) -> Tensor:
        j, i = edge_index
        vec = pos[j] - pos[i] if offset is None else pos[j] + offset - pos[i]  # [E, 3]
        distance = torch.linalg.vector_norm(vec, dim=-1)  # [E]
        x = self.atom_embedding(self.element_features[known(z, self.element_features)])  # [N, F]
        y = self.edge_embedding(distance)  # [E, F]
        angle = self.angle_embedding(cosines(vec, distance, line_index))  # [T, F]
        for layer in self.alignn_layers:
            x, y, angle = layer(x, y, angle, edge_index, line_index, layer is not self.alignn_layers[-1])
        for layer in self.gcn_layers:
            x, y = layer(x, y, edge_index, layer is not self.gcn_layers[-1])
        out = self.fc(scatter(x, batch, dim_size=n_graphs, reduce="mean"))  # [B, outputs]
        return out.log_softmax(dim=-1) if self.classes else out[:, 0]


def cosines(vec: Tensor, distance: Tensor, line_index: Tensor) -> Tensor:
    """Cosine of the angle at j between the bonds k -> j and j -> i of every edge of the line graph [T].

    vec: from receiver to sender [E, 3], so the second bond is turned round to point from j to i. 1 means k is i.
    """
    first, second = line_index
    unit = vec / distance[:, None]  # [E, 3]
    return -(unit.index_select(0, first) * unit.index_select(0, second)).sum(dim=-1).clamp(-1.0, 1.0)


def load_author_weights(path: str | Path, element_features: Tensor) -> ALIGNN:
    """A released ALIGNN-FF model (alignn_atomwise of 2023: layer normalisation) in evaluation mode.

    Its output is the energy in eV/atom. Only tensors are unpickled. Raises DataError if the file is not such a model.
    """
    stored = load_released(path)
    model = ALIGNN(element_features, norm="layer")
    try:
        model.load_state_dict(stored)
    except (RuntimeError, TypeError) as error:
        raise DataError(f"{path}: not weights of ALIGNN-FF: {str(error).splitlines()[0]}") from error
    return model.eval()
