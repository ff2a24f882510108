"""ALIGNN: building graphs, a training step, and line graphs of growing crystals, ours against the authors' package.

    python benchmarks/alignn_step.py

Both build the graphs of the same crystals (12 neighbours, canonised) with their line graphs and train the network of
the paper (4 + 4 layers, 256 wide, AdamW) on one batch, on one thread. The package builds with dgl, or without it in
its newer way ("without dgl": 12 neighbours, one way, no whole shells: fewer bonds). tests/test_alignn.py shows that
bonds and outputs are the same. Peers: alignn==2026.8.11 with jarvis-tools, dgl==1.1.3, matscipy.
"""

import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import OURS, Missing, in_own_process, keep, peer, rows, seconds

from replimat.datasets import load
from replimat.datasets.base import Structures
from replimat.models.alignn import ALIGNN
from replimat.models.elements import read_element_features
from replimat.representations.line_graph import LineGraph
from replimat.sources import store
from replimat.training.graphs import LineGraphs

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

CRYSTALS = 32
REPEATS = (1, 2, 4, 6)  # of diamond's cubic cell in each direction: 8 to 1,728 atoms
LATTICE = 3.567  # angstrom
CORNERS = [[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0], [1, 1, 1], [1, 3, 3], [3, 1, 3], [3, 3, 1]]  # quarters
EQUAL = 1e-4  # outputs of order one, single precision
DGL, TORCH = "alignn", "alignn without dgl"
DGL_ATOMS = 512  # beyond, its neighbour list in Python takes minutes


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    peers = []
    try:
        peer("alignn"), peer("jarvis")
        peers.append(TORCH)
        peer("dgl")
        peers.append(DGL)
    except Missing as reason:
        print(f"left out: {reason}")
    cases, peaks, times = growing(peers), [], []
    for case, calls in cases.items():  # memory first: a new process starts with the peak of this one
        peak = {name: in_own_process(call)[1] for name, call in calls.items()}
        peaks += rows("ALIGNN", f"{case}, peak memory (imports included)", peak, "MB")
    for case, calls in cases.items():
        times += rows("ALIGNN", case, {name: 1000 * t for name, t in seconds(calls, repeats=1).items()}, "ms")
    structures = load("mp_flla").structures
    structures = structures.take(np.linspace(0, len(structures) - 1, CRYSTALS).astype(int))
    keep(graph_building(structures, peers) + steps(structures, peers) + times + peaks)


def graph_building(structures: Structures, peers: list[str]) -> list[dict]:
    """Bonds, and line graphs with them."""
    crystals = [structures[s] for s in range(CRYSTALS)]
    calls = {OURS: partial(ours, structures)}
    calls |= {name: lambda name=name: [theirs(name, *crystal) for crystal in crystals] for name in peers}
    times = {name: 1000 * t / CRYSTALS for name, t in seconds(calls, repeats=2).items()}
    return rows("ALIGNN", "graph and line graph", times, "ms/crystal")


def steps(structures: Structures, peers: list[str]) -> list[dict]:
    """A training step and inference on one ready batch of our bonds; the package's network of the paper needs dgl."""
    batch = ours(structures)
    model = ALIGNN(read_element_features(store.fetch("cgcnn_weights") / "atom_init.json"))
    networks = {OURS: (model, lambda: model(**batch))}
    if DGL in peers:
        networks[DGL] = twin(model, batch)
    training = {name: training_step(*network) for name, network in networks.items()}
    found = rows("ALIGNN", f"training step on {CRYSTALS}", _milliseconds(training), "ms")
    for network, _ in networks.values():
        network.eval()
    answers = {name: torch.no_grad()(call) for name, (_, call) in networks.items()}
    outputs = [answer() for answer in answers.values()]
    if not all(torch.allclose(outputs[0], other, atol=EQUAL, rtol=0) for other in outputs):
        raise SystemExit("the outputs differ: not the same network")
    return found + rows("ALIGNN", f"inference on {CRYSTALS}", _milliseconds(answers), "ms")


def twin(model: ALIGNN, batch: dict) -> tuple:
    """The package's network with our weights, and a call of it on our bonds as dgl graphs."""
    import dgl
    from alignn.graphs import compute_bond_cosines
    from alignn.models.alignn import ALIGNN as Theirs
    from alignn.models.alignn import ALIGNNConfig

    network = Theirs(ALIGNNConfig(name="alignn"))
    network.load_state_dict(model.state_dict())
    j, i = batch["edge_index"]
    atoms = dgl.graph((j, i), num_nodes=len(batch["z"]))
    atoms.set_batch_num_nodes(torch.bincount(batch["batch"]))
    atoms.set_batch_num_edges(torch.bincount(batch["batch"][i]))
    atoms.ndata["atom_features"] = model.element_features[batch["z"]]
    atoms.edata["r"] = batch["pos"][i] - batch["pos"][j] - batch["offset"]  # theirs points from sender to receiver
    lines = atoms.line_graph(shared=True)
    lines.apply_edges(compute_bond_cosines)
    return network, lambda: network((atoms.local_var(), lines.local_var(), None))


def growing(peers: list[str]) -> dict[str, dict]:
    """Case -> name -> call, for crystals of growing size."""
    found = {}
    for repeats in REPEATS:
        atoms = 8 * repeats**3
        names = [OURS, *(name for name in peers if name != DGL or atoms <= DGL_ATOMS)]
        found[f"diamond, {atoms} atoms"] = {name: partial(grow, name, repeats) for name in names}
    return found


def grow(name: str, repeats: int) -> None:
    """Graph and line graph of one crystal of diamond."""
    if name == OURS:
        ours(Structures.pack([diamond(repeats)], periodic=True))
    else:
        theirs(name, *diamond(repeats))


def diamond(repeats: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers, positions and cell of a cubic supercell."""
    shifts = np.stack(np.meshgrid(*[np.arange(repeats)] * 3), -1).reshape(-1, 1, 3)
    positions = ((np.array(CORNERS) / 4 + shifts) * LATTICE).reshape(-1, 3)
    return np.full(len(positions), 6), positions, np.eye(3) * LATTICE * repeats


def ours(structures: Structures) -> dict:
    """Bonds and line graph of all structures as one batch of model inputs."""
    arrays = {name: torch.from_numpy(a) for name, a in LineGraph()(structures, progress=False).items()}
    return LineGraphs(arrays, torch.zeros(len(structures))).inputs(torch.arange(len(structures)))


def theirs(name: str, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray) -> tuple:
    """Bond graph and line graph of one crystal by the package."""
    if name == DGL:
        from alignn_author import author_graph

        return author_graph(numbers, positions @ np.linalg.inv(cell), cell, canonise=True)
    from alignn.torch_graph_builder import build_pure_torch_graph
    from jarvis.core.atoms import Atoms
    from jarvis.core.specie import atomic_numbers_to_symbols

    elements = atomic_numbers_to_symbols(numbers)
    atoms = Atoms(lattice_mat=cell, coords=positions, elements=elements, cartesian=True)
    return build_pure_torch_graph(atoms=atoms, two_body_cutoff=8.0, three_body_cutoff=8.0, max_neighbors=12)


def training_step(network: torch.nn.Module, call):
    """One AdamW step on a ready batch; the rate is so small that the weights stay what they are."""
    optimiser = torch.optim.AdamW(network.parameters(), 1e-9)

    def step():
        optimiser.zero_grad()
        call().square().mean().backward()
        optimiser.step()

    return step


def _milliseconds(calls: dict) -> dict[str, float]:
    return {name: 1000 * t for name, t in seconds(calls, repeats=2).items()}


if __name__ == "__main__":
    main()
