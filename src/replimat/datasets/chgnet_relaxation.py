"""Crystals relaxed with CHGNet 0.3.0 (Deng et al., Nat. Mach. Intell. 5, 1031 (2023), doi:10.1038/s42256-023-00716-3).

Its weights come with the package. It was trained on energies of the Materials Project with the corrections of 2020
(anions, GGA to GGA+U) added, so that its energies contain them and nothing is to be added again: MgO comes out at -3.06
eV/atom against its own Mg and O2 (measured -3.12, plain PBE -2.7).
"""

import warnings
from dataclasses import dataclass
from functools import cache

import numpy as np

from replimat.errors import DataError

WEIGHTS = "0.3.0"
LARGEST_STEP = 0.2  # angstrom
LARGEST_CHANGE = 2.0  # of the volume, either way: beyond it a crystal has fallen apart or collapsed

Triple = tuple[np.ndarray, np.ndarray, np.ndarray]  # atomic numbers [A], positions [A, 3], cell [3, 3]


@dataclass(frozen=True)
class Relaxed:
    """A relaxed crystal. energy: eV/atom; force: the largest left, eV/angstrom (of the cell V * stress / A, eV);
    steps taken; failed: why it is of no use ("" if it is).
    """

    crystal: Triple
    energy: float
    force: float
    steps: int
    failed: str = ""


def relaxed(crystal: Triple, fmax: float, max_steps: int) -> Relaxed:
    """Atoms and cell moved towards the nearest minimum, until the largest force is below fmax or max_steps are made.

    Not being there yet is no failure: `force` tells. Crystals without neighbours, or whose volume runs away, fail.
    """
    from ase import Atoms
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    numbers, positions, cell = crystal
    atoms = Atoms(numbers, positions=positions, cell=cell, pbc=True, calculator=calculator())
    volume, steps, moved = atoms.get_volume(), 0, FrechetCellFilter(atoms)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            optimiser = BFGS(moved, logfile=None, maxstep=LARGEST_STEP)
            for _ in optimiser.irun(fmax=fmax, steps=max_steps):
                steps = optimiser.nsteps
                if not 1 / LARGEST_CHANGE < atoms.get_volume() / volume < LARGEST_CHANGE:
                    return Relaxed(crystal, np.nan, np.nan, steps, "its volume runs away")
            energy, force = atoms.get_potential_energy(), np.linalg.norm(moved.get_forces(), axis=1).max()
        except (ValueError, IndexError, np.linalg.LinAlgError) as error:  # of graphs without edges
            return Relaxed(crystal, np.nan, np.nan, steps, str(error).splitlines()[0] if str(error) else "no graph")
    if not np.isfinite([energy, force]).all():
        return Relaxed(crystal, np.nan, np.nan, steps, "energy or forces are not finite")
    crystal = (numbers, atoms.positions.copy(), atoms.cell.array.copy())
    return Relaxed(crystal, float(energy) / len(atoms), float(force), steps)


@cache
def calculator():
    """The ASE calculator. Raises DataError where chgnet is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from chgnet.model import CHGNet
            from chgnet.model.dynamics import CHGNetCalculator

            model = CHGNet.load(model_name=WEIGHTS, use_device="cpu", verbose=False)
            return CHGNetCalculator(model, use_device="cpu", on_isolated_atoms="error")
    except ImportError as error:
        raise DataError(f"Relaxing crystals needs chgnet ({error}): pip install 'replimat[suite]'.") from error
