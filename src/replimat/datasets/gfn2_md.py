"""Energies and forces along a molecular-dynamics trajectory, computed with GFN2-xTB.

Method: C. Bannwarth, S. Ehlert, S. Grimme, J. Chem. Theory Comput. 15, 1652 (2019), doi:10.1021/acs.jctc.8b01176.
The start geometry is shaken a little (so that it leaves a symmetric saddle point, as the regular C20 cage is one),
relaxed, and heated; Langevin dynamics samples the canonical ensemble. All 3 A momenta are thermalised: the molecule
drifts and turns, and frames are centred at their centre of mass.

The trajectory is computed in blocks. A block is decided by the state at its begin alone (positions, momenta, random
numbers), a fresh calculator included, so a killed computation continues after its last finished block and ends in the
same frames.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from replimat.cards import DatasetCard, MolecularDynamics, StartGeometry
from replimat.datasets.base import Dataset, Structures
from replimat.errors import DataError
from replimat.files import atomic

BLOCK = 100  # frames computed between two writes
SHAKE = 0.05  # angstrom, standard deviation of the start's displacements
CONVERGED = 1e-3  # eV/angstrom, largest force of the relaxed geometry
RELAXATION_STEPS = 500
BOND = 1.25  # a bond is shorter than this times the sum of its atoms' covalent radii
BROKEN = 1.4  # a bond that grew to this times its relaxed length; 500 K stretches bonds by less than 1.25


def read(folder: Path, card: DatasetCard) -> Dataset:
    """The dataset of a trajectory: target `energy` in eV [n], per-atom target `forces` in eV/angstrom [N, 3].

    folder: holds the finished blocks. Raises DataError when the engine is missing or of another version than the card
    says, when a calculation does not converge, or when the molecule falls apart.
    """
    settings = card.source.settings
    numbers, relaxed, frames = trajectory(settings, folder, card.name)
    _require_intact(card.name, numbers, relaxed, frames["positions"])
    count, atoms = len(frames["energy"]), len(numbers)
    structures = Structures(
        numbers=np.tile(numbers.astype(np.int16), count),
        positions=frames["positions"].reshape(-1, 3),
        cells=np.zeros((count, 3, 3)),
        offsets=np.arange(count + 1, dtype=np.int64) * atoms,
        periodic=False,
    )
    return Dataset(
        name=card.name,
        ids=np.array([f"frame-{k}" for k in range(count)]),
        structures=structures,
        targets={"energy": frames["energy"]},
        units={name: target.unit for name, target in card.targets.items()},
        per_atom={"forces": frames["forces"].reshape(-1, 3)},
    )


def trajectory(settings: MolecularDynamics, folder: Path, name: str = "") -> tuple[np.ndarray, np.ndarray, dict]:
    """Atomic numbers [A], relaxed positions [A, 3] and frames of the trajectory, computed where `folder` lacks them.

    Frames: energy, kinetic_energy in eV [n], positions in angstrom, forces in eV/angstrom [n, A, 3].
    """
    import tblite.library  # noqa: F401  brings its OpenMP along, which is limited only once it is here
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # same sums in every run, and for so few atoms one thread is the fastest
        start = _kept(folder / "start.npz", _start, settings)
        state = _kept(folder / "equilibrated.npz", _equilibrate, settings, start)
        blocks = []
        for first in range(0, settings.frames, BLOCK):
            count = min(BLOCK, settings.frames - first)
            state = _kept(folder / f"frames-{first}.npz", _block, settings, state, count)
            blocks.append(state)
            print(f"{name}: {first + count:,} of {settings.frames:,} frames", file=sys.stderr, flush=True)
    kinds = ("energy", "kinetic_energy", "positions", "forces")
    frames = {kind: np.concatenate([block[f"frame.{kind}"] for block in blocks]) for kind in kinds}
    return start["numbers"], start["positions"], frames


def relax(settings: MolecularDynamics, numbers: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, float]:
    """Positions [A, 3] and energy in eV of the minimum that is reached from `positions` after a seeded shake."""
    from ase.optimize import BFGS

    shaken = positions + SHAKE * np.random.default_rng(settings.seed).standard_normal(positions.shape)
    atoms = _atoms(settings, numbers, shaken)
    if not BFGS(atoms, logfile=None).run(fmax=CONVERGED, steps=RELAXATION_STEPS):
        raise DataError(f"{settings.method}: the start geometry is not relaxed after {RELAXATION_STEPS} steps.")
    return atoms.positions.copy(), atoms.get_potential_energy()


def start_geometry(start: StartGeometry) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers [A] and positions in angstrom [A, 3] of a card's start geometry."""
    if start.dodecahedron:
        from ase.data import atomic_numbers

        return np.full(20, atomic_numbers[start.dodecahedron]), dodecahedron(edge=1.45)
    if start.molecule:
        from ase.build import molecule

        atoms = molecule(start.molecule)
    else:
        import io

        from ase.io import read as read_geometry

        atoms = read_geometry(io.StringIO(start.xyz), format="xyz")
    return atoms.numbers, atoms.positions


