"""Neighbour lists: who is near whom, through the periodic boundary or without one.

The edge convention of the whole project is written here, once:

    edge_index[0] = sender j,  edge_index[1] = receiver i,  vec = positions[j] + shift @ cell - positions[i]

Crystals go through the routine beneath pymatgen's Structure.get_neighbor_list: of four libraries the fastest on real
crystals (benchmarks/README.md), imported in milliseconds, and right for skewed, left-handed and tiny cells and for
atoms outside the cell (tests compare with brute force, vesin and ase). Putting the edges in a reproducible order costs
more than finding them. Molecules are taken many at a time: comparing all their pairs in numpy is cheaper than a call
for each.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from replimat.datasets.base import Structures
from replimat.errors import DataError

RESOLUTION = 1e-8  # angstrom: distances closer than this are equal; float noise is 1e-15, digits of a CIF 1e-6
SHIFT_LIMIT = 127  # cell images are kept as int8
SMALLEST_CELL = 1e-6  # cubic angstrom: anything flatter is no crystal
PAIRS_AT_ONCE = 1 << 20  # pairs of atoms compared in one numpy step: bounds memory to about 100 MB


class Neighbours(NamedTuple):
    """Directed edges of one structure, sorted by receiver, then distance, then sender, then shift.

    edge_index: sender, receiver [2, E] int64; shift: cell image of the sender [E, 3] int8; distance: angstrom [E]
    float64.
    """

    edge_index: np.ndarray
    shift: np.ndarray
    distance: np.ndarray


def neighbours(positions: np.ndarray, cell: np.ndarray, cutoff: float, periodic: bool = True) -> Neighbours:
    """All ordered pairs closer than `cutoff` (strictly); an atom is a neighbour of its own images, never of itself.

    positions: angstrom [A, 3]; cell: rows are lattice vectors, angstrom [3, 3] (ignored unless periodic).
    Distances that agree to RESOLUTION count as equal, so that the order does not depend on rounding noise.
    Raises DataError for a cell without volume, for positions that are not finite, and for neighbours more than
    SHIFT_LIMIT cells away.
    """
    from pymatgen.optimization.neighbors import find_points_in_spheres

    x = np.ascontiguousarray(positions, dtype=np.float64)
    lattice = np.ascontiguousarray(cell if periodic else np.eye(3), dtype=np.float64)
    if not (np.isfinite(x).all() and np.isfinite(lattice).all() and abs(np.linalg.det(lattice)) > SMALLEST_CELL):
        raise DataError("no neighbour list: the cell has no volume, or a number is not finite.")
    receiver, sender, image, distance = find_points_in_spheres(
        x, x, r=float(cutoff), pbc=np.full(3, periodic, dtype=np.int64), lattice=lattice, tol=RESOLUTION
    )
    if np.abs(image).max(initial=0) > SHIFT_LIMIT:
        raise DataError(
            f"no neighbour list: a neighbour is more than {SHIFT_LIMIT} cells away; wrap the atoms into the cell."
        )
    itself = (sender == receiver) & (distance < RESOLUTION)
    kept = np.flatnonzero((distance < cutoff) & ~itself)  # the routine counts d = cutoff and the atom itself
    edges = Neighbours(np.stack([sender[kept], receiver[kept]]), image[kept].astype(np.int8), distance[kept])
    order = _order(edges)
    return Neighbours(edges.edge_index[:, order], edges.shift[order], edges.distance[order])


def crystal_neighbours(structures: Structures, cutoff: float, progress: bool) -> Iterator[Neighbours]:
    """Neighbours of every crystal in turn, with a bar on standard error if `progress`.

    Raises DataError naming the row of a crystal that has no neighbour list.
    """
    for s in track(range(len(structures)), progress):
        _, positions, cell = structures[s]
        try:
            yield neighbours(positions, cell, cutoff)
        except DataError as error:
            raise DataError(f"Crystal in row {s}: {error}") from error


def molecule_edges(positions: np.ndarray, offsets: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """Edges of many molecules at once: local sender and receiver [2, E] int32, and edge offsets [n + 1].

    positions: angstrom [N, 3], molecules packed end to end by `offsets` [n + 1].
    Edges are sorted by molecule, receiver, sender. Raises DataError for positions that are not finite.
    """
    if not np.isfinite(positions).all():
        raise DataError("Molecules: no neighbour list: some positions are not finite.")
    sizes = np.diff(offsets)
    edges, counts = [np.zeros((2, 0), np.int32)], [np.zeros(1, np.int64)]
    for first, last in _spans(sizes):
        sender, receiver = _near_pairs(positions[offsets[first] : offsets[last]], sizes[first:last], cutoff)  # [P]
        molecule = np.repeat(np.arange(last - first), sizes[first:last])[receiver]  # [P]
        local = np.stack([sender, receiver]) - (offsets[first:last] - offsets[first])[molecule]
        edges.append(local.astype(np.int32))
        counts.append(np.bincount(molecule, minlength=last - first))
    return np.concatenate(edges, axis=1), np.cumsum(np.concatenate(counts))


def _order(edges: Neighbours) -> np.ndarray:
    """Permutation that sorts edges by receiver, distance to RESOLUTION, sender, shift [E].

    Two keys of packed integers instead of six columns: half the time of np.lexsort.
    """
    sender, receiver = edges.edge_index
    image = edges.shift.astype(np.int64) + SHIFT_LIMIT  # 0..254
    minor = ((sender << 8 | image[:, 0]) << 8 | image[:, 1]) << 8 | image[:, 2]
    major = receiver << 36 | np.rint(edges.distance / RESOLUTION).astype(np.int64)  # 36 bits: up to 687 angstrom
    by_minor = np.argsort(minor)
    return by_minor[np.argsort(major[by_minor], kind="stable")]


def track(rows: range, progress: bool) -> Iterable[int]:
    if not progress:
        return rows
    from rich.console import Console
    from rich.progress import track

    return track(rows, description="neighbours", console=Console(stderr=True), transient=True)


def _spans(sizes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Consecutive molecules, [first, last), that together have about PAIRS_AT_ONCE pairs of atoms."""
    bins = np.cumsum(sizes.astype(np.int64) ** 2) // PAIRS_AT_ONCE
    edges = np.concatenate([[0], np.flatnonzero(np.diff(bins)) + 1, [len(sizes)]])
    yield from zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)


def _near_pairs(positions: np.ndarray, sizes: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """Sender and receiver of all pairs of different atoms of one molecule closer than `cutoff` [P] each."""
    partners = np.repeat(sizes, sizes)  # atoms in the molecule of each atom [A]
    first_partner = np.repeat(np.cumsum(sizes) - sizes, sizes)  # [A]
    first_pair = np.cumsum(partners) - partners  # [A]
    receiver = np.repeat(np.arange(len(positions)), partners)
    sender = np.arange(len(receiver)) - np.repeat(first_pair - first_partner, partners)
    square = sum((x[sender] - x[receiver]) ** 2 for x in np.ascontiguousarray(positions.T))
    near = (square < cutoff**2) & (sender != receiver)
    return sender[near], receiver[near]
