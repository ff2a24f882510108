"""Molecular dynamics and its analysis against statistical mechanics, and against liquid argon."""

import numpy as np
import pytest
from ase import units
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from replimat.errors import ReplimatError
from replimat.physics import dynamics
from replimat.physics.crystals import Crystal
from replimat.physics.diffusion import diffusion, mean_squared_displacement
from replimat.physics.radial_distribution import radial_distribution
from springs import Springs, harmonic, morse

A = 3.6
NEAR = A / np.sqrt(2)
CU = Crystal("Cu", "fcc", A)
CUTOFF = 0.85 * A  # between the first shell and the second
SOFT = morse(0.35, 1.4, NEAR)


def copper(pair=None) -> Springs:
    return Springs(pair or harmonic(2.0, NEAR), CUTOFF)


class LennardJones(Calculator):
    """All pairs of a cubic box, cut and shifted at half of it."""

    implemented_properties = ("energy", "free_energy", "forces", "stress")

    def __init__(self, epsilon: float, sigma: float):
        super().__init__()
        self.epsilon, self.sigma, self.calls = epsilon, sigma, 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.calls += 1
        x, edge = self.atoms.positions, self.atoms.cell.array[0, 0]
        i, j = np.triu_indices(len(x), 1)
        vec = x[j] - x[i]
        vec -= edge * np.rint(vec / edge)
        square = (vec**2).sum(axis=1)
        near = square < edge**2 / 4
        i, j, vec, square = i[near], j[near], vec[near], square[near]
        six, cut = (self.sigma**2 / square) ** 3, (2 * self.sigma / edge) ** 6
        energy = 4 * self.epsilon * (six * six - six - cut * cut + cut).sum()
        push = (24 * self.epsilon * (2 * six * six - six) / square)[:, None] * vec  # on j
        forces = np.stack([np.bincount(j, p, len(x)) - np.bincount(i, p, len(x)) for p in push.T], axis=1)
        stress = full_3x3_to_voigt_6_stress(-push.T @ vec / self.atoms.get_volume())
        self.results = {"energy": energy, "free_energy": energy, "forces": forces, "stress": stress}


