"""Cubic binaries, perovskites and Heusler compounds of the pool of crystals, in their conventional cells."""

import warnings
from pathlib import Path

import numpy as np

from replimat.cards import DatasetCard
from replimat.datasets.base import Dataset, Structures

CUBIC = 195  # the first cubic space group
SYMPREC = 0.01  # angstrom, as in the pool
CARRIED = ("formation_energy", "space_group")
FAMILIES = {  # space group, atoms of each element in the formula, atoms in the conventional cell
    "heusler": (225, (1, 1, 2), 16),
    "half_heusler": (216, (1, 1, 1), 12),
    "perovskite": (221, (1, 1, 3), 5),
    "rock_salt": (225, (1, 1), 8),
    "caesium_chloride": (221, (1, 1), 2),
    "zinc_blende": (216, (1, 1), 8),
    "fluorite": (225, (1, 2), 12),
    "cu3au": (221, (1, 3), 4),
    "d03": (225, (1, 3), 16),
}
NUMBER_OF = {prototype: number for number, prototype in enumerate(FAMILIES.values())}


def read(folder: Path, card: DatasetCard) -> Dataset:
    """The crystals of the pool that belong to one of FAMILIES; the target `family` is its number."""
    from replimat.datasets.loading import load

    pool = load("crystal_pool")
    rows, cells, families, left_out = [], [], [], {}
    for row in np.flatnonzero(pool.target("space_group") >= CUBIC):
        cell = conventional(*pool.structures[row])
        number = NUMBER_OF.get((int(pool.target("space_group")[row]), *prototype(cell[0])))
        if number is None:
            left_out[str(pool.ids[row])] = "cubic, of another prototype"
            continue
        rows.append(row)
        cells.append(cell)
        families.append(float(number))
    targets = {name: pool.target(name)[rows] for name in CARRIED} | {"family": np.array(families)}
    return Dataset(
        name=card.name,
        ids=pool.ids[rows],
        structures=Structures.pack(cells, periodic=True),
        targets={name: targets[name] for name in card.targets},
        units={name: target.unit for name, target in card.targets.items()},
        left_out=left_out,
    )


def prototype(numbers: np.ndarray) -> tuple[tuple[int, ...], int]:
    """How often each element stands in the formula, in rising order, and how many atoms there are."""
    counts = np.unique(numbers, return_counts=True)[1]
    return tuple(int(count) for count in np.sort(counts // np.gcd.reduce(counts))), len(numbers)


def conventional(
    numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The conventional cell of a crystal in standard setting, its edges along the axes (spglib)."""
    import spglib

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        crystal = cell, positions @ np.linalg.inv(cell), numbers
        cell, fractional, numbers = spglib.standardize_cell(crystal, symprec=SYMPREC)
    return np.asarray(numbers), fractional @ cell, cell
