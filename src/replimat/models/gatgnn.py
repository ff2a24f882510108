"""Graph attention with global attention (GATGNN: Louis et al., Phys. Chem. Chem. Phys. 22, 18141 (2020)).

Local attention, H heads, for each neighbour j of an atom i, with e_ij = leaky_relu(W_d gaussians(d_ij)):

    s_i = softplus(W [v_i, e_ij]),    s_j = softplus(W [v_j, e_ij])
    a_ij = softmax_j softplus(BN_heads(softplus(a . [s_i, s_j])))
    v_i <- softplus(BN(b + mean_heads sum_j a_ij s_j))                                              (no residual)

Global attention (their GI-M1), with c the element fractions of the crystal, two hidden layers and the output:

    g_i = softmax_i w . softplus(W_g [v_i, c]),    v_c = sum_i g_i v_i,    y = W_o h(h(v_c)),    h = softplus(W x)

Differs from the author's code:
- Where an atom has fewer than 12 neighbours, their graph fills up with bonds of 9 angstrom to the first atom of the
  crystal, and the attention takes them for neighbours, so the answer depends on the order of the atoms. Here such
  places get no attention and do not enter the batch normalisation: the result of their code without these bonds.
- W [v, e] is split into W_v v + W_e e, made once per atom and once per edge instead of twice per edge.
- Parameters they define and never use (a PReLU per layer, the cluster attention) are not there. Those used have their
  names and shapes.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, one_hot, softplus
from torch_geometric.utils import scatter, softmax

from replimat.models.cgcnn import GaussianDistance
from replimat.models.elements import known

FRACTIONS = 103  # elements H to Lr, of which a composition holds the fractions
GLOBAL_WIDTH = 32  # of the global attention's hidden layer, whatever the width of the atoms
SLOPE = 0.2  # of the leaky ReLU of bond features


class LocalAttention(nn.Module):
    """Attention of each atom over its M neighbours (AGAT), heads averaged. W: [2F, H*F]; att: [1, H, 2F]."""

    def __init__(self, features: int, heads: int):
        super().__init__()
        self.heads = heads
        self.W = nn.Parameter(nn.init.xavier_uniform_(torch.empty(2 * features, heads * features)))
        self.att = nn.Parameter(nn.init.xavier_uniform_(torch.empty(heads, 2 * features))[None])
        self.bias = nn.Parameter(torch.zeros(features))
        self.bn1 = nn.BatchNorm1d(heads)

    def forward(self, v: Tensor, e: Tensor, neighbours: Tensor, real: Tensor) -> Tensor:
        """New features [N, F] from atoms v [N, F], bonds e [N*M, F], neighbours [N, M] of which those not real [N, M]
        only fill up.
        """
        n, m = neighbours.shape
        w_v, w_e = self.W.chunk(2)  # [F, H*F] each
        atoms, bonds = v @ w_v, (e @ w_e).view(n, m, -1)  # [N, H*F], [N, M, H*F]
        sender = atoms.index_select(0, neighbours.reshape(-1)).view(n, m, -1)
        s_i = softplus(atoms[:, None] + bonds).view(n, m, self.heads, -1)  # [N, M, H, F]
        s_j = softplus(sender + bonds).view(n, m, self.heads, -1)  # [N, M, H, F]
        a = self.attention(s_i, s_j, real)  # [N, M, H]
        return torch.einsum("nmhf,nmh->nf", s_j, a) / self.heads + self.bias

    def attention(self, s_i: Tensor, s_j: Tensor, real: Tensor) -> Tensor:
        """Weights [N, M, H]: over the real neighbours of an atom they sum to one, elsewhere they are zero."""
        a_i, a_j = self.att[0].chunk(2, dim=-1)  # [H, F] each
        score = softplus((s_i * a_i).sum(dim=-1) + (s_j * a_j).sum(dim=-1))  # [N, M, H]
        score = torch.full_like(score, torch.finfo(score.dtype).min).masked_scatter(
            real[..., None], softplus(self.bn1(score[real]))
        )
        return score.softmax(dim=1) * real[..., None]  # an atom without any neighbour attends to none


class GlobalAttention(nn.Module):
    """Attention of each crystal over its atoms, given its composition (GI-M1)."""

    def __init__(self, features: int):
        super().__init__()
        self.node_layer1 = nn.Linear(features + FRACTIONS, GLOBAL_WIDTH)
        self.atten_layer = nn.Linear(GLOBAL_WIDTH, 1)

    def forward(self, v: Tensor, composition: Tensor, batch: Tensor) -> Tensor:
        """Weights [N, 1] that sum to one in each crystal, from atoms v [N, F] and fractions [B, 103]."""
        hidden = softplus(self.node_layer1(torch.cat([v, composition[batch]], dim=-1)))  # [N, 32]
        return softmax(self.atten_layer(hidden), batch, num_nodes=len(composition))


class GATGNN(nn.Module):
    """One output per crystal.

    element_features: table of initial element vectors [101, 92], row 0 unused; features: width F of atoms and bonds;
    heads H of the local attention; layers of it.

    Inputs of a batch: z: atomic numbers [N]; neighbours: index of each atom's M neighbours in the batch [N, M];
    distance: angstrom [N, M], beyond the cutoff where no neighbour is; batch: crystal of each atom [N]; n_graphs:
    crystals B. Returns [B]. Raises DataError for an element the table has no row for.
    """

    def __init__(
        self,
        element_features: Tensor,
        features: int = 64,
        heads: int = 4,
        layers: int = 3,
        cutoff: float = 8.0,
        step: float = 0.2,
    ):
        super().__init__()
        self.cutoff = cutoff
        self.register_buffer("element_features", element_features.float(), persistent=False)
        self.basis = GaussianDistance(cutoff, step)
        self.embed_n = nn.Linear(element_features.shape[1], features)
        self.embed_e = nn.Linear(len(self.basis.centres), features)
        self.node_att = nn.ModuleList(LocalAttention(features, heads) for _ in range(layers))
        self.batch_norm = nn.ModuleList(nn.BatchNorm1d(features) for _ in range(layers))
        self.comp_atten = GlobalAttention(features)
        self.linear1 = nn.Linear(features, features)
        self.linear2 = nn.Linear(features, features)
        self.out = nn.Linear(features, 1)

    def forward(self, z: Tensor, neighbours: Tensor, distance: Tensor, batch: Tensor, n_graphs: int) -> Tensor:
        v = self.embed_n(self.element_features)[
            known(z, self.element_features)
        ]  # [N, F]: embed the table once, then look up
        e = leaky_relu(self.embed_e(self.basis(distance.reshape(-1))), SLOPE)  # [N*M, F]
        real = distance <= self.cutoff  # [N, M]
        for attention, norm in zip(self.node_att, self.batch_norm, strict=True):
            v = softplus(norm(attention(v, e, neighbours, real)))
        composition = scatter(
            one_hot(z - 1, FRACTIONS).to(v.dtype), batch, dim_size=n_graphs, reduce="mean"
        )  # [B, 103]
        weights = self.comp_atten(v, composition, batch)  # [N, 1]
        crystal = scatter(weights * v, batch, dim_size=n_graphs)  # [B, F]
        crystal = softplus(self.linear2(softplus(self.linear1(crystal))))
        return self.out(crystal)[:, 0]
