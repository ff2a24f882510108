"""All small crystals of the embedded datasets in one, for models that generate crystals.

One crystal a Materials Project id. Its geometry is taken from the first parent that has it; each target from the first
parent that knows it.
"""

import warnings
from pathlib import Path

import numpy as np

from replimat.cards import DatasetCard
from replimat.datasets.base import Dataset, Structures

MOST_ATOMS = 40  # of a cell: the largest that any of these models takes
SYMPREC = 0.01  # angstrom, of the space group
JOINED = ("formation_energy", "e_above_hull", "band_gap")


def read(folder: Path, card: DatasetCard) -> Dataset:
    """The crystals of at most MOST_ATOMS atoms of the card's parents, in their order."""
    from replimat.datasets.loading import load

    parents = [load(name) for name in card.source.parents]
    found, left_out = {}, {}  # id -> (parent, row)
    for parent in parents:
        for row, name in enumerate(map(str, parent.ids)):
            if parent.structures.sizes[row] > MOST_ATOMS:
                left_out[name] = f"more than {MOST_ATOMS} atoms in {parent.name}"
            else:
                found.setdefault(name, (parent, row))
    structures = Structures.pack([parent.structures[row] for parent, row in found.values()], periodic=True)
    targets = {name: joined(list(found), parents, name) for name in JOINED}
    targets |= described(structures)
    return Dataset(
        name=card.name,
        ids=np.array(list(found)),
        structures=structures,
        targets={name: targets[name] for name in card.targets},
        units={name: target.unit for name, target in card.targets.items()},
        left_out={name: why for name, why in left_out.items() if name not in found},
    )


def joined(ids: list[str], parents: list[Dataset], target: str) -> np.ndarray:
    """Values of a target by id [n], from the first parent that has one; NaN where none has."""
    known: dict[str, float] = {}
    for parent in parents:
        for name, value in zip(parent.ids, parent.targets.get(target, ()), strict=False):
            if np.isfinite(value):
                known.setdefault(str(name), float(value))
    return np.array([known.get(name, np.nan) for name in ids])


def described(structures: Structures) -> dict[str, np.ndarray]:
    """What the geometry alone says: numbers of elements, atoms and space group; the last is NaN where none is found."""
    each = [structures[s] for s in range(len(structures))]
    return {
        "n_elements": np.array([float(len(np.unique(z))) for z, _, _ in each]),
        "n_atoms": structures.sizes.astype(float),
        "space_group": np.array([space_group(*one) for one in each]),
    }


def space_group(numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray) -> float:
    """International number of the space group of one crystal (spglib); NaN where none is found."""
    import spglib

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = spglib.get_symmetry_dataset((cell, positions @ np.linalg.inv(cell), numbers), symprec=SYMPREC)
    return float(found.number) if found else np.nan
