"""ALIGNN: shared physics, the line graph by brute force, and the authors' package.

golden/alignn_make.py made the numbers of the latter.
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import alignn_author
from golden_crystals import stored_crystals
from graph_models import FLOAT32_NOISE, GraphModelTests, crystal, supercell
from replimat.datasets.base import Structures
from replimat.errors import DataError, ReplimatError
from replimat.files import sha256
from replimat.models.alignn import ALIGNN, cosines, load_author_weights
from replimat.models.elements import read_element_features
from replimat.representations.line_graph import LineGraph
from replimat.representations.neighbours import neighbours
from replimat.training.graphs import LineGraphs, line_edges

GOLDEN = Path(__file__).parent / "golden"
AUTHOR = json.loads((GOLDEN / "alignn_author.json").read_text())
FORWARD = 1e-6  # outputs of order one in double precision; basis centres are in single
SINGLE = 1e-5  # outputs of order one from positions in single precision
SAME = 1e-5  # angstrom, or fractions of a cell: positions of a batch are in single precision
SHELLS = 15.0  # angstrom: twelve neighbours of every atom are within
ALL = np.arange(len(AUTHOR["ids"]))
FEW = np.array([0, 2, 9, 16, 17, 18, 19])  # small line graphs: the networks are wide, and slow on one core
FORCE_FIELDS = [name for name in AUTHOR["outputs"] if name != "random"]


def bonds(structures: Structures, **options) -> dict[str, torch.Tensor]:
    """Inputs of a model for all structures as one batch, in double precision."""
    arrays = {name: torch.from_numpy(v) for name, v in LineGraph(**options)(structures, progress=False).items()}
    found = LineGraphs(arrays, torch.zeros(len(structures))).inputs(torch.arange(len(structures)))
    return {k: v.double() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in found.items()}


def vectors(inputs: dict) -> torch.Tensor:
    """From receiver to sender, angstrom [E, 3]."""
    j, i = inputs["edge_index"]
    return inputs["pos"][j] + inputs.get("offset", 0) - inputs["pos"][i]


class TestALIGNN(GraphModelTests):
    representation = LineGraph()
    differentiable = True

    def model(self):
        model = ALIGNN(torch.rand(101, 92), alignn_layers=2, gcn_layers=1, hidden=16, embedding=8)
        model.load_state_dict(alignn_author.random_weights(model.state_dict()))  # fresh ones hardly see the positions
        return model

    def test_supercell(self, trained_like):
        """Exact where no atom is bonded to its own image; such bonds count twice, as in the authors' code, and turn
        into single ones in a supercell.
        """
        apart, close = crystal(6, 8, edge=9.0), crystal(6, 2, edge=4.0)
        change = []
        for one in (apart, close):
            many = self.predict(trained_like, supercell(*one, (1, 2, 3)))
            change.append(abs(many - self.predict(trained_like, one))[0])
        assert change[0] < FLOAT32_NOISE < change[1]

    def test_equations_by_a_plain_loop(self, trained_like):
        """Bond by bond and angle by angle: catches a swapped sender and receiver on an asymmetric crystal."""
        model, inputs = trained_like, self.inputs([crystal(16)])
        vec = vectors(inputs)
        j, i = inputs["edge_index"].tolist()
        x, y = model.atom_embedding(model.element_features[inputs["z"]]), model.edge_embedding(vec.norm(dim=1))
        pairs = [(a, b) for b in range(len(j)) for a in range(len(j)) if i[a] == j[b] and a != b]
        angle = torch.stack([torch.dot(vec[a], -vec[b]) / vec[a].norm() / vec[b].norm() for a, b in pairs])
        z = model.angle_embedding(angle.clamp(-1, 1))
        for layer in model.alignn_layers:
            x, y = plain_convolution(layer.node_update, x, y, list(zip(j, i, strict=True)))
            y, z = plain_convolution(layer.edge_update, y, z, pairs)
        for layer in model.gcn_layers:
            x, y = plain_convolution(layer, x, y, list(zip(j, i, strict=True)))
        expected = model.fc(x.mean(dim=0)).item()
        assert self.predict(model, crystal(16))[0] == pytest.approx(expected, abs=1e-10)

    def test_molecules(self, trained_like):
        """Turned and moved, alone and in a batch with a lone atom."""
        water = (np.array([8, 1, 1]), np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]), np.zeros((3, 3)))
        alone = (np.array([10]), np.zeros((1, 3)), np.zeros((3, 3)))
        moved = (water[0], water[1][:, [1, 2, 0]] + 3.0, water[2])
        first, second, third = self.predict(trained_like, water, moved, alone)
        assert first == pytest.approx(second, abs=FLOAT32_NOISE) and np.isfinite(third)

    def test_classes_are_log_probabilities(self):
        model = ALIGNN(torch.rand(101, 92), 1, 1, hidden=8, classes=2).double().eval()
        np.testing.assert_allclose(np.exp(self.predict(model, crystal(13))).sum(axis=1), 1.0)

    def test_unknown_element_is_refused(self, trained_like):
        z, x, cell = crystal(12)
        with pytest.raises(DataError, match="Z = 105"):
            self.predict(trained_like, (np.full_like(z, 105), x, cell))


def plain_convolution(layer, nodes, edges, pairs):
    """One edge-gated convolution as the paper writes it, edge by edge."""
    mixed = [
        layer.src_gate(nodes[j]) + layer.dst_gate(nodes[i]) + layer.edge_gate(edges[e])
        for e, (j, i) in enumerate(pairs)
    ]
    new = []
    for i in range(len(nodes)):
        gates = [(torch.sigmoid(mixed[e]), j) for e, (j, receiver) in enumerate(pairs) if receiver == i]
        total = sum(gate * layer.dst_update(nodes[j]) for gate, j in gates)
        new.append(layer.src_update(nodes[i]) + total / (sum(gate for gate, _ in gates) + 1e-6))
    silu = torch.nn.functional.silu
    return nodes + silu(layer.bn_nodes(torch.stack(new))), edges + silu(layer.bn_edges(torch.stack(mixed)))


def test_parameter_count():
    assert sum(weights.numel() for weights in ALIGNN(torch.zeros(101, 92)).parameters()) == 4_026_753


class TestBonds:
    def test_whole_shell_both_ways(self):
        """Body-centred cubic: 8 + 6 neighbours, as 12 would break the second shell; all are images of one atom."""
        iron = Structures.pack([(np.array([26]), np.zeros((1, 3)), 1.435 * (1 - 2 * np.eye(3)))], periodic=True)
        inputs = bonds(iron)
        length = vectors(inputs).norm(dim=1).numpy()
        assert len(length) == 2 * (8 + 6)  # each counts twice
        assert np.sort(length)[[0, 15, 16, 27]] == pytest.approx(
            2.87 * np.array([0.75**0.5, 0.75**0.5, 1, 1]), abs=1e-5
        )

    @pytest.mark.parametrize("canonise", [True, False])
    def test_by_brute_force(self, canonise):
        """All images of all atoms compared one by one; the first bond of each kind is kept, or both."""
        z, x, cell = crystal(17, 5, edge=3.5)
        images = np.stack(np.meshgrid(*[np.arange(-5, 6)] * 3), -1).reshape(-1, 3)
        found = []
        for i in range(len(z)):
            near = [
                (np.linalg.norm(x[j] + shift @ cell - x[i]), j, tuple(shift.tolist()))
                for j in range(len(z))
                for shift in images
                if j != i or shift.any()
            ]
            last = sorted(near)[11][0]
            found += [(j, i, shift) for d, j, shift in near if d <= last + 1e-8]
        both = found + [(i, j, tuple(-s for s in shift)) for j, i, shift in found]
        if canonise:
            both = [bond for bond in set(both) for _ in range(2 if bond[0] == bond[1] else 1)]
        arrays = LineGraph(canonise=canonise)(Structures.pack([(z, x, cell)], periodic=True), progress=False)
        ours = [
            (j, i, tuple(s)) for j, i, s in zip(*arrays["edge_index"].tolist(), arrays["shift"].tolist(), strict=True)
        ]
        assert sorted(ours) == sorted(both)

    def test_small_molecules_take_all_atoms_there_are(self):
        molecules = [(np.full(n, 6), np.arange(3.0 * n).reshape(n, 3), np.zeros((3, 3))) for n in (1, 2, 5)]
        inputs = bonds(Structures.pack(molecules, periodic=False))
        assert inputs["edge_index"].shape[1] == 0 + 2 + 5 * 4
        assert (torch.bincount(inputs["edge_index"][1], minlength=8) == torch.tensor([0, 1, 1, 4, 4, 4, 4, 4])).all()

    def test_a_broken_crystal_is_named(self):
        good, flat = crystal(1), (np.array([1]), np.zeros((1, 3)), np.diag([3.0, 3.0, 0.0]))
        with pytest.raises(DataError, match="row 1"):
            LineGraph()(Structures.pack([good, flat], periodic=True), progress=False)


class TestLineEdges:
    def test_by_brute_force(self):
        inputs = bonds(Structures.pack([crystal(1), crystal(2, 3), crystal(3, 1, edge=3.0)], periodic=True))
        j, i = inputs["edge_index"].tolist()
        expected = {(a, b) for b in range(len(j)) for a in range(len(j)) if i[a] == j[b] and a != b}
        pairs = list(map(tuple, inputs["line_index"].T.tolist()))
        assert len(pairs) == len(set(pairs)) and set(pairs) == expected

    def test_chain_by_hand(self):
        """0 - 1 - 2, bonds sorted by receiver: 1>0, 0>1, 2>1, 1>2. Bond 1>0 hears 0>1 (back and forth) and 2>1."""
        chain = torch.tensor([[1, 0, 2, 1], [0, 1, 1, 2]])
        assert line_edges(chain, 3).T.tolist() == [[1, 0], [2, 0], [0, 1], [3, 2], [1, 3], [2, 3]]

    def test_right_angle_and_way_back_by_hand(self):
        """Atom 0 at the corner: the angle between its bonds is 90 degrees, that of a bond and its reverse is 0."""
        corner = Structures.pack(
            [(np.ones(3, int), np.array([[0.0, 0, 0], [1, 0, 0], [0, 2, 0]]), np.zeros((3, 3)))], False
        )
        inputs = bonds(corner)
        vec = vectors(inputs)
        found = cosines(vec, vec.norm(dim=1), inputs["line_index"])
        (k, middle), (_, i) = (inputs["edge_index"][:, bond] for bond in inputs["line_index"])
        assert found[(k == i)].numpy() == pytest.approx(1.0)
        assert found[(middle == 0) & (k != i)].numpy() == pytest.approx(0.0)
        assert found[(middle == 1) & (k != i)].numpy() == pytest.approx(1 / 5**0.5)


# ------------------------------------------------------------ the authors' package


@pytest.fixture(scope="module")
def author():
    return load_file(GOLDEN / "alignn_crystals.safetensors")


@pytest.fixture(scope="module")
def crystals(author):
    return stored_crystals(author)


@pytest.fixture(scope="module")
def elements():
    """The table of element features; skips when it is not here and cannot be fetched."""
    return read_element_features(fetched("cgcnn_weights") / "atom_init.json")


def fetched(name: str) -> Path:
    from replimat.sources import store

    try:
        return store.fetch(name)
    except ReplimatError as error:
        pytest.skip(f"{name} not available: {error}")


def author_inputs(author: dict, kind: str, rows) -> dict:
    """Model inputs made of the authors' own bonds of some structures, as one batch."""
    starts, sizes = author["offsets"][:-1][rows], np.diff(author["offsets"])[rows]
    first = np.cumsum(sizes) - sizes
    found = [their_bonds(author, kind, s) for s in rows]
    edge_index = np.concatenate([edges + start for (edges, _), start in zip(found, first, strict=True)], axis=1)
    order = np.argsort(edge_index[1], kind="stable")
    edge_index = torch.from_numpy(edge_index[:, order])
    z = np.concatenate([author["numbers"][start : start + n] for start, n in zip(starts, sizes, strict=True)])
    return {
        "z": torch.from_numpy(z.astype(np.int64)),
        "pos": torch.zeros(len(z), 3, dtype=torch.float64),
        "offset": torch.from_numpy(np.concatenate([vec for _, vec in found])[order]),  # all atoms at the origin
        "edge_index": edge_index,
        "line_index": line_edges(edge_index, len(z)),
        "batch": torch.from_numpy(np.repeat(np.arange(len(rows)), sizes)),
        "n_graphs": len(rows),
    }


