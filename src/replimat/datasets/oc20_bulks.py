"""Bulk crystals of the Open Catalyst 2020 dataset (Chanussot et al., ACS Catal. 11, 6059 (2021)): RPBE energies.

The file is a pickle of ASE Atoms with their results. It is read into plain records instead of ASE's classes: nothing of
ASE runs, and the file stays readable whatever ASE becomes. The one function call in it, getattr for a deprecated method
of the calculator, is answered with None.
"""

from pathlib import Path

import numpy as np

from replimat.cards import DatasetCard
from replimat.datasets.base import Dataset
from replimat.datasets.rows import Rows
from replimat.sources import load_pickle
from replimat.sources.pickles import NUMPY_GLOBALS

RECORD = ("replimat.datasets.oc20_bulks", "Record")
ALLOWED = NUMPY_GLOBALS | {
    ("ase.atoms", "Atoms"): RECORD,
    ("ase.cell", "Cell"): RECORD,
    ("ase.calculators.calculator", "Parameters"): RECORD,
    ("ase.calculators.singlepoint", "SinglePointCalculator"): RECORD,
    ("builtins", "getattr"): ("replimat.datasets.oc20_bulks", "no_attribute"),
}

# eV/atom. No element binds more than tungsten (-12.5 with RPBE) and the weakest, mercury, lies at +0.1.
# Energies outside come from calculations that failed (forces up to hundreds of eV/angstrom).
PHYSICAL_ENERGIES = (-13.0, 1.0)


class Record(dict):
    """Stands in for a pickled object: its attributes are kept, its code is not."""


def no_attribute(*_) -> None:
    """Stands in for getattr, so that a pickle cannot reach anything through it."""


def read(folder: Path, card: DatasetCard) -> Dataset:
    """The dataset of the pickled list. Crystals whose energy is not physical are left out by name."""
    rows = Rows(card)
    low, high = PHYSICAL_ENERGIES
    for entry in load_pickle(folder / card.source.members[0].save_as, ALLOWED):
        name = entry["src_id"]
        try:
            structure, values = crystal(entry["atoms"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            rows.leave_out(name, f"structure not readable ({type(error).__name__}: {error})")
            continue
        if not low <= values["energy_per_atom"] <= high:
            rows.leave_out(name, f"energy {values['energy_per_atom']:.6g} eV/atom is outside [{low:g}, {high:g}]")
            continue
        rows.add(name, structure, values)
    return rows.dataset()


def crystal(atoms: Record) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], dict[str, float]]:
    """(numbers [A], positions [A, 3], cell [3, 3]) and values of one pickled Atoms object."""
    numbers, positions = atoms.arrays["numbers"], atoms.arrays["positions"]
    results = atoms._calc.results
    values = {
        "energy_per_atom": results["energy"] / len(numbers),
        "max_force": np.linalg.norm(results["forces"], axis=1).max(),
    }
    return (numbers, positions, atoms._cellobj.array), values
