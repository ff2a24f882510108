"""The image of an Mg-Mn-O crystal (Kim et al., ACS Cent. Sci. 6, 1412 (2020)): a table of cell and coordinates, 30 x 3.

    row 0        lengths of the cell / 30 angstrom
    row 1        its angles / 180 degree
    rows 2-9     fractional coordinates of up to 8 Mg, then of up to 8 Mn (10-17) and 12 O (18-29)

Coordinates 0..1 are drawn at 1/6..5/6, as if in a box of 10 angstrom inside one of 15, so that an atom at the origin is
not an empty slot, which is zero. A slot is filled where its coordinates sum to more than 0.4.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from replimat.datasets.base import Structures
from replimat.errors import DataError
from replimat.representations.conversion import packed

ELEMENTS = (12, 25, 8)  # Mg, Mn, O
SLOTS = (8, 8, 12)
FIRST = 2  # row of the first slot
ROWS = FIRST + sum(SLOTS)
LONGEST, WIDEST = 30.0, 180.0  # angstrom, degree
EDGE, BOX = 1 / 6, 2 / 3  # where a fractional coordinate of 0 is drawn, and the length of 1
FILLED = 0.4  # sum of the coordinates of a slot above which it holds an atom
THINNEST = 0.05  # volume over the product of the lengths below which three angles hardly close to a cell


@dataclass(frozen=True)
class CellPoints:
    """Images of crystals of Mg, Mn and O that have all three and no more atoms than there are slots."""

    version: ClassVar[int] = 1  # raise when the arrays change

    def parameters(self) -> dict:
        """Everything that decides the arrays, for the key of the prepared file: nothing can be chosen."""
        return {}

    def __call__(self, structures: Structures, progress: bool = True) -> dict[str, np.ndarray]:
        """image [n, 30, 3] float32, and the crystals themselves as replimat.representations.conversion.packed."""
        images = np.stack([image_of(*structures[s]) for s in range(len(structures))])
        return {"image": images.astype(np.float32)} | packed(structures)


def image_of(numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """The image [30, 3] of one crystal; atoms keep their order. Raises DataError where it does not fit."""
    from ase.geometry import cell_to_cellpar

    parameters = cell_to_cellpar(cell)
    image = np.zeros((ROWS, 3))
    image[0], image[1] = parameters[:3] / LONGEST, parameters[3:] / WIDEST
    if image[0].max() > 1:
        raise DataError(f"A cell of {parameters[:3].max():.1f} angstrom does not fit into an image of {LONGEST:g}.")
    if strange := set(numbers.tolist()) - set(ELEMENTS):
        raise DataError(f"An image holds Mg, Mn and O; got Z = {', '.join(map(str, sorted(strange)))}.")
    fractional = (positions @ np.linalg.inv(cell)) % 1.0
    fractional[fractional > 1 - 1e-6] = 0.0  # of a coordinate that is zero but for rounding
    row = FIRST
    for element, slots in zip(ELEMENTS, SLOTS, strict=True):
        points = fractional[numbers == element]
        if not 1 <= len(points) <= slots:
            raise DataError(f"{len(points)} atoms of Z = {element} where an image has 1 to {slots} slots.")
        image[row : row + len(points)] = EDGE + BOX * points
        row += slots
    return image


def crystals_of(images: np.ndarray) -> tuple[Structures | None, dict[int, str]]:
    """Crystals of the images [n, 30, 3] that show one, in order (None if none does), and why the others do not."""
    from ase.geometry import cellpar_to_cell

    found, failed = [], {}
    numbers = np.repeat(ELEMENTS, SLOTS)
    for k, image in enumerate(np.asarray(images, dtype=np.float64)):
        filled = image[FIRST:].sum(axis=1) > FILLED
        lengths, angles = image[0] * LONGEST, image[1] * WIDEST
        if not filled.any():
            failed[k] = "every slot is empty"
        elif openness(angles) < THINNEST or lengths.min() <= 0:
            failed[k] = "lengths and angles do not close to a cell"
        else:
            cell = cellpar_to_cell([*lengths, *angles])
            fractional = ((image[FIRST:][filled] - EDGE) / BOX) % 1.0
            found.append((numbers[filled], fractional @ cell, cell))
    return (Structures.pack(found, periodic=True) if found else None), failed


def openness(angles: np.ndarray) -> float:
    """Volume of a cell of edges 1 with these angles in degrees; 0 where there is no such cell."""
    a, b, c = np.cos(np.radians(angles))
    return float(np.sqrt(max(1 + 2 * a * b * c - a * a - b * b - c * c, 0.0)))


def filled_slots(images: Tensor) -> Tensor:
    """Which slots hold an atom [B, 28]."""
    return images[:, FIRST:].sum(dim=2) > FILLED


def composition(images: Tensor) -> Tensor:
    """Atoms of Mg, Mn and O in each image [B, 3]."""
    return torch.stack([part.sum(dim=1) for part in filled_slots(images).split(SLOTS, dim=1)], dim=1)


# ------------------------------------------------------------------------- other images of the same crystal


def doubled(images: Tensor) -> Tensor:
    """Cells doubled along a, then b, then c, of every image whose slots are at most half full [m, 30, 3]."""
    half = torch.tensor(SLOTS) // 2
    small = images[(composition(images) <= half).all(dim=1)]
    made = [_doubled(image, axis) for image in small for axis in range(3)]
    return torch.stack(made) if made else images[:0]


def augmented(images: Tensor, move: bool = True) -> Tensor:
    """The same crystals seen differently: two axes swapped or none, moved if `move`, their atoms in other slots; at
    random.
    """
    moved = _swapped(images)
    if move:
        moved = _moved(moved)
    return torch.cat([moved[:, :FIRST], *(_shuffled(part) for part in moved[:, FIRST:].split(SLOTS, dim=1))], dim=1)


def _doubled(image: Tensor, axis: int) -> Tensor:
    made = torch.zeros_like(image)
    made[:FIRST] = image[:FIRST]
    made[0, axis] *= 2
    row = FIRST
    for slots in SLOTS:
        points = (image[row : row + slots][image[row : row + slots].sum(dim=1) > FILLED] - EDGE) / BOX
        points[:, axis] /= 2
        second = points.clone()
        second[:, axis] += 0.5
        both = torch.cat([points, second])
        made[row : row + len(both)] = EDGE + BOX * both
        row += slots
    return made


def _swapped(images: Tensor) -> Tensor:
    """Two axes exchanged, each of the three ways and none equally often; lengths, angles and coordinates together."""
    orders = torch.tensor([[0, 1, 2], [1, 0, 2], [2, 1, 0], [0, 2, 1]], device=images.device)
    order = orders[torch.randint(len(orders), (len(images),), device=images.device)]
    return images.gather(2, order[:, None, :].expand_as(images))


def _moved(images: Tensor) -> Tensor:
    """All atoms of an image shifted by one random vector through the periodic boundary."""
    shift = torch.rand(len(images), 1, 3, device=images.device)
    points = ((images[:, FIRST:] - EDGE) / BOX + shift) % 1.0
    slots = torch.where(filled_slots(images)[:, :, None], EDGE + BOX * points, 0.0)
    return torch.cat([images[:, :FIRST], slots], dim=1)


def _shuffled(part: Tensor) -> Tensor:
    """The slots of one element [B, S, 3] in random order."""
    order = torch.rand(part.shape[:2], device=part.device).argsort(dim=1)
    return part.gather(1, order[:, :, None].expand_as(part))