def their_bonds(author: dict, kind: str, s: int) -> tuple[np.ndarray, np.ndarray]:
    """Sender and receiver [2, E] and vector [E, 3] of the authors' graph of structure s."""
    edges = slice(*author[f"{kind}.edge_offsets"][s : s + 2])
    return author[f"{kind}.edge_index"][:, edges].astype(int), author[f"{kind}.vec"][edges]


def our_random_network(elements) -> ALIGNN:
    model = ALIGNN(elements).double()
    model.load_state_dict(alignn_author.random_weights(model.state_dict()))
    return model.eval()


def bond_counts(crystal: Structures, sender, receiver, vec) -> Counter:
    """How often each bond (sender, receiver, cell image of the sender) of one crystal is there."""
    image = (vec - crystal.positions[sender] + crystal.positions[receiver]) @ np.linalg.inv(crystal.cells[0])
    assert np.abs(image - np.rint(image)).max() < SAME
    images = map(tuple, np.rint(image).astype(int).tolist())
    return Counter(zip(sender.tolist(), receiver.tolist(), images, strict=True))


def differing(crystal: Structures, edge_index: np.ndarray, vec: np.ndarray, canonise: bool) -> int:
    """In how many bonds the authors' graph of one crystal and ours differ.

    Each must be in the shell of the twelfth neighbour of an end, which the authors' comparison of raw distances breaks.
    """
    inputs = bonds(crystal, canonise=canonise)
    ours = bond_counts(crystal, *inputs["edge_index"].numpy(), vectors(inputs).numpy())
    theirs = bond_counts(crystal, *edge_index, vec)
    near = neighbours(crystal.positions, crystal.cells[0], SHELLS)
    twelfth = [np.sort(near.distance[near.edge_index[1] == i])[11] for i in range(len(crystal.positions))]
    only = (ours - theirs) + (theirs - ours)
    for j, i, image in only:
        length = np.linalg.norm(crystal.positions[j] + image @ crystal.cells[0] - crystal.positions[i])
        assert min(abs(length - twelfth[j]), abs(length - twelfth[i])) < SAME
    return only.total()