def dodecahedron(edge: float) -> np.ndarray:
    """Vertices [20, 3] of a regular dodecahedron around the origin."""
    golden = (1 + 5**0.5) / 2
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
    rectangle = np.unique(signs * [0, 1 / golden, golden], axis=0)  # its three orientations are 12 vertices
    vertices = np.concatenate([signs, *(np.roll(rectangle, turn, axis=1) for turn in range(3))])
    return vertices * edge * golden / 2


def _start(settings: MolecularDynamics) -> dict:
    numbers, positions = start_geometry(settings.start)
    return {"numbers": numbers, "positions": relax(settings, numbers, positions)[0]}


def _equilibrate(settings: MolecularDynamics, start: dict) -> dict:
    """State after equilibration, from the relaxed geometry and momenta drawn at the temperature."""
    from ase import units

    rng = np.random.default_rng(settings.seed)
    atoms = _atoms(settings, start["numbers"], start["positions"])
    widths = np.sqrt(atoms.get_masses() * units.kB * settings.temperature)  # [A]
    atoms.set_momenta(widths[:, None] * rng.standard_normal((len(atoms), 3)))
    _langevin(settings, atoms, rng).run(settings.equilibration)
    return _state(atoms, rng)


def _block(settings: MolecularDynamics, state: dict, count: int) -> dict:
    """`count` frames from a state on, and the state after them."""
    rng = np.random.default_rng()
    rng.bit_generator.state = json.loads(str(state["rng"]))
    atoms = _atoms(settings, state["numbers"], state["positions"])
    atoms.set_momenta(state["momenta"])
    dynamics = _langevin(settings, atoms, rng)
    frames: dict[str, list] = {"energy": [], "kinetic_energy": [], "positions": [], "forces": []}
    for _ in range(count):
        dynamics.run(settings.every)
        frames["energy"].append(atoms.get_potential_energy())
        frames["kinetic_energy"].append(atoms.get_kinetic_energy())
        frames["positions"].append(atoms.positions - atoms.get_center_of_mass())
        frames["forces"].append(atoms.get_forces())
    return _state(atoms, rng) | {f"frame.{kind}": np.array(values) for kind, values in frames.items()}


def _atoms(settings: MolecularDynamics, numbers: np.ndarray, positions: np.ndarray):
    """The molecule with a fresh calculator."""
    from ase import Atoms
    from tblite.ase import TBLite

    return Atoms(numbers, positions=positions, calculator=TBLite(method=settings.method, verbosity=0))


def _langevin(settings: MolecularDynamics, atoms, rng: np.random.Generator):
    from ase import units
    from ase.md.langevin import Langevin

    return Langevin(
        atoms,
        settings.timestep * units.fs,
        temperature_K=settings.temperature,
        friction=settings.friction / units.fs,
        fixcm=False,
        rng=rng,
    )


def _state(atoms, rng: np.random.Generator) -> dict:
    """All that decides how the dynamics goes on."""
    return {
        "numbers": atoms.numbers,
        "positions": atoms.positions.copy(),
        "momenta": atoms.get_momenta(),
        "rng": np.array(json.dumps(rng.bit_generator.state)),
    }


def _kept(path: Path, compute: Callable[..., dict], *arguments) -> dict:
    """Arrays of `path`; where it is missing, `compute(*arguments)` is written first.

    Raises DataError when the engine fails.
    """
    from ase.calculators.calculator import CalculatorError

    if not path.is_file():
        try:
            arrays = compute(*arguments)
        except CalculatorError as error:
            raise DataError(f"{path.stem}: the electronic structure was not found ({error}).") from error
        with atomic(path) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, **arrays)
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored.items())


def _require_intact(name: str, numbers: np.ndarray, relaxed: np.ndarray, positions: np.ndarray) -> None:
    """Raise DataError when a bond of the relaxed geometry breaks in one of the frames [n, A, 3]."""
    from ase.data import covalent_radii

    first, second = np.triu_indices(len(numbers), 1)
    length = np.linalg.norm(relaxed[first] - relaxed[second], axis=-1)
    bonded = length < BOND * (covalent_radii[numbers[first]] + covalent_radii[numbers[second]])
    first, second, length = first[bonded], second[bonded], length[bonded]
    stretch = np.linalg.norm(positions[:, first] - positions[:, second], axis=-1) / length  # [n, bonds]
    frame, bond = np.unravel_index(stretch.argmax(), stretch.shape)
    if stretch[frame, bond] > BROKEN:
        raise DataError(
            f"Dataset {name!r}: in frame {frame} the bond between atoms {first[bond]} and {second[bond]} has "
            f"{stretch[frame, bond]:.2f} times its relaxed length: the molecule fell apart."
        )
