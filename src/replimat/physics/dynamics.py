"""Molecular dynamics on a potential: NVE, NVT and NPT runs by ASE, and what is read off them.

NVT: stochastic velocity rescaling (Bussi et al., J. Chem. Phys. 126, 014101 (2007)), which leaves the dynamics of
single atoms nearly as they are, or Langevin. NPT: Martyna, Tobias and Klein's barostat with Nose-Hoover chains
(J. Chem. Phys. 101, 4177 (1994)); the box keeps its shape. The centre of mass rests in all of them, so that the
temperature counts 3N - 3 degrees of freedom.
"""

import time
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units

from replimat.errors import ReplimatError
from replimat.physics.diffusion import diffusion
from replimat.physics.found import Found
from replimat.physics.radial_distribution import radial_distribution

ENSEMBLES = ("nve", "nvt", "langevin", "npt")
EXPLODED = 10.0  # times the temperature asked for: no fluctuation of a box with tens of atoms goes there
THERMOSTAT_FS = 100.0  # relaxation time of the thermostats; 1000 of the barostat: ASE's advice for steps of 1 to 2 fs
BAROSTAT_FS = 1000.0
REPORT_SECONDS = 60.0  # a run that takes longer says so this often
BLOCKS = 10  # of a run, for statistical errors: each should be longer than the slowest correlation
CURVE = 400  # points of a curve that are kept


@dataclass(frozen=True)
class Trajectory:
    """Samples of a run, F frames apart by `frame_ps`.

    positions: unwrapped, angstrom [F, N, 3]; cells: angstrom [F, 3, 3]; masses: u [N]; temperature: K [F];
    potential, total: eV of the whole box [F]; pressure: with its kinetic part, GPa [F], NaN without a stress.
    """

    frame_ps: float
    positions: np.ndarray
    cells: np.ndarray
    masses: np.ndarray
    temperature: np.ndarray
    potential: np.ndarray
    total: np.ndarray
    pressure: np.ndarray

    @property
    def volume(self) -> np.ndarray:
        """Of the box, cubic angstrom [F]."""
        return np.abs(np.linalg.det(self.cells))

    @property
    def times(self) -> np.ndarray:
        """From the first frame, ps [F]."""
        return np.arange(len(self.cells)) * self.frame_ps


def thermalised(atoms: Atoms, temperature: float, seed: int) -> Atoms:
    """A copy with Maxwell-Boltzmann velocities at `temperature` (K) and a resting centre of mass.

    Raises ValueError for fewer than two atoms, which have no temperature then.
    """
    if len(atoms) < 2:
        raise ValueError("molecular dynamics with a resting centre of mass needs at least two atoms.")
    started = atoms.copy()
    rng = np.random.default_rng(seed)
    masses = started.get_masses()[:, None]
    momenta = rng.standard_normal((len(started), 3)) * np.sqrt(masses * units.kB * temperature)
    started.set_momenta(momenta - masses * momenta.sum(axis=0) / masses.sum())
    return started


def run(
    atoms: Atoms,
    calculator,
    ensemble: str,
    temperature: float,
    picoseconds: float,
    timestep_fs: float = 2.0,
    every: int = 10,
    pressure: float = 0.0,
    seed: int = 0,
) -> tuple[Trajectory, Atoms]:
    """Moves `atoms` (with velocities) on for a time; returns samples, one each `every` steps, and the end.

    ensemble: one of ENSEMBLES; temperature: K, in nve only the scale of what counts as exploded; pressure: GPa, in
    npt. One force call per step. Raises ReplimatError if a number is not finite or the temperature passes EXPLODED
    times what was asked for, ValueError for an unknown ensemble.
    """
    moving = atoms.copy()
    moving.calc = calculator
    dynamics = _dynamics(moving, ensemble, temperature, timestep_fs, pressure, np.random.default_rng(seed))
    steps = round(picoseconds * 1000 / timestep_fs)
    samples = _Samples(moving, "stress" in calculator.implemented_properties)
    watch = _Watch(moving, ensemble, temperature, steps)
    dynamics.attach(watch, interval=1)
    dynamics.attach(samples, interval=every)
    with np.errstate(over="ignore", invalid="ignore"):  # `watch` tells an explosion in words
        dynamics.run(steps)
    last = moving.copy()
    last.set_constraint()
    return samples.trajectory(every * timestep_fs / 1000), last


def block_error(series: np.ndarray, blocks: int = BLOCKS) -> float:
    """Standard error of the mean of a correlated series: that of its block means (Flyvbjerg and Petersen, 1989)."""
    means = [part.mean() for part in np.array_split(series, blocks)]
    return float(np.std(means, ddof=1) / np.sqrt(blocks))


def drift(trajectory: Trajectory) -> float:
    """Slope of the total energy with time, meV/atom/ps."""
    slope = np.polyfit(trajectory.times, trajectory.total - trajectory.total[0], 1)[0]
    return float(1000 * slope / len(trajectory.masses))