@pytest.mark.parametrize("kind", ["canonised", "loose"])
def test_bonds_are_the_authors_but_for_broken_shells(kind, author, crystals):
    """Nine of 21 crystals have a shell that rounding noise breaks there; the others are equal bond by bond."""
    changed = [
        differing(crystals.take([s]), *their_bonds(author, kind, s), kind == "canonised") for s in range(len(crystals))
    ]
    assert sum(map(bool, changed)) == 9
    assert not any(changed[AUTHOR["ids"].index(name)] for name in ("polonium", "copper", "triclinic", "isobutane"))


@pytest.mark.parametrize("kind", ["canonised", "loose"])
def test_line_graph_is_the_authors(kind, author):
    """As many edges as dgl found in every line graph."""
    inputs = author_inputs(author, kind, ALL)
    of_structure = inputs["batch"][inputs["edge_index"][1][inputs["line_index"][1]]]
    assert torch.bincount(of_structure).tolist() == author[f"{kind}.line_edges"].tolist()


def test_forward_with_the_same_random_weights(author, elements):
    with torch.no_grad():
        ours = our_random_network(elements)(**author_inputs(author, "canonised", ALL)).numpy()
    assert ours == pytest.approx(np.array(AUTHOR["outputs"]["random"]["values"]), abs=FORWARD, rel=0)


