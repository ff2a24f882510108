"""Crystals without any learning: what a generator must do better than."""

import numpy as np

from replimat.datasets.base import Structures

ANGLES = (60.0, 120.0)  # degree, of the random cells
LENGTHS = (0.7, 1.4)  # ratio of an edge to the others before the volume is set


def random_crystals(like: Structures, n: int, seed: int) -> Structures:
    """n crystals whose atoms, cells and positions are drawn one by one from the marginals of `like`.

    The numbers of atoms and of elements are those of some crystal there, the volume per atom that of another; elements
    are drawn by how often they occur, each stands at least once, the other atoms are any of them. Edges and angles are
    uniform within LENGTHS and ANGLES, positions uniform in the cell.
    """
    rng = np.random.default_rng(seed)
    volumes = np.abs(np.linalg.det(like.cells)) / like.sizes  # angstrom^3 an atom
    distinct = np.array([len(np.unique(like[s][0])) for s in range(len(like))])
    elements, counts = np.unique(like.numbers, return_counts=True)
    made = []
    for _ in range(n):
        model = rng.integers(len(like))
        atoms, kinds = int(like.sizes[model]), int(distinct[model])
        chosen = rng.choice(elements, kinds, replace=False, p=counts / counts.sum())
        numbers = np.concatenate([chosen, rng.choice(chosen, atoms - kinds)])
        cell = random_cell(rng, float(rng.choice(volumes)) * atoms)
        made.append((numbers, rng.random((atoms, 3)) @ cell, cell))
    return Structures.pack(made, periodic=True)


def random_cell(rng: np.random.Generator, volume: float) -> np.ndarray:
    """A cell [3, 3] of the given volume in angstrom^3; flat ones are drawn again."""
    while True:
        cosines = np.cos(np.radians(rng.uniform(*ANGLES, 3)))
        metric = np.array([[1, cosines[2], cosines[1]], [cosines[2], 1, cosines[0]], [cosines[1], cosines[0], 1]])
        if np.linalg.det(metric) > 0.1:
            break
    cell = rng.uniform(*LENGTHS, 3)[:, None] * np.linalg.cholesky(metric)
    return cell * (volume / abs(np.linalg.det(cell))) ** (1 / 3)
