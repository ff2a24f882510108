"""MatErials Graph Network (Chen, Ye, Zuo, Zheng, Ong, Chem. Mater. 31, 3564 (2019), doi:10.1021/acs.chemmater.9b01294).

    e'_ij = phi_e( v_i (+) v_j (+) e_ij (+) u )                       every bond, from its atoms, itself and the state
    v'_i  = phi_v( mean_j e'_ij (+) v_i (+) u )                       every atom, from its new bonds
    u'    = phi_u( mean_ij e'_ij (+) mean_i v'_i (+) u )              the global state
    block: x <- x + layer(f(x)), f two dense layers (x: e, v and u)   (the paper's figure 2; f once before block 1)
    y     = dense( Set2Set(v) (+) Set2Set(e) (+) u )                  Set2Set: Vinyals et al., arXiv:1511.06391

Bonds start as exp(-(d - mu_k)^2 / w^2), atoms as an embedding of Z, the state as two zeros (or an embedding of the
fidelity in the later multi-fidelity models). Activations are softplus2(x) = ln(e^x / 2 + 1/2); phi ends without one.

As in the authors' code, and unlike the Set2Set paper: the memory cell of the LSTM is not carried from pass to pass, so
its forget gate does nothing (its weights are kept: they are counted and stored); the gates are hard sigmoids; keys and
values are one linear map of the features. PyG's Set2Set can hold none of this.

Differs from the authors' code, in how it is computed: W (v_i (+) v_j (+) e_ij (+) u) is split, so that the products
with v and u are made once per atom and not once per bond. And in what it accepts: an atom without bonds gets zeros for
the mean over its bonds, where the authors' code refuses the structure.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from torch_geometric.utils import scatter, softmax

from replimat.errors import DataError
from replimat.models.schnet import ShiftedSoftplus


class GaussianBasis(nn.Module):
    """exp(-(d - mu_k)^2 / width^2) on `count` centres evenly from 0 to `end` (angstrom)."""

    def __init__(self, count: int, end: float, width: float):
        super().__init__()
        self.width = width
        self.register_buffer("centres", torch.linspace(0.0, end, count), persistent=False)

    def forward(self, distance: Tensor) -> Tensor:
        return torch.exp(-(((distance[:, None] - self.centres) / self.width) ** 2))  # [E, K]


class Update(nn.Module):
    """phi: three linear layers on `inputs` vectors of width `narrow` put together."""

    def __init__(self, inputs: int, wide: int, narrow: int):
        super().__init__()
        self.first = nn.Linear(inputs * narrow, wide)
        act = ShiftedSoftplus()
        self.rest = nn.Sequential(act, nn.Linear(wide, wide), act, nn.Linear(wide, narrow))
        self.inputs = inputs

    def parts(self) -> tuple[Tensor, ...]:
        """The first layer's weights for each input [wide, narrow]: what many rows share is mapped once."""
        return self.first.weight.chunk(self.inputs, dim=1)


class GraphLayer(nn.Module):
    """One update of bonds e [E, F], atoms v [N, F] and state u [B, F]."""

    def __init__(self, wide: int, narrow: int):
        super().__init__()
        self.bond, self.atom, self.state = (Update(n, wide, narrow) for n in (4, 3, 3))

    def forward(self, e: Tensor, v: Tensor, u: Tensor, graph: "Graph") -> tuple[Tensor, Tensor, Tensor]:
        receiver, sender, bond, state = self.bond.parts()
        at_receiver = v @ receiver.T + (u @ state.T).index_select(0, graph.of_atom) + self.bond.first.bias  # [N, W]
        at_sender = v @ sender.T  # [N, W]
        e = self.bond.rest(e @ bond.T + at_receiver.index_select(0, graph.i) + at_sender.index_select(0, graph.j))

        bonds = scatter(e, graph.i, dim_size=len(v), reduce="mean")  # [N, F]
        new, old, state = self.atom.parts()
        per_graph = u @ state.T + self.atom.first.bias  # [B, W]
        v = self.atom.rest(bonds @ new.T + v @ old.T + per_graph.index_select(0, graph.of_atom))

        bonds = scatter(e, graph.of_bond, dim_size=len(u), reduce="mean")  # [B, F]
        atoms = scatter(v, graph.of_atom, dim_size=len(u), reduce="mean")  # [B, F]
        u = self.state.rest(self.state.first(torch.cat([bonds, atoms, u], dim=1)))
        return e, v, u


