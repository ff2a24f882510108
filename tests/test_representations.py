"""Graphs, composition features and prepared files."""

import itertools
import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replimat.datasets.base import Structures
from replimat.errors import DataError
from replimat.representations import prepared
from replimat.representations.composition import ELEMENTS, PROPERTIES, composition_features, feature_names
from replimat.representations.crystal_graph import CrystalGraph
from replimat.representations.cutoff_graph import CutoffGraph
from replimat.representations.neighbours import RESOLUTION, molecule_edges, neighbours

ROUNDING = 1e-9  # angstrom: far above float noise of a distance, far below any physical difference

# Triclinic, left-handed, no symmetry; one atom lies outside the cell. A symmetric crystal would hide a swapped edge.
TRICLINIC = np.array([[3.9, 0.4, -0.3], [-0.7, 0.5, 5.1], [0.6, 4.4, 0.9]])
TRICLINIC_ATOMS = np.array([[0.05, 0.11, 0.93], [0.41, 0.72, 0.30], [1.63, -0.81, 0.58]]) @ TRICLINIC
THIN_SLAB = (np.array([[0.0, 0.0, 1.0], [0.1, 1.4, 2.3]]), np.array([[2.5, 0, 0], [-1.2, 2.2, 0], [0.3, 0, 40.0]]))
SIMPLE_CUBIC = (np.zeros((1, 3)), 2.0 * np.eye(3))


def brute_force(positions, cell, cutoff):
    """Every (receiver, sender, shift) closer than the cutoff, found by trying all images that could be near."""
    inverse = np.linalg.inv(cell)
    fractional = positions @ inverse
    reach = np.ceil(cutoff * np.linalg.norm(inverse, axis=0) + np.ptp(fractional, axis=0)).astype(int)
    images = np.array(list(itertools.product(*(range(-r, r + 1) for r in reach))))
    vec = positions[None, None] + (images @ cell)[:, None, None] - positions[None, :, None]  # [S, i, j, 3]
    length = np.linalg.norm(vec, axis=-1)
    found = np.argwhere((length < cutoff) & (length > 0))
    return {(i, j, *images[s]) for s, i, j in found.tolist()}


def as_set(near):
    sender, receiver = near.edge_index
    return {(i, j, *shift) for i, j, shift in zip(receiver.tolist(), sender.tolist(), near.shift.tolist(), strict=True)}


@pytest.mark.parametrize(
    ("positions", "cell", "cutoff"),
    [
        (TRICLINIC_ATOMS, TRICLINIC, 6.0),
        (TRICLINIC_ATOMS, 0.35 * TRICLINIC, 4.0),  # cutoff several times the cell
        (*THIN_SLAB, 5.0),  # images exactly 5.0 A away do not count
        (*SIMPLE_CUBIC, 5.1),
    ],
    ids=["triclinic", "small-cell", "slab", "one-atom"],
)
class TestPeriodicNeighbours:
    def test_equal_brute_force(self, positions, cell, cutoff):
        near = neighbours(positions, cell, cutoff)
        assert as_set(near) == brute_force(positions, cell, cutoff)
        assert len(as_set(near)) == len(near.distance)  # no edge twice

    def test_equal_vesin(self, positions, cell, cutoff):
        vesin = pytest.importorskip("vesin")
        i, j, shift = vesin.NeighborList(cutoff=cutoff, full_list=True).compute(positions, cell, True, "ijS")
        theirs = {(a, b, *s) for a, b, s in zip(i.tolist(), j.tolist(), shift.tolist(), strict=True)}
        assert as_set(neighbours(positions, cell, cutoff)) == theirs

    def test_equal_ase(self, positions, cell, cutoff):
        ase = pytest.importorskip("ase.neighborlist")
        i, j, shift = ase.primitive_neighbor_list("ijS", [True] * 3, cell, positions, cutoff)
        theirs = {(a, b, *s) for a, b, s in zip(i.tolist(), j.tolist(), shift.tolist(), strict=True)}
        assert as_set(neighbours(positions, cell, cutoff)) == theirs

    def test_edge_convention(self, positions, cell, cutoff):
        (j, i), shift, distance = neighbours(positions, cell, cutoff)
        vec = positions[j] + shift @ cell - positions[i]
        assert np.linalg.norm(vec, axis=1) == pytest.approx(distance, abs=ROUNDING)

    def test_sorted(self, positions, cell, cutoff):
        (j, i), shift, distance = neighbours(positions, cell, cutoff)
        keys = [*zip(i.tolist(), np.rint(distance / RESOLUTION).tolist(), j.tolist(), shift.tolist(), strict=True)]
        assert keys == sorted(keys)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_any_crystal_equals_brute_force(seed):
    random = np.random.default_rng(seed)
    cell = random.normal(size=(3, 3)) * random.uniform(2, 5)
    cell += np.sign(np.linalg.det(cell)) * np.eye(3)
    if abs(np.linalg.det(cell)) < 4:  # a cell of no volume to speak of has thousands of images
        return
    positions = random.uniform(-1, 2, size=(random.integers(1, 5), 3)) @ cell
    assert as_set(neighbours(positions, cell, 4.0)) == brute_force(positions, cell, 4.0)