def solid(
    calculator,
    crystal,
    temperature: float = 300.0,
    repeats: int = 3,
    equilibration_ps: float = 5.0,
    sampling_ps: float = 20.0,
    conservation_ps: float = 5.0,
    timestep_fs: float = 2.0,
    ensemble: str = "nvt",
    seed: int = 0,
) -> Found:
    """NVT of the crystal at its given lattice constant, then NVE from there: does the potential conserve energy?

    Values: md_temperature (K), md_pressure (GPa), md_energy (potential, eV/atom), each with `_error` (one standard
    error), md_energy_drift (meV/atom/ps). 15000 force calls as given, each of repeats^3 conventional cells.
    """
    atoms = thermalised(crystal.supercell(repeats), temperature, seed)
    settings = {"temperature": temperature, "timestep_fs": timestep_fs}
    _, state = run(atoms, calculator, ensemble, picoseconds=equilibration_ps, seed=seed + 1, **settings)
    found, state = run(state, calculator, ensemble, picoseconds=sampling_ps, seed=seed + 2, **settings)
    free, _ = run(state, calculator, "nve", picoseconds=conservation_ps, every=1, **settings)
    values, kinds = {}, {"md_temperature": "K", "md_pressure": "GPa", "md_energy": "eV/atom"}
    for name, series in zip(kinds, (found.temperature, found.pressure, found.potential / len(atoms)), strict=True):
        values |= {name: float(series.mean()), f"{name}_error": block_error(series)}
    values["md_energy_drift"] = drift(free)
    curves = _over_time(found) | {"nve": _over_time(free), "distribution": _g(found)}
    return Found(values, _with_errors(kinds) | {"md_energy_drift": "meV/atom/ps"}, curves)


def lattice_constant(
    calculator,
    crystal,
    temperature: float = 300.0,
    repeats: int = 3,
    equilibration_ps: float = 10.0,
    sampling_ps: float = 30.0,
    timestep_fs: float = 2.0,
    pressure: float = 0.0,
    seed: int = 0,
) -> Found:
    """Mean lattice constant at a temperature (K) and pressure (GPa): NPT, the box keeps its shape.

    Values: md_lattice_constant (angstrom) and its error. 20000 force calls as given, each of repeats^3 conventional
    cells.
    """
    ideal = crystal.supercell(repeats)
    settings = {"temperature": temperature, "timestep_fs": timestep_fs, "pressure": pressure}
    _, state = run(thermalised(ideal, temperature, seed), calculator, "npt", picoseconds=equilibration_ps, **settings)
    found, _ = run(state, calculator, "npt", picoseconds=sampling_ps, **settings)
    constants = crystal.a * np.cbrt(found.volume / ideal.get_volume())  # [F]
    values = {"md_lattice_constant": float(constants.mean()), "md_lattice_constant_error": block_error(constants)}
    curves = _over_time(found) | {"lattice_constant": _thin(constants)}
    return Found(values, _with_errors({"md_lattice_constant": "angstrom"}), curves)


def liquid(
    calculator,
    crystal,
    temperature: float,
    melting_at: float,
    volume: float = 1.0,
    repeats: int = 3,
    melting_ps: float = 5.0,
    equilibration_ps: float = 10.0,
    sampling_ps: float = 50.0,
    timestep_fs: float = 1.0,
    seed: int = 0,
) -> Found:
    """The liquid: a crystal melted at `melting_at` (K), then held at `temperature` (K) at constant volume.

    volume: of the liquid over that of the crystal as given. Values: rdf_first_peak (angstrom), coordination_number,
    diffusion_coefficient (cm^2/s) and its error. 65000 force calls as given, each of repeats^3 conventional cells.
    """
    atoms = crystal.supercell(repeats)
    atoms.set_cell(atoms.cell * volume ** (1 / 3), scale_atoms=True)
    hot = thermalised(atoms, melting_at, seed)
    settings = {"timestep_fs": timestep_fs, "ensemble": "nvt"}
    _, state = run(hot, calculator, temperature=melting_at, picoseconds=melting_ps, seed=seed + 1, **settings)
    # Velocities scaled at once: the thermostat needs its own time for it, and a melt forgets in less than a ps.
    state.set_momenta(state.get_momenta() * np.sqrt(temperature / melting_at))
    _, state = run(state, calculator, temperature=temperature, picoseconds=equilibration_ps, seed=seed + 2, **settings)
    found, _ = run(state, calculator, temperature=temperature, picoseconds=sampling_ps, seed=seed + 3, **settings)
    g = radial_distribution(found.positions, found.cells, _reach(found))
    peak, coordination = g.first_shell()
    moved = diffusion(found.positions, found.frame_ps, found.masses)
    values = {
        "rdf_first_peak": peak,
        "coordination_number": coordination,
        "diffusion_coefficient": moved.coefficient,
        "diffusion_coefficient_error": moved.error,
    }
    kinds = {"rdf_first_peak": "angstrom", "coordination_number": "1"}
    curves = _over_time(found) | {"distribution": {"r": g.r.tolist(), "g": g.g.tolist()}}
    curves["displacement"] = {"lag_ps": _thin(moved.lags), "msd": _thin(moved.msd)}
    return Found(values, kinds | _with_errors({"diffusion_coefficient": "cm^2/s"}), curves)


