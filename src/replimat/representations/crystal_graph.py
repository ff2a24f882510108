"""The crystal graph of CGCNN: every atom with its 12 nearest neighbours (Xie & Grossman, PRL 120, 145301 (2018)).

Neighbours are taken within 8 angstrom and sorted by distance; images of one atom count one by one. Which of several
neighbours at the twelfth distance is kept is arbitrary in the author's code: it sorts by the raw floating-point
distance, so rounding noise (1e-15 angstrom) of the pymatgen version at hand decides. Here distances equal to 1e-8
angstrom are ties, settled by the lower atom index, then by the lower cell image: the same graph on every machine.

An atom with fewer than 12 neighbours is padded as in the author's code: index 0 (the first atom of the crystal),
distance 9 angstrom. The author's code warns; so do we, and `padding` counts the padded places of every crystal.
The Gaussian expansion of the distances belongs to the model.
"""

import warnings
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np

from replimat.datasets.base import Structures
from replimat.errors import DataError
from replimat.representations.neighbours import Neighbours, crystal_neighbours

PAD_BEYOND = 1.0  # angstrom: a missing neighbour stands this far beyond the cutoff


@dataclass(frozen=True)
class CrystalGraph:
    """Nearest-neighbour graph of crystals. cutoff: angstrom; neighbours: kept per atom (M below)."""

    cutoff: float = 8.0
    neighbours: int = 12

    version: ClassVar[int] = 1  # raise when the arrays change for the same parameters

    def parameters(self) -> dict[str, float | int]:
        """Everything that decides the arrays, for the key of the prepared file."""
        return asdict(self)

    def __call__(self, structures: Structures, progress: bool = True) -> dict[str, np.ndarray]:
        """Arrays of all crystals packed end to end.

        numbers [N] int16; neighbour_index [N, M] int32, local to the crystal; distance [N, M] float32, angstrom;
        shift [N, M, 3] int8, cell image of the neighbour; offsets [n + 1] int64; padding [n] int32, places in each
        crystal that no neighbour fills.
        Warns when there is padding. Raises DataError for molecules and for cells without volume.
        """
        if not structures.periodic:
            raise DataError("CrystalGraph needs crystals, got molecules: use CutoffGraph for them.")
        index = np.zeros((len(structures.numbers), self.neighbours), np.int32)
        distance = np.full(index.shape, self.cutoff + PAD_BEYOND, np.float32)
        shift = np.zeros((*index.shape, 3), np.int8)
        found = np.zeros(len(index), np.int64)  # neighbours of each atom, at most M
        for s, near in enumerate(crystal_neighbours(structures, self.cutoff, progress)):
            rows = slice(structures.offsets[s], structures.offsets[s + 1])
            found[rows] = self._fill(near, index[rows], distance[rows], shift[rows])
        padding = np.add.reduceat(self.neighbours - found, structures.offsets[:-1]).astype(np.int32)
        self._warn(padding)
        return {
            "numbers": structures.numbers,
            "neighbour_index": index,
            "distance": distance,
            "shift": shift,
            "offsets": structures.offsets,
            "padding": padding,
        }

    def _fill(self, near: Neighbours, index: np.ndarray, distance: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Write the nearest neighbours of one crystal into its rows; returns how many each atom has [A]."""
        sender, receiver = near.edge_index
        degree = np.bincount(receiver, minlength=len(index))
        rank = np.arange(len(receiver)) - np.repeat(np.cumsum(degree) - degree, degree)  # 0 = nearest
        kept = rank < self.neighbours
        place = receiver[kept], rank[kept]
        index[place], distance[place], shift[place] = sender[kept], near.distance[kept], near.shift[kept]
        return np.minimum(degree, self.neighbours)

    def _warn(self, padding: np.ndarray) -> None:
        rows = np.flatnonzero(padding)
        if len(rows):
            named = ", ".join(map(str, rows[:10])) + (", ..." if len(rows) > 10 else "")
            warnings.warn(
                f"{len(rows)} of {len(padding)} crystals have atoms with fewer than {self.neighbours} neighbours "
                f"within {self.cutoff} angstrom and were padded: rows {named}.",
                stacklevel=3,
            )