def test_simple_cubic_by_hand():  # a = 2 A: 6 images at 2 A, 12 at 2.83 A; the corners at 3.46 A are outside
    near = neighbours(*SIMPLE_CUBIC, 3.0)
    assert near.distance == pytest.approx([2.0] * 6 + [np.sqrt(8)] * 12)
    assert near.shift[:6].tolist() == [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [0, 0, 1], [0, 1, 0], [1, 0, 0]]


def test_order_does_not_see_rounding_noise():
    noise = 1e-13 * np.random.default_rng(0).normal(size=(4, 3))
    cell = 4.0 * np.eye(3)
    fcc = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]) @ cell
    plain, noisy = neighbours(fcc, cell, 6.0), neighbours(fcc + noise, cell, 6.0)
    assert (plain.edge_index == noisy.edge_index).all() and (plain.shift == noisy.shift).all()


def test_molecule_without_box():
    near = neighbours(np.array([[0.0, 0, 0], [0, 0, 1.0], [0, 0, 3.0]]), np.zeros((3, 3)), 2.5, periodic=False)
    assert near.edge_index.tolist() == [[1, 0, 2, 1], [0, 1, 1, 2]]
    assert near.distance.tolist() == [1, 1, 2, 2] and not near.shift.any()


@pytest.mark.parametrize(
    ("positions", "cell"),
    [
        (np.full((1, 3), np.nan), np.eye(3)),
        (np.zeros((1, 3)), np.zeros((3, 3))),
        (np.array([[0.0, 0, 0], [900.0, 0, 0]]), 3 * np.eye(3)),
    ],
    ids=["nan", "flat-cell", "far-outside"],
)
def test_bad_crystals_are_refused_by_row(positions, cell):
    good = (np.ones(1), np.zeros((1, 3)), 3 * np.eye(3))
    crystals = Structures.pack([good, (np.ones(len(positions)), positions, cell)], periodic=True)
    with pytest.raises(DataError, match="row 1: no neighbour list"):
        CrystalGraph()(crystals, progress=False)


def random_molecules(sizes, seed=0):
    random = np.random.default_rng(seed)
    return Structures.pack(
        [(np.full(a, 6), random.normal(scale=2.5, size=(a, 3)), np.zeros((3, 3))) for a in sizes], periodic=False
    )


