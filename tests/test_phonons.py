"""Phonons against what can be written down: springs between neighbours, sums over modes, elastic constants."""

from itertools import product

import numpy as np
import pytest
from ase import Atoms
from scipy import constants as si

from replimat.errors import ReplimatError
from replimat.physics.crystals import Crystal
from replimat.physics.phonons import Phonons, phonons, phonons_of, relaxed_sheet, report, supercell_matrix
from springs import Springs, harmonic, morse

A, K = 3.6, 2.0  # angstrom, eV/angstrom^2
NEAR = A / np.sqrt(2)
CU = Crystal("Cu", "fcc", A)
CUTOFF = 0.85 * A  # between the first shell and the second
R = si.R


def from_springs(first: np.ndarray, q: np.ndarray, mass: float, k: float) -> np.ndarray:
    """Frequencies (THz) of one atom per cell tied to neighbours `first` [n, 3] by relaxed springs, at q [Q, 3]."""
    n = first / np.linalg.norm(first, axis=1)[:, None]
    weight = 1 - np.cos(2 * np.pi * q @ first.T)  # [Q, n]
    matrix = k / mass * np.einsum("qn,na,nb->qab", weight, n, n)
    square = np.maximum(np.linalg.eigvalsh(matrix), 0)  # eV / A^2 / u
    return np.sqrt(square * si.eV / si.angstrom**2 / si.u) / (2 * np.pi * si.tera)


@pytest.fixture(scope="module")
def copper() -> Phonons:
    return phonons_of(CU.primitive(), Springs(harmonic(K, NEAR), CUTOFF), shape=CU.conventional())


@pytest.fixture(scope="module")
def fcc_neighbours() -> np.ndarray:
    steps = np.array(list(product((-1, 0, 1), repeat=3)))
    return A / 2 * steps[(steps**2).sum(axis=1) == 2]  # [12, 3]


def test_fcc_springs_have_the_textbook_dispersion(copper, fcc_neighbours):
    q = np.random.default_rng(0).uniform(-0.3, 0.3, (50, 3))
    expected = from_springs(fcc_neighbours, q, copper.atoms.get_masses()[0], K)
    assert copper.at(q)[0] == pytest.approx(expected, rel=1e-3)  # the supercell is finite, the springs are short
    assert len(copper.phonopy.supercells_with_displacements) == 1


def test_a_rigid_shift_costs_nothing(copper):
    assert np.abs(copper.at([[0, 0, 0]])[0]).max() < 1e-4


def test_group_velocity_is_the_slope_of_the_frequency(copper):
    q, step = np.array([0.05, 0.02, 0.01]), 1e-5
    slope = [
        (copper.at([q + step * e])[0] - copper.at([q - step * e])[0])[0] / (2 * step) * 100 for e in np.eye(3)
    ]  # THz angstrom -> m/s  [3, modes]
    assert copper.group_velocities([q])[0] == pytest.approx(np.transpose(slope), rel=1e-4, abs=1)


def elastic_constants(crystal: Crystal, calculator, strain: float = 1e-5) -> tuple[float, float]:
    """C11 and C44 (eV/A^3) of a cubic crystal of one atom per cell, from differences of stress."""

    def stress(deformation):
        atoms = crystal.primitive()
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + deformation), scale_atoms=True)
        atoms.calc = calculator
        return atoms.get_stress()

    stretch, shear = np.zeros((3, 3)), np.zeros((3, 3))
    stretch[0, 0] = strain
    shear[1, 2] = shear[2, 1] = strain / 2
    of = [(stress(e) - stress(-e)) / (2 * strain) for e in (stretch, shear)]
    return of[0][0], of[1][3]


@pytest.mark.parametrize("pair", [harmonic(K, NEAR), morse(0.3, 1.4, NEAR)])
def test_sound_is_as_fast_as_the_elastic_constants_say(pair):
    atoms = CU.primitive()
    found = phonons_of(atoms, Springs(pair, CUTOFF), shape=CU.conventional())
    density = atoms.get_masses().sum() * si.u / (atoms.get_volume() * si.angstrom**3)
    c11, c44 = np.array(elastic_constants(CU, Springs(pair, CUTOFF))) * si.eV / si.angstrom**3
    longitudinal, transverse = found.sound_velocities((1, 0, 0))
    assert (longitudinal, transverse) == pytest.approx((np.sqrt(c11 / density), np.sqrt(c44 / density)), rel=1e-3)
    group = np.abs(found.group_velocities([[0.002, 0, 0]])[0][:, 0])
    assert np.sort(group) == pytest.approx([transverse, transverse, longitudinal], rel=1e-3)


