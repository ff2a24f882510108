"""The csv files that matminer 0.4 ships: Materials Project structures as a Python dictionary or as POSCAR text.

The first line of each file is a comment with the reference. dielectric_constant.csv was written with an index column
that its header does not name, so its rows have one field more than the header. Of the two forms of a structure, POSCAR
is taken where it is there: the CIF beside it holds only the symmetry-reduced atoms.
"""

import ast
import csv
import io
from pathlib import Path

import numpy as np

from replimat.cards import DatasetCard
from replimat.datasets.base import Dataset
from replimat.datasets.rows import Rows, require_listed
from replimat.errors import DataError

UNREADABLE = (ValueError, KeyError, IndexError, TypeError, SyntaxError, AttributeError, StopIteration)


def read(folder: Path, card: DatasetCard) -> Dataset:
    """The dataset of the card's one csv file. Rows whose structure cannot be read are left out by name."""
    rows = Rows(card)
    for row in _table(folder / card.source.members[0].save_as):
        try:
            structure = from_poscar(row["poscar"]) if "poscar" in row else from_dictionary(row["structure"])
        except UNREADABLE as error:
            rows.leave_out(row["material_id"], f"structure not readable ({type(error).__name__}: {error})")
            continue
        rows.add(row["material_id"], structure, row)
    return rows.dataset()


def _table(path: Path) -> list[dict[str, str]]:
    """Rows by column name."""
    csv.field_size_limit(1 << 24)  # a structure is one field
    with open(path, newline="", encoding="utf-8") as stream:
        stream.readline()
        lines = csv.reader(stream)
        header = next(lines)
        table = []
        for line in lines:
            extra = len(line) - len(header)  # 1 where an unnamed index column stands first
            if extra not in (0, 1):
                raise DataError(f"{path}, line {lines.line_num + 1}: {len(line)} fields, expected {len(header)}.")
            table.append(dict(zip(header, line[extra:], strict=True)))
    return table


def from_dictionary(text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers [A], positions [A, 3], cell [3, 3] of a pymatgen structure printed as a Python dictionary."""
    from ase.data import atomic_numbers

    content = ast.literal_eval(text)
    cell = np.array(content["lattice"]["matrix"], dtype=float)
    sites = content["sites"]
    species = [site["species"] for site in sites]
    if any(len(kinds) != 1 or kinds[0]["occu"] != 1 for kinds in species):
        raise ValueError("a site is partly occupied")
    numbers = np.array([atomic_numbers[kinds[0]["element"]] for kinds in species])
    return numbers, np.array([site["abc"] for site in sites]) @ cell, cell


def from_poscar(text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers [A], positions [A, 3], cell [3, 3] of a POSCAR."""
    from ase.io.vasp import read_vasp

    require_listed(text)
    atoms = read_vasp(io.StringIO(text))
    return atoms.numbers, atoms.positions, atoms.cell.array
