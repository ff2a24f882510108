"""Crystals for the tests of FTCP, and whether two of them are the same."""

import numpy as np

from replimat.datasets.base import Structures
from replimat.representations.ftcp import (
    PROPERTIES,
    cell_of,
    fractional,
)

TABLE = np.random.default_rng(0).random((101, PROPERTIES))
RECOVERED = 1e-5  # of a fractional coordinate and, relative, of a cell: the matrix is in single precision


def perovskite(a: float = 4.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ba, Ti, 3 O."""
    sites = np.array([[0.0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    return np.array([56, 22, 8, 8, 8]), sites * a, a * np.eye(3)


def crystals(n: int, seed: int = 0, most: int = 12) -> Structures:
    """Triclinic crystals of three elements, each element's sites together."""
    rng, made = np.random.default_rng(seed), []
    for _ in range(n):
        elements, sizes = rng.choice(np.arange(1, 90), 3, replace=False), rng.integers(1, most // 3 + 1, 3)
        numbers = np.repeat(elements, sizes)
        cell = cell_of(rng.uniform(4, 9, 3), rng.uniform(70, 110, 3)) @ rotation(rng)
        made.append((numbers, rng.random((len(numbers), 3)) @ cell, cell))
    return Structures.pack(made, periodic=True)


def rotation(rng: np.random.Generator) -> np.ndarray:
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def same(one: Structures, other: Structures) -> bool:
    """Equal sites in order, equal metric tensors, equal fractional coordinates up to lattice vectors."""
    metric = [cells @ cells.swapaxes(1, 2) for cells in (one.cells, other.cells)]
    shift = fractional(one) - fractional(other)
    return (
        np.array_equal(one.numbers, other.numbers)
        and np.array_equal(one.offsets, other.offsets)
        and np.allclose(*metric, rtol=RECOVERED, atol=1e-3)
        and np.abs(shift - np.round(shift)).max() < RECOVERED
    )