def test_a_chain_rings_as_a_sine():
    a, k, mass = 2.5, 3.0, 12.011
    chain = Atoms("C", cell=[a, 15, 15], pbc=(True, False, False), masses=[mass])
    found = phonons_of(chain, Springs(harmonic(k, a), 1.5 * a), supercell=np.diag([6, 1, 1]))
    x = np.linspace(0, 0.5 / a, 7)
    frequencies = found.at(np.outer(x, [1, 0, 0]))[0]
    expected = np.sqrt(k / mass * si.eV / si.u) / si.angstrom / np.pi / si.tera * np.abs(np.sin(np.pi * x * a))
    assert frequencies[:, -1] == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert np.abs(frequencies[:, :2]).max() < 0.05  # nothing holds it sideways but the third order of the springs


def test_a_triangular_sheet_and_its_path():
    a, k = 2.6, 1.5
    sheet = Atoms("Cu", cell=[[0.97 * a, 0, 0], [-0.485 * a, 0.84004 * a, 0], [0, 0, 12]], pbc=(True, True, False))
    sheet.set_cell(sheet.cell.array * [1, 0.97 * a * np.sqrt(3) / 2 / (0.84004 * a), 1])
    sheet = relaxed_sheet(sheet, Springs(harmonic(k, a), 1.4 * a))
    assert sheet.cell.lengths() == pytest.approx([a, a, 12], abs=1e-4)
    found = phonons_of(sheet, Springs(harmonic(k, a), 1.4 * a))
    turns = np.arange(6) * np.pi / 3
    hexagon = a * np.stack([np.cos(turns), np.sin(turns), 0 * turns], axis=1)
    q = np.random.default_rng(1).uniform(-0.2, 0.2, (20, 3)) * [1, 1, 0]
    expected = from_springs(hexagon, q, sheet.get_masses()[0], k)
    assert found.at(q)[0][:, 1:] == pytest.approx(expected[:, 1:], rel=2e-3, abs=2e-3)
    values = report(found, mesh_length=60.0)
    assert values.curves["dispersion"]["labels"] == ["G", "M", "K", "G"]
    assert "debye_temperature" not in values.values


def test_heat_free_energy_and_entropy_are_sums_over_modes(copper):
    temperatures = np.array([0.0, 50.0, 300.0, 20000.0])
    found = copper.thermal(temperatures, 40.0)
    frequencies, weights = copper.mesh_frequencies(40.0)
    quantum = si.h * np.where(frequencies > 0.01, frequencies, np.nan) * si.tera  # without the three of q = 0
    zero = np.nansum(weights[:, None] * quantum / 2) * si.N_A / 1000
    for at, t in enumerate(temperatures):
        x = quantum / (si.k * t) if t else np.full_like(quantum, np.inf)
        heat = np.nansum(weights[:, None] * np.where(x < 500, (x / 2 / np.sinh(np.minimum(x, 500) / 2)) ** 2, 0)) * R
        free = zero + (np.nansum(weights[:, None] * np.log1p(-np.exp(-x))) * R * t / 1000 if t else 0)
        entropy = 0.0
        if t:
            occupied = 1 / np.expm1(x)
            terms = (1 + occupied) * np.log1p(occupied) - occupied * np.log(occupied, where=occupied > 0, out=x * 0)
            entropy = np.nansum(weights[:, None] * terms) * R
        assert found["heat_capacity"][at] == pytest.approx(heat, rel=1e-5, abs=1e-9)
        assert found["free_energy"][at] == pytest.approx(free, rel=1e-5)
        assert found["entropy"][at] == pytest.approx(entropy, rel=1e-5, abs=1e-9)
    assert found["heat_capacity"][[0, -1]] == pytest.approx([0, 3 * R], rel=1e-3, abs=1e-9)


def test_cold_crystals_follow_debye(copper):
    theta = copper.acoustic_debye_temperature()
    t = theta / np.array([35.0, 28.0, 22.0])
    share = copper.thermal(t, 150.0)["heat_capacity"] / (12 * np.pi**4 / 5 * R * (t / theta) ** 3)
    limit = np.polyfit((t / theta) ** 2, share, 2)[-1]  # the bend of the bands goes as T^2, then T^4
    assert share[0] == pytest.approx(1, abs=0.07)
    assert limit == pytest.approx(1, abs=0.02)  # the mesh: 0.002 at the lowest, five times that in the limit
    assert copper.debye_temperature() == pytest.approx(theta, rel=0.1)  # the bands bend below a quarter already