class TestMolecules:
    molecules = random_molecules([1, 5, 29, 1, 2, 17, 3])

    def test_equal_one_by_one(self):
        arrays = CutoffGraph(cutoff=4.0)(self.molecules)
        assert "shift" not in arrays
        for s in range(len(self.molecules)):
            _, positions, cell = self.molecules[s]
            edges = arrays["edge_index"][:, arrays["edge_offsets"][s] : arrays["edge_offsets"][s + 1]]
            alone = neighbours(positions, cell, 4.0, periodic=False).edge_index
            assert sorted(edges.T.tolist()) == sorted(alone.T.tolist())
            assert edges.T.tolist() == sorted(edges.T.tolist(), key=lambda edge: edge[::-1])  # receiver, then sender

    def test_do_not_depend_on_how_many_at_once(self, monkeypatch):
        whole = molecule_edges(self.molecules.positions, self.molecules.offsets, 4.0)
        monkeypatch.setattr("replimat.representations.neighbours.PAIRS_AT_ONCE", 30)
        pieces = molecule_edges(self.molecules.positions, self.molecules.offsets, 4.0)
        assert (whole[0] == pieces[0]).all() and (whole[1] == pieces[1]).all()

    def test_nan_is_refused(self):
        with pytest.raises(DataError, match="not finite"):
            molecule_edges(np.full((2, 3), np.nan), np.array([0, 2]), 5.0)

    def test_have_no_crystal_graph(self):
        with pytest.raises(DataError, match="CutoffGraph"):
            CrystalGraph()(self.molecules)


def crystals(*pairs):
    return Structures.pack([(np.arange(1, 1 + len(p)), p, c) for p, c in pairs], periodic=True)


class TestCrystalGraph:
    def test_twelve_nearest(self):
        arrays = CrystalGraph()(crystals((TRICLINIC_ATOMS, TRICLINIC), THIN_SLAB), progress=False)
        for s, (positions, cell) in enumerate([(TRICLINIC_ATOMS, TRICLINIC), THIN_SLAB]):
            near = neighbours(positions, cell, 8.0)
            for i in range(len(positions)):
                expected = near.distance[near.edge_index[1] == i][:12]
                row = arrays["offsets"][s] + i
                assert arrays["distance"][row] == pytest.approx(expected, rel=1e-6)  # stored as float32
                j = arrays["neighbour_index"][row]
                vec = positions[j] + arrays["shift"][row] @ cell - positions[i]
                assert np.linalg.norm(vec, axis=1) == pytest.approx(expected, abs=ROUNDING)

    def test_same_graph_in_a_supercell(self):
        cell, double = TRICLINIC, TRICLINIC * np.array([[2.0], [1.0], [1.0]])
        twice = np.concatenate([TRICLINIC_ATOMS, TRICLINIC_ATOMS + cell[0]])
        arrays = CrystalGraph()(crystals((TRICLINIC_ATOMS, cell), (twice, double)), progress=False)
        one, first, second = arrays["distance"].reshape(3, 3, 12)
        assert first == pytest.approx(one, abs=1e-6) and second == pytest.approx(one, abs=1e-6)
        one, first, second = arrays["neighbour_index"].reshape(3, 3, 12)
        assert (first % 3 == one).all() and (second % 3 == one).all()

    def test_padding_is_the_authors_and_is_told(self):  # cubic cell of 7 A: 6 images within 8 A, 6 places left
        alone = (np.array([[0.0, 0, 0]]), 7.0 * np.eye(3))
        with pytest.warns(UserWarning, match=r"1 of 2 crystals .* rows 1\."):
            arrays = CrystalGraph()(crystals((TRICLINIC_ATOMS, TRICLINIC), alone), progress=False)
        assert arrays["padding"].tolist() == [0, 6]
        assert arrays["distance"][-1].tolist() == [7.0] * 6 + [9.0] * 6
        assert arrays["neighbour_index"][-1].tolist() == [0] * 12

    def test_no_neighbour_at_all(self):
        with pytest.warns(UserWarning):
            arrays = CrystalGraph(cutoff=3.0)(crystals((np.zeros((1, 3)), 5.0 * np.eye(3))), progress=False)
        assert arrays["padding"].tolist() == [12] and (arrays["distance"] == 4.0).all()

    def test_ties_go_to_the_lower_index_and_image(
        self,
    ):  # rock salt, a = 4 A: 6 at 2 A, 12 at 2 sqrt 2 A; 6 of the 12 are kept
        cell = 2.0 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
        rock_salt = np.array([[0.0, 0, 0], [2.0, 2.0, 2.0]])
        arrays = CrystalGraph()(crystals((rock_salt, cell)), progress=False)
        assert arrays["neighbour_index"].tolist() == [[1] * 6 + [0] * 6, [0] * 6 + [1] * 6]
        kept = arrays["shift"][0, 6:].tolist()
        assert kept == sorted(kept) == [[-1, 0, 0], [-1, 0, 1], [-1, 1, 0], [0, -1, 0], [0, -1, 1], [0, 0, -1]]

    def test_rotation_and_translation(self):
        rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
        plain = CrystalGraph()(crystals((TRICLINIC_ATOMS, TRICLINIC)), progress=False)
        moved = CrystalGraph()(crystals(((TRICLINIC_ATOMS + 0.7) @ rotation, TRICLINIC @ rotation)), progress=False)
        assert (plain["neighbour_index"] == moved["neighbour_index"]).all()
        assert plain["distance"] == pytest.approx(moved["distance"], abs=1e-6)