@pytest.mark.parametrize("name", FORCE_FIELDS)
def test_forward_with_the_released_force_fields(name, author, elements):
    path = fetched("alignn_ff_weights") / name / "best_model.pt"
    assert sha256(path) == AUTHOR["outputs"][name]["sha256"]
    with torch.no_grad():
        ours = load_author_weights(path, elements).double()(**author_inputs(author, "loose", FEW)).numpy()
    assert ours == pytest.approx(np.array(AUTHOR["outputs"][name]["values"])[FEW], abs=FORWARD, rel=0)


def test_other_weights_are_refused(elements):
    with pytest.raises(DataError, match="not weights of ALIGNN-FF"):
        load_author_weights(fetched("cgcnn_weights") / "poisson-ratio.pth.tar", elements)


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_live_against_the_package(author, crystals, elements):
    """Bonds and outputs of the package that is installed, on five of the crystals."""
    for module in ("alignn", "dgl"):
        pytest.importorskip(module)
    torch.set_default_dtype(torch.float64)
    try:
        rows = range(0, len(crystals), 4)
        fractional = [author["fractional"][author["offsets"][s] : author["offsets"][s + 1]] for s in rows]
        graphs = [
            alignn_author.author_graph(crystals[s][0], x, crystals.cells[s], True)
            for s, x in zip(rows, fractional, strict=True)
        ]
        with torch.no_grad():
            theirs = alignn_author.author_predicts(alignn_author.author_network(), graphs)
    finally:
        torch.set_default_dtype(torch.float32)
    model = our_random_network(elements)
    same = 0
    for s, (graph, _), output in zip(rows, graphs, theirs, strict=True):
        found = alignn_author.bonds(graph)
        if differing(crystals.take([s]), found["edge_index"], found["vec"], canonise=True) == 0:
            with torch.no_grad():
                assert model(**bonds(crystals.take([s]))).item() == pytest.approx(output, abs=SINGLE)
            same += 1
    assert same >= 3