def test_long_waves_of_an_isotropic_average_by_hand(copper, fcc_neighbours):
    grid = np.random.default_rng(2).normal(size=(4000, 3))
    directions = grid / np.linalg.norm(grid, axis=1)[:, None]
    speed = from_springs(fcc_neighbours, 1e-3 * directions, copper.atoms.get_masses()[0], K) / 1e-3
    mean = (speed**-3.0).mean() ** (-1 / 3) * 100  # m/s
    density = 4 / A**3 / si.angstrom**3
    theta = si.hbar / si.k * (6 * np.pi**2 * density) ** (1 / 3) * mean
    assert copper.acoustic_debye_temperature() == pytest.approx(theta, rel=5e-3)


@pytest.mark.parametrize(
    "crystal, shells, labels",
    [
        (CU, 1.1, ["G", "X", "U|K", "G", "L"]),
        (Crystal("Mo", "bcc", 3.15), 1.3, ["G", "H", "P", "G", "N"]),
        (Crystal("Si", "diamond", 5.43), 1.8, ["G", "X", "U|K", "G", "L"]),
        (Crystal("Mg", "hcp", 3.2, 5.2256), 1.2, ["G", "M", "K", "G", "A", "L", "H", "A"]),
    ],
)
def test_every_lattice_has_all_its_modes(crystal, shells, labels):
    def pair(r):  # each shell at rest where it is, softer with distance
        d = {round(x, 3): x for x in ideal}
        rest = np.array(list(d.values()))[np.abs(r[:, None] - np.array(list(d.values()))).argmin(axis=1)]
        k = 2.0 * (rest.min() / rest) ** 4
        return 0.5 * k * (r - rest) ** 2, k * (r - rest)

    whole = crystal.conventional().repeat(3).get_all_distances(mic=True)[0]
    nearest = np.sort(whole)[1]
    ideal = np.unique(whole[(whole > 0.1) & (whole < shells * nearest)].round(6))
    found = phonons(Springs(pair, shells * nearest), crystal, minimum_edge=8.0, mesh_length=50.0)
    atoms = len(crystal.primitive())
    dos = found.curves["dos"]
    assert np.trapezoid(dos["density"], dos["frequency"]) == pytest.approx(3 * atoms, rel=0.01)
    assert found.curves["dispersion"]["labels"] == labels
    assert np.shape(found.curves["dispersion"]["frequencies"])[1] == 3 * atoms
    assert np.diff(found.curves["dispersion"]["distances"]).min() >= 0
    assert abs(found.values["phonon_min_frequency"]) < 0.01
    assert 0 < found.values["heat_capacity_300K"] < 3 * R
    assert set(found.values) == set(found.units)
    assert found.curves["cell"] == pytest.approx(crystal.primitive().cell.array, abs=1e-3)


def test_an_unstable_crystal_says_so():
    pushed = phonons_of(CU.primitive(), Springs(harmonic(K, 1.3 * NEAR), CUTOFF), shape=CU.conventional())
    values = report(pushed, mesh_length=30.0).values
    assert values["phonon_min_frequency"] < -0.5
    assert np.isnan([values[name] for name in ("heat_capacity_300K", "entropy_300K", "debye_temperature")]).all()


def test_supercells_are_as_wide_as_asked():
    matrix = supercell_matrix(CU.primitive(), 10.0, CU.conventional())
    assert matrix @ CU.primitive().cell.array == pytest.approx(3 * A * np.eye(3), abs=1e-9)
    assert np.linalg.det(matrix) == pytest.approx(108)
    exact = supercell_matrix(CU.conventional(), 2 * A)
    assert exact == pytest.approx(2 * np.eye(3))
    with pytest.raises(ValueError, match="whole primitive cells"):
        supercell_matrix(CU.primitive(), 10.0, Crystal("Cu", "fcc", 1.1 * A).conventional())


def test_a_point_that_is_not_there(copper):
    with pytest.raises(ValueError, match="has no points"):
        copper.dispersion("GH")


@pytest.mark.filterwarnings("ignore:FixSymmetry adjust_cell")
def test_a_sheet_without_rest_is_refused():
    sheet = Atoms("Cu", cell=[2.5, 2.5, 12], pbc=(True, True, False))
    with pytest.raises(ReplimatError, match="did not relax"):
        relaxed_sheet(sheet, Springs(lambda r: (-r, -np.ones_like(r)), 3.0), max_steps=5)
