"""SchNet (Schütt et al., NeurIPS 2017, arXiv:1706.08566; J. Chem. Phys. 148, 241722 (2018), doi:10.1063/1.5019779).

    x_i^0 = a_{Z_i},    x_i <- x_i + V_out ssp( V_in sum_j (W x_j) o w(|r_j - r_i|) )   (continuous-filter convolution)
    w(d) = ssp(F_2 ssp(F_1 e(d))),    e_k(d) = exp(-gamma (d - mu_k)^2),    ssp(x) = ln(e^x / 2 + 1/2)
    y = sum_i or mean_i of an atomwise network

In a crystal every periodic image of a neighbour is an edge of its own; because the convolution is linear in w, this
equals the paper's sum of filters over images.

Differs from the author's code: a filter is multiplied by a cosine envelope (as the same group's schnetpack does), so
that the output is smooth where a neighbour crosses the cutoff; the first release cuts sharply. `envelope=False` gives
the latter.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch_geometric.utils import scatter

LOG2 = math.log(2.0)


class ShiftedSoftplus(nn.Module):
    """ssp(x) = ln(e^x / 2 + 1/2): zero at zero, smooth everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        return softplus(x).sub_(LOG2)  # in place: softplus keeps its input for the gradient, not its output


class GaussianBasis(nn.Module):
    """`count` Gaussians with centres evenly from 0 to `cutoff` angstrom; the spacing is also the standard deviation."""

    def __init__(self, cutoff: float, count: int):
        super().__init__()
        centres = torch.linspace(0.0, cutoff, count)
        self.gamma = 0.5 / float(centres[1]) ** 2
        self.register_buffer("centres", centres, persistent=False)

    def forward(self, distance: Tensor) -> Tensor:
        return torch.exp(-self.gamma * (distance[:, None] - self.centres) ** 2)  # [E, K]


class Interaction(nn.Module):
    """Continuous-filter convolution and atomwise layers; returns the update of the atom features [N, F]."""

    def __init__(self, features: int, filters: int, gaussians: int):
        super().__init__()
        ssp = ShiftedSoftplus()
        self.filter = nn.Sequential(nn.Linear(gaussians, filters), ssp, nn.Linear(filters, filters), ssp)
        self.before = nn.Linear(features, filters, bias=False)
        self.after = nn.Sequential(nn.Linear(filters, features), ssp, nn.Linear(features, features))

    def forward(self, x: Tensor, basis: Tensor, envelope: Tensor, edge_index: Tensor) -> Tensor:
        j, i = edge_index  # sender, receiver  [E]
        w = self.filter(basis) * envelope[:, None]  # [E, filters]
        message = self.before(x).index_select(0, j) * w  # [E, filters]
        return self.after(scatter(message, i, dim_size=len(x)))  # [N, F]


class SchNet(nn.Module):
    """A scalar per structure from atomic numbers and positions.

    features: width F; filters: width of the filters; interactions: number T of blocks; cutoff: angstrom; gaussians:
    basis functions; pooling: "sum" for extensive targets, "mean" for intensive ones; envelope: smooth cutoff; outputs:
    1, or the number of classes.

    Inputs of a batch: z [N]; pos: cartesian, angstrom [N, 3]; edge_index: sender, receiver [2, E]; offset: cartesian
    translation of the sender's image, angstrom [E, 3], or None for molecules; batch: structure of each atom [N];
    n_graphs B. Returns [B], or log-probabilities [B, C] when outputs > 1.
    """

    def __init__(
        self,
        features: int = 64,
        filters: int = 64,
        interactions: int = 6,
        cutoff: float = 5.0,
        gaussians: int = 50,
        pooling: str = "sum",
        envelope: bool = True,
        outputs: int = 1,
        max_z: int = 100,
    ):
        super().__init__()
        if pooling not in ("sum", "mean"):
            raise ValueError(f"pooling is 'sum' or 'mean', got {pooling!r}.")
        self.cutoff, self.pooling, self.envelope, self.outputs = cutoff, pooling, envelope, outputs
        self.embedding = nn.Embedding(max_z, features, padding_idx=0)
        self.basis = GaussianBasis(cutoff, gaussians)
        self.interactions = nn.ModuleList(Interaction(features, filters, gaussians) for _ in range(interactions))
        self.readout = nn.Sequential(
            nn.Linear(features, features // 2), ShiftedSoftplus(), nn.Linear(features // 2, outputs)
        )
        nn.init.zeros_(self.readout[-1].weight)  # the author's code starts from the atomic references alone
        nn.init.zeros_(self.readout[-1].bias)

    def forward(
        self, z: Tensor, pos: Tensor, edge_index: Tensor, batch: Tensor, n_graphs: int, offset: Tensor | None = None
    ) -> Tensor:
        j, i = edge_index
        vec = pos[j] - pos[i] if offset is None else pos[j] + offset - pos[i]  # [E, 3]
        distance = torch.linalg.vector_norm(vec, dim=-1)  # [E]
        basis, envelope = self.basis(distance), self._envelope(distance)
        x = self.embedding(z)  # [N, F]
        for interaction in self.interactions:
            x = x + interaction(x, basis, envelope, edge_index)
        atoms = self.readout(x)  # [N, outputs]
        out = scatter(atoms, batch, dim_size=n_graphs, reduce=self.pooling)  # [B, outputs]
        return out[:, 0] if self.outputs == 1 else out.log_softmax(dim=-1)

    def _envelope(self, distance: Tensor) -> Tensor:
        if not self.envelope:
            return (distance <= self.cutoff).to(distance.dtype)
        return 0.5 * (torch.cos(math.pi / self.cutoff * distance) + 1.0) * (distance < self.cutoff)