def test_cutoff_graph_of_crystals_packs_each_neighbour_list():
    pairs = [(TRICLINIC_ATOMS, TRICLINIC), THIN_SLAB, SIMPLE_CUBIC]
    arrays = CutoffGraph(cutoff=5.0)(crystals(*pairs), progress=False)
    for s, (positions, cell) in enumerate(pairs):
        rows = slice(*arrays["edge_offsets"][s : s + 2])
        near = neighbours(positions, cell, 5.0)
        assert (arrays["edge_index"][:, rows] == near.edge_index).all()
        assert (arrays["shift"][rows] == near.shift).all()


class TestComposition:
    def test_water_by_hand(self):  # H, H, O
        features = composition_features(Structures.pack([([1, 1, 8], np.zeros((3, 3)), np.eye(3))], periodic=True))
        value = dict(zip(feature_names(), features[0].tolist(), strict=True))
        assert value["mean Z"] == pytest.approx(10 / 3)
        assert value["std Z"] == pytest.approx(np.std([1, 1, 8]))
        assert (value["min Z"], value["max Z"], value["range Z"]) == (1, 8, 7)
        assert value["max X"] == pytest.approx(3.44) and value["min X"] == pytest.approx(2.20)  # Pauling
        assert value["amount H"] == pytest.approx(2 / 3) and value["amount O"] == pytest.approx(1 / 3)

    def test_water_beside_another_crystal(self):
        water, iron = ([1, 1, 8], np.zeros((3, 3)), np.eye(3)), ([26], np.zeros((1, 3)), np.eye(3))
        alone = composition_features(Structures.pack([water], periodic=True))
        assert (composition_features(Structures.pack([iron, water], periodic=True))[1] == alone[0]).all()

    def test_molecules_differ_by_their_size(self):  # H2 and H4 have the same fractions
        hydrogen = Structures.pack([([1] * n, np.zeros((n, 3)), np.zeros((3, 3))) for n in (2, 4)], periodic=False)
        assert composition_features(hydrogen)[:, feature_names().index("amount H")].tolist() == [2, 4]

    def test_sees_only_the_composition(self):
        random = np.random.default_rng(0)
        order = [
            ([26, 8, 8], random.normal(size=(3, 3)), np.eye(3)),
            ([8, 26, 8], random.normal(size=(3, 3)), np.eye(3)),
        ]
        doubled = [([8, 8, 8, 26, 8, 26], random.normal(size=(6, 3)), np.eye(3))]
        rows = composition_features(Structures.pack(order + doubled, periodic=True))
        assert rows[1] == pytest.approx(rows[0], rel=1e-6) and rows[2] == pytest.approx(rows[0], rel=1e-6)

    def test_every_element_is_finite(self):
        alone = [([z], np.zeros((1, 3)), np.eye(3)) for z in range(1, ELEMENTS + 1)]
        features = composition_features(Structures.pack(alone, periodic=True))
        assert features.shape == (ELEMENTS, 5 * len(PROPERTIES) + ELEMENTS) and features.dtype == np.float32
        assert np.isfinite(features).all()
        assert (features[:, -ELEMENTS:] == np.eye(ELEMENTS)).all()

    @pytest.mark.parametrize("z", [0, ELEMENTS + 1])
    def test_unknown_element_is_refused(self, z):
        with pytest.raises(DataError, match=r"(?i)atomic numbers"):
            composition_features(Structures.pack([([z], np.zeros((1, 3)), np.eye(3))], periodic=True))


