"""The graph of ALIGNN: atoms joined to their 12 nearest neighbours in both directions, angles between bonds that meet.

Choudhary & DeCost, npj Comput. Mater. 7, 185 (2021). Each atom takes its 12 nearest neighbours and every further one
at the distance of the twelfth, so that no shell is broken. A bond found from one end counts from both, hence atoms
may have more bonds than neighbours. How often it counts is `canonise`:

    True   once, as for the models of the paper; but a bond of an atom to its own image counts twice (the author's set
           of bonds knows that bond under both its directions), so that a small cell and its supercell differ
    False  once for each end it is found from, as for the force field ALIGNN-FF

Where the author's code starts to search (8 angstrom, 5 for QM9) decides nothing: when an atom has too few neighbours
the radius grows until there are 12, even images far away. A molecule here has no images: its atoms take what there
is. Distances equal to 1e-8 angstrom are one shell; the author's code compares raw floating-point numbers, so that
rounding noise can break a shell there.

The line graph itself has about 200 entries per atom and follows from the bonds alone, so it is not kept in prepared
files: each batch makes its own (replimat.training.graphs.line_edges), for a few per cent of the time of a step.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np

from replimat.datasets.base import Structures
from replimat.errors import DataError
from replimat.representations.neighbours import RESOLUTION, SHIFT_LIMIT, Neighbours, neighbours, track

FIRST_RADIUS = 5.0  # angstrom: where the search starts; most atoms of a crystal have 12 neighbours within
GROWTH = 1.5  # of the radius while an atom has too few


@dataclass(frozen=True)
class LineGraph:
    """Nearest-neighbour graph in both directions. neighbours: that each atom takes; canonise: see above."""

    neighbours: int = 12
    canonise: bool = True

    version: ClassVar[int] = 1  # raise when the arrays change for the same parameters

    def parameters(self) -> dict[str, int | bool]:
        """Everything that decides the arrays, for the key of the prepared file."""
        return asdict(self)

    def __call__(self, structures: Structures, progress: bool = True) -> dict[str, np.ndarray]:
        """Arrays of all structures packed end to end, as those of CutoffGraph.

        numbers [N] int16; positions [N, 3] float64, angstrom; cells [n, 3, 3] float64; offsets [n + 1] int64;
        edge_index sender, receiver [2, E] int32, local to the structure, sorted by receiver; shift [E, 3] int8
        (crystals only); edge_offsets [n + 1] int64.
        Raises DataError naming the row of a structure that has no neighbour list.
        """
        bonds = list(self._bonds(structures, progress))
        arrays = {
            "numbers": structures.numbers,
            "positions": structures.positions,
            "cells": structures.cells,
            "offsets": structures.offsets,
            "edge_index": np.concatenate([edge_index.astype(np.int32) for edge_index, _ in bonds], axis=1),
            "edge_offsets": np.cumsum([0, *(len(shift) for _, shift in bonds)]),
        }
        return arrays | ({"shift": np.concatenate([shift for _, shift in bonds])} if structures.periodic else {})

    def _bonds(self, structures: Structures, progress: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Sender and receiver [2, E] with the sender's cell image [E, 3] int8, structure by structure."""
        for s in track(range(len(structures)), progress):
            _, positions, cell = structures[s]
            try:
                near = self._nearest(positions, cell, structures.periodic)
            except DataError as error:
                raise DataError(f"Structure in row {s}: {error}") from error
            yield self._both_ways(near)

    def _nearest(self, positions: np.ndarray, cell: np.ndarray, periodic: bool) -> Neighbours:
        """Edges from the nearest neighbours of each atom, the shell of the last one whole."""
        wanted = self.neighbours if periodic else min(self.neighbours, len(positions) - 1)
        radius = FIRST_RADIUS
        while True:
            near = neighbours(positions, cell, radius, periodic)
            degree = np.bincount(near.edge_index[1], minlength=len(positions))
            if degree.min() >= wanted:
                break
            radius *= GROWTH
        if wanted == 0:
            return near
        last = np.cumsum(degree) - degree + wanted - 1  # the twelfth of each atom: edges are sorted by distance
        kept = near.distance <= np.repeat(near.distance[last], degree) + RESOLUTION
        return Neighbours(near.edge_index[:, kept], near.shift[kept], near.distance[kept])

    def _both_ways(self, near: Neighbours) -> tuple[np.ndarray, np.ndarray]:
        """Edges and their reverses, sorted by receiver, sender, image."""
        edge_index = np.concatenate([near.edge_index, near.edge_index[::-1]], axis=1)
        shift = np.concatenate([near.shift, -near.shift])
        sender, receiver = edge_index
        image = shift.astype(np.int64) + SHIFT_LIMIT  # 0..254
        key = (((receiver << 16 | sender) << 8 | image[:, 0]) << 8 | image[:, 1]) << 8 | image[:, 2]
        if not self.canonise:
            order = np.argsort(key, kind="stable")
        else:
            _, order = np.unique(key, return_index=True)
            order = np.repeat(order, np.where(sender == receiver, 2, 1)[order])
        return edge_index[:, order], shift[order]