class TestRuns:
    def start(self, temperature=300.0, repeats=2):
        return dynamics.thermalised(CU.supercell(repeats), temperature, seed=1)

    def test_velocities_are_those_of_the_temperature(self):
        atoms = self.start(300.0, 6)
        assert np.abs(atoms.get_momenta().sum(axis=0)).max() < 1e-10
        velocity = atoms.get_momenta() / np.sqrt(atoms.get_masses()[:, None] * units.kB * 300)
        assert velocity.std() == pytest.approx(1, abs=0.04)  # 2592 numbers: 3 standard errors
        assert (velocity**4).mean() == pytest.approx(3, abs=0.6)
        with pytest.raises(ValueError, match="at least two atoms"):
            dynamics.thermalised(CU.primitive(), 300.0, seed=0)

    @pytest.mark.parametrize("ensemble", ["nvt", "langevin"])
    def test_kinetic_energy_has_its_mean_and_its_variance(self, ensemble):
        # Scaled velocities keep the phases of modes, and equal springs never mix them: nvt needs some anharmonicity.
        springs = {"nvt": copper(SOFT), "langevin": copper()}[ensemble]
        settings = {"temperature": 600.0, "timestep_fs": 4.0, "seed": 3}
        _, state = dynamics.run(self.start(600.0), springs, ensemble, picoseconds=1.0, **settings)
        found, last = dynamics.run(state, springs, ensemble, picoseconds=14.0, every=5, **settings)
        assert found.temperature.mean() == pytest.approx(600, abs=24)  # 15% at once, some 60 independent times
        expected = 2 / (3 * 32 - 3)  # of a chi^2 with 3N - 3 degrees of freedom
        assert found.temperature.var() / 600**2 == pytest.approx(expected, rel=0.35)
        if ensemble == "langevin":  # as many degrees of freedom swing in the springs: their energy has the same mean
            assert found.potential.mean() == pytest.approx(93 / 2 * units.kB * 600, rel=0.1)
        centres = found.positions.mean(axis=1)
        assert np.abs(centres - centres[0]).max() < 1e-8
        assert not last.constraints

    def test_few_atoms_in_npt_have_their_temperature(self):
        """3 N - 3 degrees of freedom: counted as 3 N, 8 atoms would be 14% too hot."""
        atoms = dynamics.thermalised(CU.supercell((2, 1, 1)), 300.0, 1)
        found, _ = dynamics.run(atoms, copper(SOFT), "npt", 300.0, 12.0, timestep_fs=4.0)
        assert found.temperature[50:].mean() == pytest.approx(300, rel=0.07)

    def test_energy_is_conserved_to_second_order_in_the_step(self):
        def wander(step):
            found, _ = dynamics.run(self.start(), copper(), "nve", 300.0, 1.2, timestep_fs=step, every=1)
            return np.std(found.total)

        assert wander(6.0) / wander(3.0) == pytest.approx(4, rel=0.15)

    def test_npt_meets_nvt(self):
        """The box that NPT chooses has the pressure asked for in NVT, and is larger than the cold one."""
        found = dynamics.lattice_constant(
            copper(SOFT), CU, 600.0, repeats=2, equilibration_ps=3.0, sampling_ps=10.0, timestep_fs=4.0
        )
        hot, error = found.values["md_lattice_constant"], found.values["md_lattice_constant_error"]
        assert A + 0.005 < hot < A + 0.1
        assert 0 < error < 0.005
        atoms = dynamics.thermalised(Crystal("Cu", "fcc", hot).supercell(2), 600.0, 5)
        held, _ = dynamics.run(atoms, copper(SOFT), "nvt", 600.0, 10.0, timestep_fs=4.0)
        cold, _ = dynamics.run(self.start(600.0), copper(SOFT), "nvt", 600.0, 3.0, timestep_fs=4.0)
        assert abs(held.pressure[50:].mean()) < 0.25
        assert cold.pressure[50:].mean() > 1.0

    def test_pressure_of_a_hot_gas(self):
        """Without forces p V = N k T, less the three degrees of freedom of the centre of mass."""
        found, _ = dynamics.run(self.start(1000.0), copper(lambda r: (0 * r, 0 * r)), "nvt", 1000.0, 0.2)
        ideal = 31 * units.kB * found.temperature / CU.supercell(2).get_volume() / units.GPa
        assert found.pressure == pytest.approx(ideal, rel=1e-10)

    def test_one_call_per_step(self):
        for ensemble in dynamics.ENSEMBLES:
            calculator = copper()
            dynamics.run(self.start(), calculator, ensemble, 300.0, 0.1, timestep_fs=2.0)
            assert calculator.calls <= 52

    def test_the_seed_decides(self):
        first, again, other = (
            dynamics.run(self.start(), copper(), "nvt", 300.0, 0.1, seed=seed)[0].positions for seed in (1, 1, 2)
        )
        assert np.array_equal(first, again)
        assert not np.allclose(first, other)

    @pytest.mark.parametrize("pair", [harmonic(-60.0, NEAR), lambda r: (np.nan * r, np.nan * r)])
    def test_an_explosion_is_told_in_words(self, pair):
        for ensemble in dynamics.ENSEMBLES:
            with pytest.raises(ReplimatError, match=f"the {ensemble} run at 300 K exploded"):
                dynamics.run(self.start(), copper(pair), ensemble, 300.0, 2.0)

    def test_an_unknown_ensemble(self):
        with pytest.raises(ValueError, match="unknown ensemble"):
            dynamics.run(self.start(), copper(), "nph", 300.0, 1.0)

    def test_a_solid_without_stress_has_no_pressure(self):
        calculator = copper()
        calculator.implemented_properties = ("energy", "forces")
        found = dynamics.solid(calculator, CU, repeats=2, equilibration_ps=0.2, sampling_ps=0.5, conservation_ps=0.3)
        assert np.isnan(found.values["md_pressure"])
        assert set(found.values) == set(found.units)
        assert abs(found.values["md_energy_drift"]) < 0.5
        assert found.values["md_temperature"] == pytest.approx(250, abs=100)


def test_block_errors_of_a_correlated_series():
    noise = np.random.default_rng(0).normal(size=200_000)
    series = np.convolve(noise, np.ones(20) / 20, "valid")  # a mean of means: the error of the mean is that of noise
    assert dynamics.block_error(noise, 50) == pytest.approx(1 / np.sqrt(200_000), rel=0.3)
    assert dynamics.block_error(series, 50) == pytest.approx(1 / np.sqrt(200_000), rel=0.3)


