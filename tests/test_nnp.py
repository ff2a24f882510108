"""The Behler-Parrinello potential: physics, functions by hand and by dscribe, n2p2's files, and the fit."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.units import Bohr, Hartree

from potentials import PotentialTests
from replimat.datasets.base import Structures
from replimat.errors import DataError, ReplimatError
from replimat.models import nnp
from replimat.models.forces import energy_and_forces
from replimat.models.nnp import Nnp, read_n2p2
from replimat.representations.cutoff_graph import CutoffGraph
from replimat.training.from_functions import energies_and_forces, fit_network, prepared
from replimat.training.graphs import graphs_of

GOLDEN = json.loads((Path(__file__).parent / "golden" / "nnp_dscribe.json").read_text())
CUTOFF = 4.5
RADIAL = [(0.05, 0.0), (0.4, 2.0)]
ANGULAR = [(0.05, 1, 1), (0.05, -1, 4), (0.1, 1, 16), (0.1, -1, 3)]  # no full product of widths and shapes
COPPER = 29


def potential(**changes) -> Nnp:
    model = Nnp(**{"cutoff": CUTOFF, "radial": RADIAL, "angular": ANGULAR, "hidden": (5, 4)} | changes)
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.normal_(0, 0.6)
    return model


def functions_of(model: Nnp, positions, cell=None) -> torch.Tensor:
    given = inputs_of(model, [(np.full(len(positions), COPPER), np.array(positions, float), cell)])
    return model.functions(*model.near(given["z"], given["pos"], given["edge_index"], given["offset"]), len(positions))


def inputs_of(model: Nnp, structures) -> dict:
    return graphs(model, structures).inputs(torch.arange(len(structures)))


def graphs(model: Nnp, structures, energies=None, forces=None):
    box = np.eye(3) * 100.0  # for a molecule: no image in reach
    packed = Structures.pack([(z, x, box if cell is None else cell) for z, x, cell in structures], periodic=True)
    arrays = {k: torch.from_numpy(v) for k, v in CutoffGraph(model.cutoff)(packed, progress=False).items()}
    energies = torch.zeros(len(structures), dtype=torch.float64) if energies is None else energies
    return graphs_of("CutoffGraph", arrays, energies, forces)


def smooth(r):
    return 0.5 * (math.cos(math.pi * r / CUTOFF) + 1)


class TestNnp(PotentialTests):
    def potential(self):
        torch.manual_seed(1)
        return potential(energy_offset=-1.5)

    def test_another_element_is_refused(self, model):
        with pytest.raises(ValueError, match="28"):
            potential(number=28)(**self.inputs(self.crystal(1)))

    def test_lone_atom_has_the_energy_of_no_neighbours(self, model):
        lone = (np.array([COPPER]), np.zeros((1, 3)), np.eye(3) * 60.0)
        expected = model.atom_energies(model.scaled(torch.zeros(1, 6, dtype=torch.float64))).item()
        assert self.energies(model, lone)[0] == pytest.approx(expected, abs=1e-12)

    def test_memory_saved_by_computing_again_changes_nothing(self, model, monkeypatch):
        one = self.crystal(3)
        whole = self.energies(model, one), self.forces(model, one)
        monkeypatch.setattr(nnp, "PAIRS_AT_ONCE", 1)  # one atom at a time
        np.testing.assert_allclose(self.energies(model, one), whole[0], rtol=1e-13)
        np.testing.assert_allclose(self.forces(model, one), whole[1], rtol=1e-9, atol=1e-11)

    def test_derivatives_equal_autograd(self, model, monkeypatch):
        monkeypatch.setattr(nnp, "EDGES_AT_ONCE", 7)  # several blocks
        given = self.inputs(self.crystal(1), self.crystal(2, 3))
        vec, edge_index = model.near(given["z"], given["pos"], given["edge_index"], given["offset"])
        moving = vec.clone().requires_grad_()
        found = model.functions(moving, edge_index, len(given["z"]))
        slopes = model.derivatives(vec, edge_index, len(given["z"]))
        for k in range(found.shape[1]):
            (expected,) = torch.autograd.grad(found[:, k].sum(), moving, retain_graph=True)
            assert expected.abs().max() > 1e-4
            torch.testing.assert_close(slopes[:, k], expected, rtol=1e-10, atol=1e-13)


def test_dimer_by_hand():
    r = 2.2
    expected = [smooth(r) * math.exp(-eta * (r - shift) ** 2) for eta, shift in RADIAL] + [0.0] * len(ANGULAR)
    torch.testing.assert_close(
        functions_of(potential(), [[0, 0, 0], [r, 0, 0]]), torch.tensor([expected] * 2, dtype=torch.float64)
    )


def test_right_triangle_by_hand():
    """Sides 2, 2 and 2 sqrt 2: the angle at the first atom is 90 degrees, at the others 45."""
    long = 2 * math.sqrt(2)
    found = functions_of(potential(), [[0, 0, 0], [2, 0, 0], [0, 2, 0]])[:, len(RADIAL) :]
    common = [math.exp(-eta * 16) * smooth(2) ** 2 * smooth(long) for eta, _, _ in ANGULAR]
    for atom, cosine in enumerate((0.0, math.sqrt(0.5), math.sqrt(0.5))):
        shape = [2 ** (1 - zeta) * (1 + lam * cosine) ** zeta for _, lam, zeta in ANGULAR]
        expected = torch.tensor([a * b for a, b in zip(shape, common, strict=True)], dtype=torch.float64)
        torch.testing.assert_close(found[atom], expected, rtol=1e-12, atol=1e-15)


def test_a_triangle_with_one_side_beyond_the_cutoff_does_not_count():
    found = functions_of(potential(), [[0, 0, 0], [2.5, 0, 0], [-2.5, 0, 0]])
    assert (found[:, len(RADIAL) :] == 0).all()
    assert (found[:, : len(RADIAL)] > 0).all()


@pytest.mark.parametrize("one", GOLDEN["crystals"], ids=lambda one: f"{len(one['positions'])} atoms")
def test_functions_equal_dscribe(one):
    model = Nnp(GOLDEN["cutoff"], GOLDEN["radial"], GOLDEN["angular"])
    found = functions_of(model, one["positions"], np.array(one["cell"]))
    torch.testing.assert_close(found, torch.tensor(one["functions"], dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_zeta_is_a_positive_whole_number():
    with pytest.raises(ValueError, match="whole"):
        potential(angular=[(0.1, 1, 1.5)])


@pytest.fixture
def n2p2(tmp_path):
    """Files of a network 2-2-1: one G2 and one G3, given in the order n2p2 does not keep; bohr and hartree."""
    lines = ["elements Cu  # one", "atom_energy Cu -0.5", "cutoff_type 1", "global_nodes_short 2"]
    lines += ["symfunction_short Cu 3 Cu Cu 0.01 -1 2.0 8.0", "symfunction_short Cu 2 Cu 0.02 1.0 8.0"]
    (tmp_path / "input.nn").write_text("\n".join(lines))
    (tmp_path / "scaling.data").write_text("# min max\n1 1 0.1 0.5 0 0\n1 2 0.0 2.0 0 0\n")
    weights = [(1.0, "a"), (2.0, "a"), (3.0, "a"), (-4.0, "a"), (0.1, "b"), (0.2, "b"), (0.7, "a"), (-0.3, "a")]
    (tmp_path / "weights.029.data").write_text("".join(f"{v} {k} 1 0 1\n" for v, k in [*weights, (0.05, "b")]))
    return tmp_path


def test_n2p2_files_by_hand(n2p2):
    """Two atoms 3 bohr apart: the G3 is zero, so the second scaled function is too."""
    model = read_n2p2(n2p2)
    given = inputs_of(model, [(np.full(2, COPPER), np.array([[0.0, 0, 0], [3 * Bohr, 0, 0]]), None)])
    g = (math.exp(-0.02 * 4) * 0.5 * (math.cos(math.pi * 3 / 8) + 1) - 0.1) / 0.4
    hidden = math.tanh(1.0 * g + 0.1), math.tanh(2.0 * g + 0.2)  # weights go by sender, then receiver
    expected = 2 * (-0.5 + 0.7 * hidden[0] - 0.3 * hidden[1] + 0.05) * Hartree
    assert model(**given).item() == pytest.approx(expected, rel=1e-10)


def test_n2p2_files_of_another_cutoff_function_are_refused(n2p2):
    path = n2p2 / "input.nn"
    path.write_text(path.read_text().replace("cutoff_type 1", "cutoff_type 2"))
    with pytest.raises(DataError, match="cosine"):
        read_n2p2(n2p2)


@pytest.fixture(scope="module")
def taught():
    """40 shaken and strained crystals of 8 atoms with the energies and forces of a known network."""
    torch.manual_seed(3)
    rng = np.random.default_rng(0)
    teacher, (numbers, x, cell) = potential(number=COPPER), TestNnp().crystal(1, 8)
    strains = rng.uniform(-0.03, 0.03, 40)
    structures = [(numbers, (x + rng.normal(scale=0.05, size=x.shape)) * (1 + e), cell * (1 + e)) for e in strains]
    raw = torch.cat([functions_of(teacher, x, cell) for _, x, cell in structures])
    teacher.set_ranges(raw.amin(0), raw.amax(0))
    found = energy_and_forces(teacher, inputs_of(teacher, structures))
    return graphs(teacher, structures, found["energy"], found["forces"])


def test_forces_of_prepared_frames_equal_autograd(taught):
    given = taught.inputs(torch.arange(5))
    model = potential(number=COPPER)
    (one,) = prepared(model, taught, torch.arange(5), batch=5)
    network = model.network
    _, forces = energies_and_forces(network.float(), one._replace(functions=one.functions.float()))
    expected = energy_and_forces(model.double(), given)["forces"]
    torch.testing.assert_close(forces.double(), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))  # single


def fitted(known, seed=0, epochs=200):
    model = potential(number=COPPER)
    fit_network(model, known, torch.arange(30), seed, epochs=epochs, weights={"energy": 20.0, "forces": 1.0}, lr=0.02)
    return model


def test_the_fit_finds_a_known_potential(taught):
    rows = torch.arange(30, 40)  # not learned from
    found = energy_and_forces(fitted(taught), taught.inputs(rows))
    forces, energy = taught.forces[taught.offsets[30] :], taught.target[rows]
    assert float((found["forces"] - forces).std()) < 0.2 * float(forces.std())
    assert float((found["energy"] - energy).std()) < 0.2 * float(energy.std())


def test_functions_too_narrow_to_see_a_neighbour_do_no_harm(taught):
    """Germanium's published functions have eta = 5 / bohr^2: their values are denormal numbers or nought."""
    narrow = [(5.0 / Bohr**2, sign, zeta) for sign in (-1, 1) for zeta in (1, 2)]
    model = Nnp(CUTOFF, RADIAL, [*ANGULAR, *narrow], hidden=(4, 4), number=COPPER)
    fit_network(model, taught, torch.arange(30), 0, epochs=2, weights={"energy": 20.0, "forces": 1.0}, lr=0.02)
    assert torch.equal(model.spread[-len(narrow) :], torch.ones(len(narrow), dtype=torch.float64))
    found = energy_and_forces(model, taught.inputs(torch.arange(3)))
    assert torch.isfinite(found["forces"]).all() and float(found["forces"].abs().max()) > 1e-3


def test_a_seed_gives_the_same_network_again(taught):
    first, again, other = (fitted(taught, seed, epochs=2).network[0].weight for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_targets_that_are_not_finite_stop_the_fit(taught):
    broken = graphs_of("CutoffGraph", taught.arrays, taught.target * float("nan"), taught.forces)
    with pytest.raises(ReplimatError, match="loss"):
        fitted(broken, epochs=1)
