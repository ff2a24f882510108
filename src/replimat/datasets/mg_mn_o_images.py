"""The training images of Kim et al. 2020: 2,627 tables of cell and coordinates of Mg-Mn-O crystals, without energies.

A crystal comes first as it is (1,253 of them), and the small ones come again as three doubled cells, under the same
name. The doubled ones are not used: their atoms stand in the order of the two copies, Mg Mn O Mg Mn O, while the image
was filled as if they stood as Mg Mg Mn Mn O O. So the points of these 1,374 are right and the elements on them are not.
The doubling is done again where the images are learned (replimat.representations.cell_points.doubled).
"""

from pathlib import Path

import numpy as np

from replimat.cards import DatasetCard
from replimat.datasets.base import Dataset, Structures
from replimat.errors import DataError
from replimat.sources.pickles import load_pickle

IMAGES, NAMES = "unique_sc_mgmno.npy", "unique_sc_mgmno_name_list"
SHAPE = (30, 3)
NUMBERS = np.repeat([12, 25, 8], [8, 8, 12])  # of the slots
LONGEST, WIDEST, EDGE, BOX, FILLED = 30.0, 180.0, 1 / 6, 2 / 3, 0.4  # of replimat.representations.cell_points
DOUBLED = "a doubled cell with the elements of its atoms mixed up"


def read(folder: Path, card: DatasetCard) -> Dataset:
    """The crystals of the images that are not doubled cells. Raises DataError for files of another shape."""
    try:
        images = np.load(folder / IMAGES, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / IMAGES}: not an array of numbers ({error}).") from error
    names = [Path(str(name)).stem for name in load_pickle(folder / NAMES, {})]
    if images.shape != (len(names), *SHAPE):
        raise DataError(f"{folder}: {len(names)} names and images of shape {images.shape}, expected [n, 30, 3].")
    rows, left_out = {}, {}
    for row, name in enumerate(names):
        if name in rows:
            left_out[f"{name} row {row}"] = DOUBLED
        else:
            rows[name] = row
    structures = Structures.pack([crystal_of(images[row]) for row in rows.values()], periodic=True)
    targets = {"n_atoms": structures.sizes.astype(float)}
    return Dataset(
        name=card.name,
        ids=np.array(list(rows)),
        structures=structures,
        targets={name: targets[name] for name in card.targets},
        units={name: target.unit for name, target in card.targets.items()},
        left_out=left_out,
    )


def crystal_of(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atomic numbers [A], positions [A, 3] and cell [3, 3] of an image [30, 3]."""
    from ase.geometry import cellpar_to_cell

    filled = image[2:].sum(axis=1) > FILLED
    cell = cellpar_to_cell([*(image[0] * LONGEST), *(image[1] * WIDEST)])
    fractional = ((image[2:][filled] - EDGE) / BOX) % 1.0
    return NUMBERS[filled], fractional @ cell, cell
