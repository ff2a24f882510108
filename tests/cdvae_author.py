"""What CDVAE's own code says of some crystals (golden/cdvae_make.py)."""

from functools import cache
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from replimat.datasets.base import Structures

ODD = 68  # made crystals from here on were made by hand


@cache
def author() -> dict[str, np.ndarray]:
    return load_file(Path(__file__).parent / "golden" / "cdvae_author.safetensors")


def crystals(name: str) -> Structures:
    """The "true" or the "made" ones."""
    parts = (author()[f"{name}_{part}"] for part in ("numbers", "positions", "cells", "offsets"))
    return Structures(*parts, periodic=True)


def one(symbols: str, positions, cell) -> Structures:
    """A crystal of elements written one after another with spaces."""
    from ase.data import atomic_numbers

    numbers = np.array([atomic_numbers[symbol] for symbol in symbols.split()], dtype=np.int16)
    return Structures.pack([(numbers, np.asarray(positions, dtype=float).reshape(-1, 3), np.asarray(cell))], True)


def joined(*parts: Structures) -> Structures:
    return Structures.pack([part[s] for part in parts for s in range(len(part))], periodic=True)


ROCK_SALT = np.array(
    [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0], [0.5, 0.5, 0.5], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]
)


def rock_salt(symbols: str = "Na Na Na Na Cl Cl Cl Cl", edge: float = 5.64) -> Structures:
    return one(symbols, ROCK_SALT * edge, edge * np.eye(3))
