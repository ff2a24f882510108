"""Crystal graph convolutional neural network (Xie & Grossman, Phys. Rev. Lett. 120, 145301 (2018)).

    z_ij = v_i (+) v_j (+) u_ij                                                            (their eq. 5)
    v_i <- softplus( v_i + BN( sum_j sigmoid(BN(W_f z_ij + b_f)) * softplus(BN(W_s z_ij + b_s)) ) )
    v_c = softplus( W_c softplus( mean_i v_i ) + b_c ),    y = W_o v_c + b_o

Each atom i sums over its M nearest neighbours j (12 within 8 A); u_ij is the distance on a Gaussian basis.

Differs from the author's code in how it is computed, not in what: W z_ij is split into W_i v_i + W_j v_j + W_u u_ij,
so that the two atom products are made once per atom instead of once per edge (a quarter of the multiplications).
Parameter names and shapes are the author's, so the released checkpoints load unchanged.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch_geometric.utils import scatter

from replimat.errors import DataError
from replimat.models.elements import known
from replimat.models.released import load_released


class GaussianDistance(nn.Module):
    """exp(-(d - mu_k)^2 / w^2) on centres mu = 0, w, 2w, ... up to `cutoff`; w is the spacing `step` (angstrom)."""

    def __init__(self, cutoff: float = 8.0, step: float = 0.2):
        super().__init__()
        self.step = step
        self.register_buffer("centres", torch.arange(round(cutoff / step) + 1) * step, persistent=False)

    def forward(self, distance: Tensor) -> Tensor:
        return torch.exp(-(((distance[..., None] - self.centres) / self.step) ** 2))  # [..., K]


class Convolution(nn.Module):
    """One graph convolution on atom features [N, F] with M neighbours each and bond features [N, M, K]."""

    def __init__(self, atom_features: int, bond_features: int):
        super().__init__()
        self.fc_full = nn.Linear(2 * atom_features + bond_features, 2 * atom_features)
        self.bn1 = nn.BatchNorm1d(2 * atom_features)
        self.bn2 = nn.BatchNorm1d(atom_features)

    def forward(self, v: Tensor, u: Tensor, neighbours: Tensor) -> Tensor:
        n, m = neighbours.shape
        f = v.shape[1]
        w_i, w_j, w_u = self.fc_full.weight.split([f, f, u.shape[-1]], dim=1)
        centre = v @ w_i.T + self.fc_full.bias  # [N, 2F]
        sender = (v @ w_j.T).index_select(0, neighbours.reshape(-1))  # [N*M, 2F]
        z = (u @ w_u.T).view(n, m, -1) + sender.view(n, m, -1) + centre[:, None]  # [N, M, 2F]
        gate, core = self.bn1(z.view(n * m, -1)).view(n, m, -1).chunk(2, dim=-1)  # [N, M, F] each
        message = (torch.sigmoid(gate) * softplus(core)).sum(dim=1)  # [N, F]
        return softplus(v + self.bn2(message))


class CGCNN(nn.Module):
    """One output (or two class logits) per crystal.

    element_features: table of initial element vectors [101, 92]; n_conv convolutions of width atom_fea; h_fea: width
    after pooling; n_h hidden layers in all (the pooling layer counts as the first); classes: 0 for regression, else
    number of classes.

    Inputs of a batch: z: atomic numbers [N]; neighbours: index of each atom's M neighbours in the batch [N, M];
    distance: angstrom [N, M]; batch: crystal of each atom [N]; n_graphs: crystals B. Returns [B] (regression) or
    log-probabilities [B, C]. Raises DataError for an element the table has no row for.
    """

    def __init__(
        self,
        element_features: Tensor,
        atom_fea: int = 64,
        h_fea: int = 32,
        n_conv: int = 4,
        n_h: int = 1,
        classes: int = 0,
        cutoff: float = 8.0,
        step: float = 0.2,
    ):
        super().__init__()
        self.register_buffer("element_features", element_features.float(), persistent=False)
        self.basis = GaussianDistance(cutoff, step)
        self.embedding = nn.Linear(element_features.shape[1], atom_fea)
        self.convs = nn.ModuleList(Convolution(atom_fea, len(self.basis.centres)) for _ in range(n_conv))
        self.conv_to_fc = nn.Linear(atom_fea, h_fea)
        self.fcs = nn.ModuleList(nn.Linear(h_fea, h_fea) for _ in range(n_h - 1))
        self.dropout = nn.Dropout() if classes else nn.Identity()
        self.fc_out = nn.Linear(h_fea, classes or 1)
        self.classes = classes

    def forward(self, z: Tensor, neighbours: Tensor, distance: Tensor, batch: Tensor, n_graphs: int) -> Tensor:
        u = self.basis(distance).view(-1, len(self.basis.centres))  # [N*M, K]
        v = self.embedding(self.element_features)[
            known(z, self.element_features)
        ]  # [N, F]: embed the table once, then look up
        for convolution in self.convs:
            v = convolution(v, u, neighbours)
        crystal = scatter(v, batch, dim_size=n_graphs, reduce="mean")  # [B, F]
        crystal = self.dropout(softplus(self.conv_to_fc(softplus(crystal))))  # [B, H]
        for layer in self.fcs:
            crystal = softplus(layer(crystal))
        out = self.fc_out(crystal)
        return out.log_softmax(dim=-1) if self.classes else out[:, 0]


def load_author_checkpoint(path: str | Path, element_features: Tensor) -> tuple[CGCNN, dict[str, float]]:
    """An official checkpoint as (model in evaluation mode, {"mean", "std"} of the target it was trained on).

    A model output x means x * std + mean in the target's unit (log10 GPa for the moduli). Only tensors and plain
    values are unpickled. Raises DataError if the file is not such a checkpoint.
    """
    stored = load_released(path)
    if missing := {"state_dict", "normalizer", "args"} - stored.keys():
        raise DataError(f"{path}: not an official CGCNN checkpoint: it lacks {', '.join(sorted(missing))}.")
    args = stored["args"]
    try:
        model = CGCNN(
            element_features,
            atom_fea=args["atom_fea_len"],
            h_fea=args["h_fea_len"],
            n_conv=args["n_conv"],
            n_h=args["n_h"],
            classes=2 if args["task"] == "classification" else 0,
        )
        model.load_state_dict({name: value.float() for name, value in stored["state_dict"].items()}, strict=True)
        normaliser = {name: float(value) for name, value in stored["normalizer"].items()}
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not an official CGCNN checkpoint: {str(error).splitlines()[0]}") from error
    return model.eval(), normaliser