class TestRadialDistribution:
    def test_an_ideal_gas_has_none(self):
        cell = np.diag([9.0, 10.0, 11.0]) + 0.3
        x = np.random.default_rng(0).uniform(size=(20, 100, 3)) @ cell
        found = radial_distribution(x, np.broadcast_to(cell, (20, 3, 3)), 6.0, bin_width=0.2)  # beyond half the box
        assert found.g[10:] == pytest.approx(np.full(20, 0.99), abs=0.05)  # N - 1 partners, and the counting noise
        assert found.g[10:].mean() == pytest.approx(0.99, abs=0.01)

    def test_shells_of_fcc(self):
        atoms = CU.supercell(2)
        found = radial_distribution(atoms.positions[None] + 7.0, atoms.cell.array[None], 1.3 * A)
        for radius, within in ((0.8, 12), (1.1, 12 + 6), (1.27, 12 + 6 + 24)):
            assert found.neighbours_within[np.searchsorted(found.r, radius * A)] == within
        peak, coordination = found.first_shell()
        assert peak == pytest.approx(NEAR, abs=0.02)
        assert coordination == 12

    def test_bcc_has_eight_then_six(self):
        atoms = Crystal("Mo", "bcc", 3.15).supercell(3)
        x = atoms.positions + np.random.default_rng(0).normal(0, 0.03, (40, len(atoms), 3))
        found = radial_distribution(x, np.broadcast_to(atoms.cell.array, (40, 3, 3)), 4.0)
        peak, coordination = found.first_shell()
        assert peak == pytest.approx(3.15 * np.sqrt(3) / 2, abs=0.02)
        assert coordination == pytest.approx(8, abs=0.05)

    def test_no_shell(self):
        atoms = CU.supercell(2)
        with pytest.raises(ReplimatError, match="no peak"):
            radial_distribution(atoms.positions[None], atoms.cell.array[None], 0.5 * A).first_shell()
        with pytest.raises(ValueError, match="two bins"):
            radial_distribution(atoms.positions[None], atoms.cell.array[None], 0.02)


class TestDiffusion:
    def walk(self, coefficient: float, frames=3000, atoms=60, frame_ps=0.1, seed=0):
        """Brownian atoms: each coordinate steps by sqrt(2 D t). coefficient: angstrom^2/ps."""
        steps = np.random.default_rng(seed).normal(0, np.sqrt(2 * coefficient * frame_ps), (frames, atoms, 3))
        return np.cumsum(steps, axis=0)

    def test_displacements_by_hand(self):
        x = self.walk(0.3, frames=23, atoms=4)
        direct = [((x[t:] - x[: 23 - t]) ** 2).sum(axis=2).mean() for t in range(23)]
        assert mean_squared_displacement(x) == pytest.approx(np.array(direct), abs=1e-10)

    def test_a_random_walk_has_its_coefficient(self):
        found = diffusion(self.walk(0.5), 0.1)
        assert found.coefficient == pytest.approx(0.5e-4 * 59 / 60, abs=3 * found.error)  # the centre takes its part
        assert 0.002 < found.error / found.coefficient < 0.05

    def test_the_error_is_honest(self):
        found = [diffusion(self.walk(0.5, 1000, 20, seed=seed), 0.1) for seed in range(12)]
        spread = np.std([one.coefficient for one in found], ddof=1)
        assert np.mean([one.error for one in found]) == pytest.approx(spread, rel=0.6)

    def test_wind_does_not_count(self):
        x, masses = self.walk(0.5), np.linspace(1, 2, 60)
        wind = 0.2 * np.arange(len(x))[:, None, None]
        still, blown = diffusion(x, 0.1, masses), diffusion(x + wind, 0.1, masses)
        assert blown.coefficient == pytest.approx(still.coefficient, rel=1e-6)

    def test_too_short(self):
        with pytest.raises(ValueError, match="too few"):
            diffusion(self.walk(0.5, frames=15), 0.1)


def test_liquid_argon():
    """Rahman, Phys. Rev. 136, A405 (1964): 94.4 K, 1.374 g/cm^3: D = 2.43e-5 cm^2/s, first peak at 3.7 angstrom.

    108 atoms instead of 864: hydrodynamics alone takes some 15% from D in so small a box (Yeh and Hummer, 2004).
    """
    a = float(np.cbrt(4 * 39.948 / 0.602214 / 1.374))
    argon = LennardJones(120.0 * units.kB, 3.4)
    found = dynamics.liquid(
        argon,
        Crystal("Ar", "fcc", a),
        temperature=94.4,
        melting_at=250.0,
        melting_ps=5.0,
        equilibration_ps=5.0,
        sampling_ps=20.0,
        timestep_fs=10.0,
    )
    assert found.values["rdf_first_peak"] == pytest.approx(3.7, abs=0.07)
    assert found.values["coordination_number"] == pytest.approx(12.5, abs=1.0)
    error = found.values["diffusion_coefficient_error"]
    assert found.values["diffusion_coefficient"] == pytest.approx(2.1e-5, abs=3 * error)
    assert 0.02e-5 < error < 0.4e-5  # 20 ps of 108 atoms
    assert found.units["diffusion_coefficient"] == "cm^2/s"
    assert argon.calls < 3010
