"""The cutoff graph of SchNet and of interatomic potentials: every pair of atoms closer than a cutoff.

Positions, cells and images are kept instead of distances, so that a model can compute distances itself and
differentiate them: vec = positions[j] + shift @ cell - positions[i] with j, i = edge_index
(replimat.representations.neighbours).
"""

from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np

from replimat.datasets.base import Structures
from replimat.representations.neighbours import crystal_neighbours, molecule_edges


@dataclass(frozen=True)
class CutoffGraph:
    """All pairs closer than `cutoff` (angstrom), in crystals through the periodic boundary."""

    cutoff: float = 5.0

    version: ClassVar[int] = 1  # raise when the arrays change for the same parameters

    def parameters(self) -> dict[str, float]:
        """Everything that decides the arrays, for the key of the prepared file."""
        return asdict(self)

    def __call__(self, structures: Structures, progress: bool = True) -> dict[str, np.ndarray]:
        """Arrays of all structures packed end to end.

        numbers [N] int16; positions [N, 3] float64, angstrom; cells [n, 3, 3] float64; offsets [n + 1] int64;
        edge_index sender, receiver [2, E] int32, local to the structure, sorted by receiver; shift [E, 3] int8
        (crystals only); edge_offsets [n + 1] int64.
        """
        arrays = {
            "numbers": structures.numbers,
            "positions": structures.positions,
            "cells": structures.cells,
            "offsets": structures.offsets,
        }
        if structures.periodic:
            return arrays | self._crystals(structures, progress)
        edge_index, edge_offsets = molecule_edges(structures.positions, structures.offsets, self.cutoff)
        return arrays | {"edge_index": edge_index, "edge_offsets": edge_offsets}

    def _crystals(self, structures: Structures, progress: bool) -> dict[str, np.ndarray]:
        near = list(crystal_neighbours(structures, self.cutoff, progress))
        return {
            "edge_index": np.concatenate([crystal.edge_index.astype(np.int32) for crystal in near], axis=1),
            "shift": np.concatenate([crystal.shift for crystal in near]),
            "edge_offsets": np.cumsum([0, *(len(crystal.distance) for crystal in near)]),
        }
