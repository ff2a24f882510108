"""Candidate phases of XCA (P. M. Maffettone et al., Nat. Comput. Sci. 1, 290 (2021)): BaTiO3, Ni-Co-Al and ADTA as CIF.

An atom of a shared or partly filled site is one row with its occupancy.
"""

from pathlib import Path

import numpy as np

from replimat.cards import DatasetCard
from replimat.datasets import cifs
from replimat.datasets.base import Dataset
from replimat.datasets.cifs import parsed_cif
from replimat.datasets.rows import Rows

CODE = (cifs.__file__,)  # decides what is read too
UNREADABLE = (ValueError, KeyError, IndexError, TypeError, ArithmeticError, AssertionError, StopIteration)
NUMBERS = ("_symmetry_Int_Tables_number", "_space_group_IT_number")
SYMBOLS = ("_symmetry_space_group_name_H-M", "_space_group_name_H-M_alt")


def read(folder: Path, card: DatasetCard) -> Dataset:
    """The phases named like NiCoAl-Ni3Al-Cubic-221; `space_group` is the number the CIF declares."""
    rows = Rows(card)
    for member in card.source.members:
        path = folder / member.save_as
        name = f"{path.parent.name.removeprefix('cifs-')}-{path.stem}"
        try:
            structure, occupancies, number = crystal(path)
        except UNREADABLE as error:
            rows.leave_out(name, f"CIF not readable ({type(error).__name__}: {error})")
            continue
        rows.add(name, structure, {"space_group": number}, occupancies)
    return rows.dataset()


def crystal(path: Path) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray | None, int]:
    """(numbers [A], positions [A, 3], cell [3, 3]), occupancies [A] or None when all sites are full, space group."""
    found, fields = parsed_cif(path.read_text(encoding="utf-8"))
    atoms = [(kind.Z, site.coords, share) for site in found for kind, share in site.species.items()]
    numbers, positions, shares = (np.array(part) for part in zip(*atoms, strict=True))
    structure = (numbers, positions, found.lattice.matrix)
    return structure, None if (shares == 1).all() else shares, _space_group(fields)


def _space_group(fields: dict[str, str]) -> int:
    """Number a CIF declares, or the one of the symbol it declares. Raises ValueError or KeyError."""
    from pymatgen.symmetry.groups import SpaceGroup

    for key in NUMBERS:
        if key in fields:
            return int(fields[key])
    symbol = next(fields[key] for key in SYMBOLS if key in fields)
    return SpaceGroup(symbol.replace(" ", "")).int_number
