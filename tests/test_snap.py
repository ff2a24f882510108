"""SNAP: physics, LAMMPS, and the mathematics beneath."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms

from graph_models import rotation
from potentials import PotentialTests
from replimat.errors import DataError
from replimat.models.forces import energy_and_forces
from replimat.models.quaternions import differentiated, exponents, group_quadrature, harmonic_transform, raised
from replimat.models.snap import Snap, read_snap
from replimat.physics.calculator import ModelCalculator
from replimat.representations.neighbours import neighbours

GOLDEN = json.loads((Path(__file__).parent / "golden" / "snap_lammps.json").read_text())
SAME = 1e-10  # relative to the largest value of an array: sums of doubles in another order
CASES = [(name, crystal) for name in GOLDEN["settings"] for crystal in range(len(GOLDEN["crystals"]))]


def with_coefficients(model: Snap) -> Snap:
    k = torch.arange(1, len(model.coefficients) + 1).double()
    with torch.no_grad():
        model.coefficients.copy_(GOLDEN["coefficient_size"] * torch.sin(k) / k)
    return model


def golden(name: str, crystal: int) -> tuple[Atoms, dict]:
    """A stored crystal with our potential of the setting as calculator, and what LAMMPS found."""
    model = with_coefficients(Snap(**GOLDEN["settings"][name]))
    stored = GOLDEN["crystals"][crystal]
    atoms = Atoms(
        "Cu5", positions=stored["positions"], cell=stored["cell"], pbc=True, calculator=ModelCalculator(model)
    )
    return atoms, GOLDEN["found"][name][crystal]


def inputs_of(atoms: Atoms) -> dict:
    near = neighbours(atoms.positions, atoms.cell.array, atoms.calc.model.cutoff)
    return {
        "z": torch.from_numpy(atoms.numbers.astype(np.int64)),
        "pos": torch.from_numpy(atoms.positions),
        "edge_index": torch.from_numpy(near.edge_index),
        "offset": torch.from_numpy(near.shift @ atoms.cell.array),
        "batch": torch.zeros(len(atoms), dtype=torch.long),
        "n_graphs": 1,
    }


def close(ours, theirs) -> None:
    theirs = np.asarray(theirs)
    assert np.abs(theirs).max() > 1e-4  # zeros would agree with anything small
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=0, atol=SAME * np.abs(theirs).max())


class TestSnap(PotentialTests):
    def potential(self):
        return with_coefficients(Snap(cutoff=4.1, twojmax=8))


class TestQuadraticSnap(PotentialTests):
    symbol, nearest = "Mo", 2.8

    def potential(self):
        return with_coefficients(Snap(cutoff=4.6, twojmax=6, quadratic=True, atomic_number=42))


@pytest.mark.parametrize(("name", "crystal"), CASES)
def test_energy_forces_and_stress_of_lammps(name, crystal):
    atoms, theirs = golden(name, crystal)
    close(atoms.get_potential_energy(), theirs["energy"])
    close(atoms.get_forces(), theirs["forces"])
    stress, pressures = atoms.get_stress(), np.asarray(theirs["stress"])
    close(stress, pressures)


@pytest.mark.parametrize(("name", "crystal"), [case for case in CASES if case[0] in ("linear 6", "linear 8")])
def test_components_of_lammps_and_their_forces(name, crystal):
    atoms, theirs = golden(name, crystal)
    inputs = inputs_of(atoms)
    close(atoms.calc.model.components(inputs), theirs["sna"])
    close(atoms.calc.model.design(inputs)["forces"][..., 1:], np.reshape(theirs["snad"], (5, 3, -1)))


@pytest.mark.parametrize("name", GOLDEN["settings"])
def test_design_is_what_autograd_gives(name):
    atoms, _ = golden(name, 0)
    model, inputs = atoms.calc.model, inputs_of(atoms)
    found, design = energy_and_forces(model, inputs), model.design(inputs)
    close(design["energy"] @ model.coefficients.detach(), found["energy"])
    close(design["forces"] @ model.coefficients.detach(), found["forces"])
    (by_coefficients,) = torch.autograd.grad(model(**inputs).sum(), model.coefficients)
    close(by_coefficients, design["energy"][0])


def test_a_batch_gives_the_design_of_single_crystals():
    either = [golden("quadratic 6", crystal)[0] for crystal in range(2)]
    model, alone = either[0].calc.model, [inputs_of(atoms) for atoms in either]
    both = {name: torch.cat([one[name] for one in alone]) for name in ("z", "pos", "offset", "batch")}
    both["batch"][5:] += 1
    both |= {"edge_index": torch.cat([alone[0]["edge_index"], alone[1]["edge_index"] + 5], dim=1), "n_graphs": 2}
    for name in ("energy", "forces"):
        close(model.design(both)[name], torch.cat([model.design(one)[name] for one in alone]))


def test_an_atom_without_neighbours_by_hand():
    """U^j = 1, and the mean of three characters counts how often spin j is in the product of j1 and j2: once."""
    model = Snap(cutoff=3.0, twojmax=6)
    lone = Atoms("Cu", cell=[9.0, 9.0, 9.0], pbc=True, calculator=ModelCalculator(model))
    expected = [j + 1.0 for _, _, j in model.bispectrum.triples]
    np.testing.assert_allclose(model.components(inputs_of(lone))[0], expected, rtol=1e-12)


def test_first_component_by_hand():
    """B_000 is the cube of the density of spin 0, which is 1 + sum_k fc(r_k)."""
    model, r = Snap(cutoff=4.0, twojmax=4), 2.5
    pair = Atoms(
        "Cu2", positions=[[0, 0, 0], [r, 0, 0]], cell=[20, 20, 20], pbc=True, calculator=ModelCalculator(model)
    )
    density = 1 + 0.5 * (1 + np.cos(np.pi * r / 4.0))
    assert model.components(inputs_of(pair))[0, 0].item() == pytest.approx(density**3, rel=1e-12)


@pytest.mark.parametrize(("twojmax", "count"), [(2, 5), (6, 30), (8, 55)])
def test_number_and_order_of_components(twojmax, count):
    model = Snap(cutoff=4.0, twojmax=twojmax, quadratic=True)
    assert len(model.bispectrum.triples) == count
    assert len(model.coefficients) == 1 + count + count * (count + 1) // 2
    assert model.bispectrum.triples[:4] == [(0, 0, 0), (1, 0, 1), (1, 1, 2), (2, 0, 2)]


@pytest.mark.parametrize("degree", [2, 3, 7, 8])
def test_harmonics_add_up_to_characters(degree):
    rng = np.random.default_rng(degree)
    q, p = (torch.from_numpy(x / np.linalg.norm(x)) for x in rng.normal(size=(2, 4)))
    transform, spins = harmonic_transform(degree)
    power = torch.ones(1, 2).double()
    for _ in range(degree):
        power = raised(torch.stack([q, p], dim=1), power)
    of_q, of_p = (transform.T @ power).T
    angle, start = torch.arccos(q @ p), 0
    assert sum((spin + 1) ** 2 for spin in spins) == len(transform)
    for spin in spins:
        block = slice(start, start + (spin + 1) ** 2)
        assert float(of_q[block] @ of_p[block]) == pytest.approx(
            float(torch.sin((spin + 1) * angle) / torch.sin(angle)), abs=1e-12
        )
        start = block.stop


def test_derivatives_of_monomials():
    rng, degree = np.random.default_rng(1), 5
    q = torch.from_numpy(rng.normal(size=(4, 1))).requires_grad_()
    lower = power = torch.ones(1, 1).double()
    for _ in range(degree):
        lower, power = power, raised(q, power)
    polynomial = torch.from_numpy(rng.normal(size=(1, 1, len(power))))
    (gradient,) = torch.autograd.grad((polynomial[0] @ power).sum(), q)
    torch.testing.assert_close(differentiated(polynomial, degree)[0] @ lower.detach(), gradient)
    assert len({tuple(row) for row in exponents(degree)}) == len(power) == 56


def test_quadrature_is_exact_for_means_over_rotations():
    """Mean of w^(2a) x^(2b) y^(2c) z^(2d) on the 3-sphere: product of double factorials over 4 6 8 .. (by hand)."""
    quaternions, weights = group_quadrature(6)
    odd = lambda n: np.prod(np.arange(2 * n - 1, 0, -2, dtype=float))  # noqa: E731
    for powers in itertools.product(range(4), repeat=4):
        if sum(powers) == 6:
            mean = float((quaternions ** (2 * torch.tensor(powers))[:, None]).prod(dim=0) @ weights)
            expected = np.prod([odd(n) for n in powers]) / np.prod(4.0 + 2 * np.arange(6))
            assert mean == pytest.approx(expected, rel=1e-12)


def test_components_do_not_see_a_rotation():
    atoms, _ = golden("linear 8", 0)
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ rotation(3).T, scale_atoms=True)
    turned.calc = ModelCalculator(atoms.calc.model)
    close(atoms.calc.model.components(inputs_of(turned)), atoms.calc.model.components(inputs_of(atoms)))


def test_refuses_another_element_unsorted_edges_and_wrong_settings():
    atoms, _ = golden("linear 6", 0)
    inputs = inputs_of(atoms)
    with pytest.raises(ValueError, match="atomic number 42"):
        Snap(4.6, 6, atomic_number=42)(**inputs)
    with pytest.raises(ValueError, match="sorted"):
        atoms.calc.model(**inputs | {"edge_index": inputs["edge_index"].flip(1), "offset": inputs["offset"].flip(0)})
    for odd in (0, 1, 7):
        with pytest.raises(ValueError, match="twojmax"):
            Snap(4.6, odd)


def write(folder: Path, values, parameters: str, element: str = "Mo 0.5 1") -> None:
    lines = "\n".join(repr(float(value)) for value in values)
    (folder / "Mo.snapcoeff").write_text(f"# comment\n\n1 {len(values)}\n{element}\n{lines}\n")
    (folder / "Mo.snapparam").write_text(f"# comment\n{parameters}\n")


def test_reads_files_of_lammps(tmp_path):
    values = np.random.default_rng(0).normal(size=31)
    write(tmp_path, values, "rcutfac 4.6\ntwojmax 6\nrmin0 0.1\nbzeroflag 0")
    model = read_snap(tmp_path, "Mo")
    assert (model.cutoff, model.bispectrum.twojmax, model.rfac0, model.rmin0) == (4.6, 6, 0.99363, 0.1)
    assert model.atomic_number == 42
    np.testing.assert_array_equal(model.coefficients.detach(), values)


@pytest.mark.parametrize(
    ("count", "parameters", "element", "said"),
    [
        (30, "", "Mo 0.5 1", "30 coefficients, expected 31"),
        (31, "bzeroflag 1", "Mo 0.5 1", "bzeroflag"),
        (31, "quadraticflag 1", "Mo 0.5 1", "quadraticflag"),
        (31, "chemflag 1", "Mo 0.5 1", "chemflag"),
        (31, "", "Ta 0.5 1", "not of Mo alone"),
    ],
)
def test_refuses_files_that_mean_something_else(tmp_path, count, parameters, element, said):
    write(tmp_path, np.ones(count), f"rcutfac 4.6\ntwojmax 6\n{parameters}", element)
    with pytest.raises(DataError, match=said):
        read_snap(tmp_path, "Mo")


def test_names_a_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"Mo\.quadratic\.snapparam is missing"):
        read_snap(tmp_path, "Mo", quadratic=True)