@dataclass(frozen=True)
class Graph:
    """Sender j and receiver i of each bond [E]; structure of each atom [N] and of each bond [E]."""

    j: Tensor
    i: Tensor
    of_atom: Tensor
    of_bond: Tensor


class Block(nn.Module):
    """Dense layers f before the update, unless it is the first block, and the update added to what came in."""

    def __init__(self, wide: int, narrow: int, dense: bool):
        super().__init__()
        self.dense = nn.ModuleList(_dense(narrow, wide, narrow) for _ in range(3)) if dense else None
        self.layer = GraphLayer(wide, narrow)

    def forward(self, e: Tensor, v: Tensor, u: Tensor, graph: Graph) -> tuple[Tensor, ...]:
        inner = [f(x) for f, x in zip(self.dense, (e, v, u), strict=True)] if self.dense else (e, v, u)
        return tuple(x + new for x, new in zip((e, v, u), self.layer(*inner, graph), strict=True))


class Set2Set(nn.Module):
    """A set of vectors [M, features] of each graph as one vector [B, 2 hidden], by `passes` rounds of attention."""

    def __init__(self, features: int, hidden: int, passes: int):
        super().__init__()
        self.passes = passes
        self.memory = nn.Linear(features, hidden)
        self.gates = nn.Linear(2 * hidden, 4 * hidden)  # input, forget (unused), candidate, output

    def forward(self, x: Tensor, of: Tensor, n_graphs: int) -> Tensor:
        memory = self.memory(x)  # [M, H]: keys and values
        query = memory.new_zeros(n_graphs, self.gates.in_features)  # [B, 2H]
        for _ in range(self.passes):
            take, _, candidate, give = self.gates(query).chunk(4, dim=1)
            h = hard_sigmoid(give) * torch.tanh(hard_sigmoid(take) * torch.tanh(candidate))  # [B, H]
            attention = softmax((memory * h.index_select(0, of)).sum(dim=1), of, num_nodes=n_graphs)  # [M]
            read = scatter(attention[:, None] * memory, of, dim_size=n_graphs)  # [B, H]
            query = torch.cat([h, read], dim=1)
        return query


def hard_sigmoid(x: Tensor) -> Tensor:
    """The hard sigmoid of Keras, of slope 0.2 (that of torch has 1/6)."""
    return (0.2 * x + 0.5).clamp(0.0, 1.0)