class _Samples:
    """Called by a run: what a Trajectory holds, frame by frame."""

    def __init__(self, atoms: Atoms, stress: bool):
        self.atoms, self.stress, self.rows = atoms, stress, []

    def __call__(self):
        atoms = self.atoms
        potential, kinetic = atoms.get_potential_energy(), atoms.get_kinetic_energy()
        pressure = np.nan
        if self.stress:
            pressure = -atoms.get_stress(include_ideal_gas=True)[:3].mean() / units.GPa
        scalars = (_temperature(atoms), potential, potential + kinetic, pressure)
        self.rows.append((atoms.get_positions(), atoms.cell.array.copy(), *scalars))

    def trajectory(self, frame_ps: float) -> Trajectory:
        positions, cells, *scalars = (np.array(column) for column in zip(*self.rows, strict=True))
        return Trajectory(frame_ps, positions, cells, self.atoms.get_masses(), *scalars)


class _Watch:
    """Called after every step: ends a run that exploded, and says now and then how far a long one is."""

    def __init__(self, atoms: Atoms, ensemble: str, temperature: float, steps: int):
        self.atoms, self.ensemble, self.temperature, self.steps = atoms, ensemble, temperature, steps
        self.step, self.said = 0, time.monotonic()

    def __call__(self):
        now = _temperature(self.atoms)
        # `not (a < b)` is true for NaN as well.
        if not now < EXPLODED * self.temperature or not np.isfinite(self.atoms.positions).all():
            raise ReplimatError(
                f"the {self.ensemble} run at {self.temperature:g} K exploded at step {self.step} of {self.steps}: "
                f"temperature {now:.3g} K; the potential has no barrier where the atoms went, or the step is too long."
            )
        if time.monotonic() - self.said > REPORT_SECONDS:
            self.said = time.monotonic()
            print(
                f"{self.ensemble} at {self.temperature:g} K: step {self.step} of {self.steps}, {now:.0f} K", flush=True
            )
        self.step += 1


def _dynamics(atoms: Atoms, ensemble: str, temperature: float, timestep_fs: float, pressure: float, rng):
    from ase.constraints import FixCom
    from ase.md.bussi import Bussi
    from ase.md.langevin import Langevin
    from ase.md.nose_hoover_chain import IsotropicMTKNPT
    from ase.md.verlet import VelocityVerlet

    if ensemble not in ENSEMBLES:
        raise ValueError(f"unknown ensemble {ensemble}: one of {', '.join(ENSEMBLES)}.")
    step, tau = timestep_fs * units.fs, THERMOSTAT_FS * units.fs
    if ensemble == "nve":
        return VelocityVerlet(atoms, step)
    if ensemble == "npt":
        # ASE's thermostat aims at 3N degrees of freedom; with a resting centre of mass there are 3N - 3.
        aim = temperature * (len(atoms) - 1) / len(atoms)
        return IsotropicMTKNPT(atoms, step, aim, pressure * units.GPa, tdamp=tau, pdamp=BAROSTAT_FS * units.fs)
    atoms.set_constraint(FixCom())
    if ensemble == "langevin":
        return Langevin(atoms, step, temperature_K=temperature, friction=1 / tau, fixcm=False, rng=rng)
    return Bussi(atoms, step, temperature, taut=tau, rng=rng)


def _temperature(atoms: Atoms) -> float:
    """With a resting centre of mass, K."""
    return 2 * atoms.get_kinetic_energy() / ((3 * len(atoms) - 3) * units.kB)


def _reach(trajectory: Trajectory) -> float:
    """Half the least distance between opposite faces of the box, angstrom: nobody is counted with its own image."""
    return float(0.5 / np.linalg.norm(np.linalg.inv(trajectory.cells), axis=1).max())


def _g(trajectory: Trajectory) -> dict:
    found = radial_distribution(trajectory.positions, trajectory.cells, _reach(trajectory))
    return {"r": found.r.tolist(), "g": found.g.tolist()}


def _over_time(trajectory: Trajectory) -> dict:
    return {
        "time_ps": _thin(trajectory.times),
        "temperature": _thin(trajectory.temperature),
        "energy_per_atom": _thin(trajectory.total / len(trajectory.masses)),
        "pressure": _thin(trajectory.pressure) if np.isfinite(trajectory.pressure).all() else [],
    }


def _thin(series: np.ndarray) -> list[float]:
    return series[:: -(-len(series) // CURVE)].tolist()


def _with_errors(kinds: dict[str, str]) -> dict[str, str]:
    return kinds | {f"{name}_error": unit for name, unit in kinds.items()}