class TestPreparedFiles:
    key = prepared.prepared_key("d" * 64, CrystalGraph())

    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / prepared.prepared_name("toy", self.key)
        arrays = {"numbers": np.arange(5, dtype=np.int16), "empty": np.zeros((0, 3), np.int8), "x": np.eye(3)[:, ::2]}
        prepared.save(path, arrays, {"key": self.key, "ids": ["a", "b"]})
        return path

    def test_round_trip(self, path):
        arrays, metadata = prepared.load(path, self.key, required=["numbers", "x"])
        assert metadata == {"key": self.key, "ids": ["a", "b"]}
        assert arrays["numbers"].dtype == np.int16 and arrays["numbers"].tolist() == [0, 1, 2, 3, 4]
        assert arrays["empty"].shape == (0, 3) and (arrays["x"] == np.eye(3)[:, ::2]).all()
        assert self.key[:12] in path.name

    def test_key_changes_with_everything_that_matters(self):
        class NewerGraph(CrystalGraph):
            version = 2

        NewerGraph.__name__ = "CrystalGraph"
        variants = [
            ("e" * 64, CrystalGraph(), {}),
            ("d" * 64, CrystalGraph(cutoff=7.0), {}),
            ("d" * 64, CrystalGraph(neighbours=11), {}),
            ("d" * 64, CutoffGraph(cutoff=8.0), {}),
            ("d" * 64, NewerGraph(), {}),
            ("d" * 64, CrystalGraph(), {"target": "band_gap"}),
        ]
        keys = {self.key, *(prepared.prepared_key(data, graph, **others) for data, graph, others in variants)}
        assert len(keys) == len(variants) + 1

    def test_stale_cache_is_refused(self, path):
        with pytest.raises(DataError, match=f"stale: made for key {self.key[:12]}, expected 000000000000"):
            prepared.load(path, "0" * 64)

    def test_missing_array_is_named(self, path):
        with pytest.raises(DataError, match="lacks distance"):
            prepared.load(path, self.key, required=["numbers", "distance"])

    @pytest.mark.parametrize("kept", [0, 5, 200, -1])
    def test_truncated_file_is_refused(self, path, kept):
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(DataError, match="truncated"):
            prepared.load(path, self.key)

    def test_flipped_bit_is_refused(self, path):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        with pytest.raises(DataError, match="altered"):
            prepared.load(path, self.key)

    def test_foreign_and_absent_files_are_refused(self, tmp_path):
        from safetensors.numpy import save_file

        save_file({"x": np.zeros(1)}, tmp_path / "foreign.safetensors")
        with pytest.raises(DataError, match="not a prepared file"):
            prepared.load(tmp_path / "foreign.safetensors")
        with pytest.raises(DataError, match="missing"):
            prepared.load(tmp_path / "absent.safetensors")

    def test_what_cannot_be_stored_is_refused(self, tmp_path):
        with pytest.raises(DataError, match="key"):
            prepared.save(tmp_path / "x", {}, {})
        with pytest.raises(DataError, match="ids"):
            prepared.save(tmp_path / "x", {"ids": np.array(["a"])}, {"key": "k"})
        with pytest.raises(DataError, match="JSON"):
            prepared.save(tmp_path / "x", {}, {"key": "k", "mae": float("nan")})
        assert list(tmp_path.iterdir()) == []

    def test_loading_needs_no_materials_library(self, path):
        code = f"""
import json, sys
from replimat.representations import prepared
prepared.load({str(path)!r}, {self.key!r})
print(json.dumps([name for name in ("pymatgen", "ase", "torch", "pandas") if name in sys.modules]))
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == []


def test_full_graphs_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CrystalGraph()(crystals((TRICLINIC_ATOMS, TRICLINIC)), progress=False)