class MEGNet(nn.Module):
    """A scalar per structure from atomic numbers and positions.

    gaussians, basis_end, width: the distance basis (angstrom); blocks; wide, narrow: widths of the dense layers;
    embedding: width of the elements' vectors; pooled: width H of Set2Set; passes of Set2Set; states: 0 for a state of
    two zeros, else the number of its kinds, embedded; extensive: multiply the output by the number of atoms; outputs:
    1, or 2 for the log-probabilities of two classes (of one logit, as in the authors' code); spread: reach of the
    elements' vectors at the start; max_z: highest element.

    Inputs of a batch: z [N]; pos: cartesian, angstrom [N, 3]; edge_index: sender, receiver [2, E]; offset: cartesian
    translation of the sender's image, angstrom [E, 3], or None for molecules; batch: structure of each atom [N];
    n_graphs B; state: kind of each structure's state [B], where states > 0. Returns [B] or [B, 2]. Raises DataError for
    an element it has no vector for.
    """

    def __init__(
        self,
        gaussians: int = 100,
        basis_end: float = 5.0,
        width: float = 0.5,
        blocks: int = 3,
        wide: int = 64,
        narrow: int = 32,
        embedding: int = 16,
        pooled: int = 16,
        passes: int = 3,
        states: int = 0,
        extensive: bool = False,
        outputs: int = 1,
        spread: float = 0.05,
        max_z: int = 94,
    ):
        super().__init__()
        if outputs not in (1, 2):
            raise ValueError(f"outputs is 1 or 2 (classes), got {outputs}.")
        self.extensive, self.outputs = extensive, outputs
        self.basis = GaussianBasis(gaussians, basis_end, width)
        self.elements = nn.Embedding(max_z + 1, embedding)
        self.register_buffer("known", torch.arange(max_z + 1) > 0, persistent=False)
        self.states = nn.Embedding(states, embedding) if states else None
        first = (gaussians, embedding, embedding if states else 2)
        self.dense = nn.ModuleList(_dense(size, wide, narrow) for size in first)
        self.blocks = nn.ModuleList(Block(wide, narrow, dense=k > 0) for k in range(blocks))
        self.pool_atoms, self.pool_bonds = (Set2Set(narrow, pooled, passes) for _ in range(2))
        act = ShiftedSoftplus()
        self.readout = nn.Sequential(
            nn.Linear(4 * pooled + narrow, narrow), act, nn.Linear(narrow, pooled), act, nn.Linear(pooled, 1)
        )
        self._initialise(spread)

    def forward(
        self, z: Tensor, pos: Tensor, edge_index: Tensor, batch: Tensor, n_graphs: int, offset=None, state=None
    ) -> Tensor:
        j, i = edge_index
        vec = pos[j] - pos[i] if offset is None else pos[j] + offset - pos[i]  # [E, 3]
        graph = Graph(j, i, batch, batch.index_select(0, i))
        start = (
            self.basis(torch.linalg.vector_norm(vec, dim=-1)),  # [E, K]
            self.elements(self._known(z)),  # [N, 16]
            self.states(state) if self.states is not None else pos.new_zeros(n_graphs, 2),  # [B, 2 or 16]
        )
        e, v, u = (dense(x) for dense, x in zip(self.dense, start, strict=True))
        for block in self.blocks:
            e, v, u = block(e, v, u, graph)
        pooled = [self.pool_atoms(v, batch, n_graphs), self.pool_bonds(e, graph.of_bond, n_graphs), u]
        out = self.readout(torch.cat(pooled, dim=1))[:, 0]  # [B]
        if self.outputs == 2:
            return torch.stack([logsigmoid(-out), logsigmoid(out)], dim=1)
        return out * torch.bincount(batch, minlength=n_graphs) if self.extensive else out

    def _known(self, z: Tensor) -> Tensor:
        if z.numel() and (int(z.max()) >= len(self.known) or not self.known[z].all()):
            unknown = [int(n) for n in z.unique() if n >= len(self.known) or not self.known[n]]
            raise DataError(f"This MEGNet has no vector for Z = {', '.join(map(str, unknown))}.")
        return z

    def _initialise(self, spread: float) -> None:
        """The start of the authors' code: Glorot weights, zero biases, small element vectors, orthogonal gates."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.uniform_(module.weight, -spread, spread)
        for pool in (self.pool_atoms, self.pool_bonds):
            nn.init.orthogonal_(pool.gates.weight)


def _dense(size: int, wide: int, narrow: int) -> nn.Sequential:
    act = ShiftedSoftplus()
    return nn.Sequential(nn.Linear(size, wide), act, nn.Linear(wide, narrow), act)


# ------------------------------------------------------------------------------------------- the authors' weights


@dataclass(frozen=True)
class AuthorSettings:
    """What a released model says of itself beside its weights.

    cutoff: angstrom, None for all pairs of atoms; the target is output * std + mean, or that per atom.
    """

    cutoff: float | None
    mean: float
    std: float
    per_atom: bool


def load_author_model(path: str | Path) -> tuple[MEGNet, AuthorSettings]:
    """A released model (Keras hdf5, with its .json beside it) in evaluation mode; TensorFlow is not needed.

    For a target per atom the model is extensive: its output is already multiplied by the number of atoms. Raises
    DataError if the file is not such a model, or one of another architecture.
    """
    path = Path(path)
    settings, converter = _read_settings(path.with_name(path.name + ".json"))
    layers = _read_layers(path)
    try:
        model = _build(layers, converter, extensive=settings.per_atom)
    except (AttributeError, KeyError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a MEGNet as the authors released them ({error}).") from error
    return model.eval(), settings


class KerasLayer:
    """One layer of a Keras functional model: its class, configuration, the layers it takes from, and its weights."""

    def __init__(self, described: dict, stored):
        self.kind, self.config = described["class_name"], described["config"]
        self.inputs = [source[0] for node in described["inbound_nodes"][:1] for source in node]
        names = [name.decode() if isinstance(name, bytes) else name for name in stored.attrs["weight_names"]]
        self.weights = {name.split("/")[-1].split(":")[0]: np.asarray(stored[name]) for name in names}


def _read_layers(path: Path) -> dict[str, KerasLayer]:
    """All layers by name; the output layer stands last."""
    try:
        import h5py
    except ImportError as error:
        raise DataError(f"{path}: reading it needs the package h5py (pip install h5py).") from error
    try:
        with h5py.File(path, "r") as file:
            config = json.loads(file.attrs["model_config"])["config"]
            stored = file["model_weights"]
            layers = {one["name"]: KerasLayer(one, stored[one["name"]]) for one in config["layers"]}
            (output,) = (name for name, *_ in config["output_layers"])
    except (OSError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a Keras model in hdf5 ({error}).") from error
    layers[output] = layers.pop(output)
    return layers


def _read_settings(path: Path) -> tuple[AuthorSettings, dict]:
    """Settings and graph converter of the .json beside a model."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        converter = said["graph_converter"]
        scaler = said.get("target_scaler", {})  # the models of 2018 for crystals have none: the target as it is
        mean, std = scaler.get("mean", 0.0), scaler.get("std", 1.0)
        settings = AuthorSettings(converter.get("cutoff"), mean, std, not scaler.get("is_intensive", True))
    except (OSError, AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not the description of a released MEGNet ({error}).") from error
    return settings, converter


def _build(layers: dict[str, KerasLayer], converter: dict, extensive: bool) -> MEGNet:
    """The model with its weights: roles are found by walking back along the layers' inputs, for names vary."""
    updates = [layer for layer in layers.values() if layer.kind == "MEGNetLayer"]
    pools = [layer for layer in layers.values() if layer.kind == "Set2Set"]
    atoms, bonds, state = (_chain(layers, updates[0].inputs[k], 2) for k in range(3))
    sources = [layers[chain[0].inputs[0]] for chain in (atoms, bonds, state)]
    output = list(layers.values())[-1]
    _check(updates, pools, output)
    centres, table = converter["bond_converter"]["centers"]["data"], _elements(sources[0], converter)
    model = MEGNet(
        gaussians=len(centres),
        basis_end=centres[-1],
        width=converter["bond_converter"]["width"],
        blocks=len(updates),
        wide=bonds[0].config["units"],
        narrow=bonds[1].config["units"],
        embedding=table.shape[1],
        pooled=pools[0].config["n_hidden"],
        passes=pools[0].config["T"],
        states=sources[2].config["input_dim"] if sources[2].kind == "Embedding" else 0,
        extensive=extensive,
        outputs=2 if output.config["activation"] == "sigmoid" else 1,
        max_z=len(table) - 1,
    )
    if not np.allclose(centres, model.basis.centres.numpy(), atol=1e-6):
        raise ValueError("its distance Gaussians are not evenly spaced from zero")
    model.known = torch.from_numpy(~np.isnan(table).any(axis=1))
    _put(model.elements.weight, np.nan_to_num(table))
    if model.states is not None:
        _put(model.states.weight, sources[2].weights["embeddings"])
    for k, (block, update) in enumerate(zip(model.blocks, updates, strict=True)):
        chains = [_chain(layers, update.inputs[part], 2) for part in (1, 0, 2)]  # ours: bonds, atoms, state
        for dense, chain in zip(block.dense if k else model.dense, chains, strict=True):
            _put_dense(dense, chain)
        for phi, letter in ((block.layer.bond, "e"), (block.layer.atom, "v"), (block.layer.state, "u")):
            for n, linear in enumerate((phi.first, phi.rest[1], phi.rest[3])):
                _put_linear(linear, update.weights[f"weight_{letter}_{n}"], update.weights[f"bias_{letter}_{n}"])
    by_index = {pool.inputs[1]: pool.weights for pool in pools}
    for pool, index in ((model.pool_atoms, updates[0].inputs[5]), (model.pool_bonds, updates[0].inputs[6])):
        _put_linear(pool.memory, by_index[index]["x_to_m_weight"], by_index[index]["x_to_m_bias"])
        _put_linear(pool.gates, by_index[index]["recurrent_kernel"], by_index[index]["recurrent_bias"])
    _put_dense(model.readout, _chain(layers, list(layers)[-1], 3))
    return model


def _check(updates: list[KerasLayer], pools: list[KerasLayer], output: KerasLayer) -> None:
    """Raise ValueError for what this model cannot compute."""
    known = {"pool_method": "mean", "recurrent_activation": "hard_sigmoid", "activation_lstm": "tanh"}
    for layer in (*updates, *pools):
        for name in known.keys() & layer.config.keys():
            if layer.config[name] != known[name]:
                raise ValueError(f"{layer.kind} has {name} {layer.config[name]!r} where {known[name]!r} is known")
    if any(layer.config["activation"] != "softplus2" for layer in updates):
        raise ValueError("the activation softplus2 is expected")
    if len(pools) != 2 or output.config["activation"] not in ("linear", "sigmoid"):
        raise ValueError("two Set2Set layers and a linear or sigmoid output are expected")


def _chain(layers: dict[str, KerasLayer], name: str, length: int) -> list[KerasLayer]:
    """The `length` dense layers that end in layer `name`, first to last."""
    found = [layers[name]]
    while len(found) < length:
        found.insert(0, layers[found[0].inputs[0]])
    return found


def _elements(source: KerasLayer, converter: dict) -> np.ndarray:
    """Vectors by atomic number [max_z + 1, 16], NaN where there is none: learned, or fixed in the description."""
    if source.kind == "Embedding":
        learned, mapping = source.weights["embeddings"], converter["atom_converter"].get("mapping")
        rows = {int(z): row for z, row in mapping.items()} if mapping else {z: z for z in range(1, len(learned))}
        vectors = {z: learned[row] for z, row in rows.items()}
    else:
        from ase.data import atomic_numbers

        fixed = converter["atom_converter"]["embedding_dict"]  # models for disordered crystals: by symbol
        vectors = {atomic_numbers[symbol]: vector for symbol, vector in fixed.items()}
    table = np.full((max(vectors) + 1, len(next(iter(vectors.values())))), math.nan, dtype=np.float32)
    for z, vector in vectors.items():
        table[z] = vector
    return table


def _put_dense(ours: nn.Sequential, chain: list[KerasLayer]) -> None:
    for linear, dense in zip([m for m in ours if isinstance(m, nn.Linear)], chain, strict=True):
        _put_linear(linear, dense.weights["kernel"], dense.weights["bias"])


def _put_linear(ours: nn.Linear, kernel: np.ndarray, bias: np.ndarray) -> None:
    _put(ours.weight, kernel.T)  # Keras stores [inputs, outputs]
    _put(ours.bias, bias)


def _put(ours: Tensor, values: np.ndarray) -> None:
    if ours.shape != values.shape:
        raise ValueError(f"weights of shape {values.shape} where {tuple(ours.shape)} are expected")
    with torch.no_grad():
        ours.copy_(torch.from_numpy(np.ascontiguousarray(values)))
