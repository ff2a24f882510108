"""Phonons of a crystal from forces on displaced atoms, through phonopy (Togo, J. Phys. Soc. Jpn. 92, 012001 (2023)).

Frequencies are in THz (not angular); an imaginary one is given as negative. q is a Cartesian wave vector without 2 pi,
1/angstrom. The polar (non-analytic) correction is not made: the potentials here have no charges.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from scipy import constants as si

from replimat.errors import ReplimatError
from replimat.physics import band_paths
from replimat.physics.found import Found
from replimat.physics.relaxation import relaxed_crystal

IMAGINARY = -0.05  # THz: above this a negative frequency is the noise of forces and of a finite supercell, near q = 0
SMALL_Q = 0.002  # 1/angstrom: long waves; the dispersion bends by (pi q a)^2 / 24 < 1e-4 there
FIT_SHARE = 0.25  # of the frequency range, from below: where the density of states is taken as Debye's, as in phonopy
ROOM_TEMPERATURE = 300.0  # K
TEMPERATURES = tuple(range(0, 1001, 20))  # K
DIRECTIONS = 400  # of long waves, over the sphere
THZ_ANGSTROM = 100.0  # in m/s


@dataclass(frozen=True)
class Phonons:
    """Force constants of a crystal, ready to be evaluated. atoms: its cell (N atoms); phonopy: the package's object."""

    atoms: Atoms
    phonopy: object

    def at(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ascending frequencies, THz [Q, 3N], and polarisations, mode last [Q, 3N, 3N]; q: 1/angstrom [Q, 3]."""
        self.phonopy.run_qpoints(np.asarray(q) @ self.atoms.cell.array.T, with_eigenvectors=True)
        return self.phonopy.qpoints.frequencies, self.phonopy.qpoints.eigenvectors

    def group_velocities(self, q: np.ndarray) -> np.ndarray:
        """d omega / d k at q in 1/angstrom [Q, 3], m/s [Q, 3N, 3]."""
        self.phonopy.run_qpoints(np.asarray(q) @ self.atoms.cell.array.T, with_group_velocities=True)
        return self.phonopy.qpoints.group_velocities * THZ_ANGSTROM

    def dispersion(self, path: str | None = None, points: int = 51) -> dict:
        """Frequencies along lines between special points, `points` on each, as JSON can hold it.

        distances: 1/angstrom along the path [Q]; frequencies: THz [Q, 3N]; labels, label_at: of the special points, two
        names at one place where the path jumps.
        """
        distances, frequencies, labels, label_at = [], [], [], [0.0]
        for start, end, first, last in band_paths.legs(self.atoms, path):
            q = np.linspace(first, last, points) @ self.atoms.cell.reciprocal()
            distances += (label_at[-1] + np.linalg.norm(q - q[0], axis=1)).tolist()
            frequencies += self.at(q)[0].tolist()
            if not labels:
                labels.append(start)
            elif labels[-1] != start:
                labels[-1] += f"|{start}"
            labels.append(end)
            label_at.append(distances[-1])
        return {"distances": distances, "frequencies": frequencies, "labels": labels, "label_at": label_at}

    def mesh_frequencies(self, length: float = 100.0) -> tuple[np.ndarray, np.ndarray]:
        """Frequencies at irreducible points of a regular mesh through q = 0, THz [Q, 3N], and their weights, sum 1 [Q].

        length: angstrom; so many points along each reciprocal vector as it holds cells; one where not periodic.
        """
        self._run_mesh(length)
        weights = self.phonopy.mesh.weights
        return self.phonopy.mesh.frequencies, weights / weights.sum()

    def density_of_states(self, length: float = 100.0, points: int = 301) -> tuple[np.ndarray, np.ndarray]:
        """Frequencies in THz [K] and states per THz and cell [K], integral 3N; linear tetrahedra on the mesh."""
        frequencies, _ = self.mesh_frequencies(length)
        low, high = min(0.0, 1.02 * frequencies.min()), 1.02 * frequencies.max()
        self.phonopy.run_total_dos(freq_min=low, freq_max=high, freq_pitch=(high - low) / (points - 1))
        dos = self.phonopy.total_dos
        return np.array(dos.frequency_points), np.array(dos.dos)

    def thermal(self, temperatures: Sequence[float], length: float = 100.0) -> dict[str, np.ndarray]:
        """Harmonic free_energy (kJ/mol), entropy and heat_capacity at constant volume (J/mol/K), per mole of atoms [T].

        temperatures: K [T]. Modes that are imaginary are left out: ask `mesh_frequencies` whether there are any.
        """
        self._run_mesh(length)
        self.phonopy.run_thermal_properties(temperatures=list(temperatures), exclude_gamma_acoustic=True)
        found, atoms = self.phonopy.thermal_properties, len(self.atoms)
        names = ("free_energy", "entropy", "heat_capacity")
        return {name: np.array(getattr(found, name)) / atoms for name in names}

    def sound_velocities(self, direction: Sequence[float]) -> tuple[float, float]:
        """Longitudinal, and mean transverse, velocity of long waves along a Cartesian direction, m/s.

        Longitudinal is the acoustic mode whose atoms move most along the direction. NaN where the crystal is unstable.
        """
        u = np.asarray(direction, float) / np.linalg.norm(direction)
        frequencies, modes = self.at([SMALL_Q * u])
        acoustic = modes[0][:, :3].reshape(-1, 3, 3)  # [N, Cartesian, mode]
        along = (np.abs(np.einsum("d,ndm->nm", u, acoustic)) ** 2).sum(axis=0)  # [mode]
        speed = np.where(frequencies[0, :3] > 0, frequencies[0, :3], np.nan) / SMALL_Q * THZ_ANGSTROM
        longitudinal = int(np.argmax(along))
        return float(speed[longitudinal]), float(np.delete(speed, longitudinal).mean())

    def debye_temperature(self, length: float = 100.0) -> float:
        """From g(f) = a f^2 fitted to the lowest FIT_SHARE of the density of states (phonopy's way), K."""
        f, g = self.density_of_states(length)
        low = (f >= 0) & (f <= FIT_SHARE * f.max())
        a = (g[low] * f[low] ** 2).sum() / (f[low] ** 4).sum()
        return _kelvin((9 * len(self.atoms) / a) ** (1 / 3))

    def acoustic_debye_temperature(self) -> float:
        """From long waves alone, averaged over all directions: the T^3 law's, and that of the elastic constants, K.

        f_D = (3 n / 4 pi)^(1/3) v, 3 / v^3 = < sum over branches of 1 / v_s^3 >. NaN where the crystal is unstable.
        """
        frequencies = self.at(SMALL_Q * _sphere(DIRECTIONS))[0][:, :3]
        if frequencies.min() <= 0:
            return float("nan")
        speed = (1 / (frequencies / SMALL_Q) ** 3).mean() ** (-1 / 3)  # THz angstrom
        density = len(self.atoms) / self.atoms.get_volume()  # 1/angstrom^3
        return _kelvin(speed * (3 * density / (4 * np.pi)) ** (1 / 3))

    def _run_mesh(self, length: float):
        edges = 1 / np.linalg.norm(self.atoms.cell.reciprocal(), axis=1)
        numbers = np.where(self.atoms.pbc, np.maximum(1, np.rint(length / edges)), 1)
        self.phonopy.run_mesh(numbers.astype(int).tolist(), is_gamma_center=True)


def phonons_of(
    atoms: Atoms,
    calculator,
    supercell: np.ndarray | None = None,
    minimum_edge: float = 10.0,
    displacement: float = 0.01,
    shape: Atoms | None = None,
) -> Phonons:
    """Phonons of any crystal or sheet (pbc: which directions repeat) in its lowest state, by central differences.

    atoms: a primitive cell at rest; supercell: integer matrix, rows are its vectors in those of the cell [3, 3];
    without it the smallest multiple of `shape` (a cell of the same lattice; `atoms` if None) whose opposite faces are
    `minimum_edge` angstrom apart; displacement: angstrom. As many force calls as phonopy finds displacements: 1 for
    fcc, bcc and diamond, up to 6 for each atom without symmetry.
    """
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    matrix = supercell_matrix(atoms, minimum_edge, shape) if supercell is None else np.asarray(supercell)
    cell = PhonopyAtoms(
        symbols=atoms.get_chemical_symbols(),
        cell=atoms.cell.array,
        scaled_positions=atoms.get_scaled_positions(wrap=False),
        masses=atoms.get_masses(),
    )
    phonopy = Phonopy(cell, supercell_matrix=matrix.T, primitive_matrix="P")  # columns are its vectors there
    phonopy.generate_displacements(distance=displacement)
    phonopy.forces = np.array([_forces(one, atoms.pbc, calculator) for one in phonopy.supercells_with_displacements])
    phonopy.produce_force_constants()
    phonopy.symmetrize_force_constants(show_drift=False)
    return Phonons(atoms.copy(), phonopy)


def supercell_matrix(atoms: Atoms, minimum_edge: float, shape: Atoms | None = None) -> np.ndarray:
    """Vectors, in those of the cell of `atoms`, of the multiple of `shape` with faces `minimum_edge` apart [3, 3].

    Raises ValueError where `shape` is not made of whole cells.
    """
    base = (shape or atoms).cell
    exact = base.array @ np.linalg.inv(atoms.cell.array)
    matrix = np.rint(exact).astype(int)
    if np.abs(exact - matrix).max() > 1e-4:
        raise ValueError("the cell that shapes the supercell is not made of whole primitive cells.")
    heights = 1 / np.linalg.norm(base.reciprocal(), axis=1)
    # A box of just the length asked for must not grow by rounding noise.
    repeats = np.where(atoms.pbc, np.ceil(minimum_edge / heights - 1e-6), 1)
    return np.maximum(repeats, 1).astype(int)[:, None] * matrix


def relaxed_sheet(atoms: Atoms, calculator, fmax: float = 1e-4, max_steps: int = 200) -> Atoms:
    """A two-dimensional crystal (pbc: two directions) with atoms and the plane of its cell relaxed, symmetry kept.

    fmax: eV/angstrom, also of the cell's force. The stress is that of sheets stacked with the vacuum of the cell.
    Raises ReplimatError if it does not converge.
    """
    from ase.constraints import FixSymmetry
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    moving = atoms.copy()
    moving.pbc, moving.calc = True, calculator
    moving.set_constraint(FixSymmetry(moving))
    optimiser = BFGS(FrechetCellFilter(moving, mask=np.outer(atoms.pbc, atoms.pbc)), logfile=None)
    if not optimiser.run(fmax=fmax, steps=max_steps):
        raise ReplimatError(f"the sheet {atoms.symbols} did not relax in {max_steps} steps.")
    found = moving.copy()
    found.set_constraint()
    found.pbc = atoms.pbc
    return found


def phonons(
    calculator,
    crystal,
    minimum_edge: float = 10.0,
    displacement: float = 0.01,
    mesh_length: float = 100.0,
    path: str | None = None,
) -> Found:
    """Phonons of an elemental crystal at its relaxed lattice constant; values as in `report`.

    Force calls: about 10 on the primitive cell, then 1 (hcp: 2) on the supercell of conventional cells.
    """
    rest = relaxed_crystal(calculator, crystal)
    found = phonons_of(
        rest.primitive(),
        calculator,
        minimum_edge=minimum_edge,
        displacement=displacement,
        shape=rest.conventional(),
    )
    return report(found, path, mesh_length)


def report(found: Phonons, path: str | None = None, mesh_length: float = 100.0) -> Found:
    """Values and curves of a crystal or a sheet.

    phonon_max_frequency, phonon_min_frequency (THz, over path and mesh; negative is imaginary), heat_capacity_300K,
    entropy_300K (J/mol/K), free_energy_300K (kJ/mol), NaN if modes are imaginary; where periodic in all directions also
    debye_temperature (from the density of states), acoustic_debye_temperature (from long waves; K), and along [100]
    sound_velocity_longitudinal and sound_velocity_transverse (m/s).
    """
    dispersion = found.dispersion(path)
    both = [found.mesh_frequencies(mesh_length)[0].ravel(), np.ravel(dispersion["frequencies"])]
    low, high = float(min(map(np.min, both))), float(max(map(np.max, both)))
    thermal = found.thermal(TEMPERATURES, mesh_length)
    at_room = {name: float(curve[TEMPERATURES.index(ROOM_TEMPERATURE)]) for name, curve in thermal.items()}
    stable = low > IMAGINARY
    values = {"phonon_max_frequency": high, "phonon_min_frequency": low}
    values |= {f"{name}_300K": value if stable else float("nan") for name, value in at_room.items()}
    units = {"phonon_max_frequency": "THz", "phonon_min_frequency": "THz", "free_energy_300K": "kJ/mol"}
    units |= {"entropy_300K": "J/mol/K", "heat_capacity_300K": "J/mol/K"}
    if found.atoms.pbc.all():
        longitudinal, transverse = found.sound_velocities((1, 0, 0))
        values |= {"sound_velocity_longitudinal": longitudinal, "sound_velocity_transverse": transverse}
        values |= {"debye_temperature": found.debye_temperature(mesh_length) if stable else float("nan")}
        values |= {"acoustic_debye_temperature": found.acoustic_debye_temperature()}
        units |= {"sound_velocity_longitudinal": "m/s", "sound_velocity_transverse": "m/s"}
        units |= {"debye_temperature": "K", "acoustic_debye_temperature": "K"}
    frequency, density = found.density_of_states(mesh_length)
    curves = {"dispersion": dispersion, "dos": {"frequency": frequency.tolist(), "density": density.tolist()}}
    curves["thermal"] = {"temperature": list(TEMPERATURES)} | {name: c.tolist() for name, c in thermal.items()}
    curves["cell"] = found.atoms.cell.array.tolist()
    return Found(values, units, curves)


def _forces(supercell, pbc, calculator) -> np.ndarray:
    """Of a displaced supercell, eV/angstrom [A, 3]."""
    atoms = Atoms(supercell.symbols, cell=supercell.cell, scaled_positions=supercell.scaled_positions, pbc=pbc)
    atoms.calc = calculator
    return atoms.get_forces()


def _sphere(number: int) -> np.ndarray:
    """Directions spread evenly, on a Fibonacci spiral [number, 3]."""
    k = np.arange(number) + 0.5
    z, angle = 1 - 2 * k / number, np.pi * (1 + np.sqrt(5)) * k
    return np.stack([np.sqrt(1 - z**2) * np.cos(angle), np.sqrt(1 - z**2) * np.sin(angle), z], axis=1)


def _kelvin(frequency: float) -> float:
    """h f / k of a frequency in THz."""
    return float(frequency * si.tera * si.h / si.k)
