"""Between packed structures, pymatgen's and ASE's, and the arrays of files."""

import numpy as np

from replimat.datasets.base import Structures

PACKED = ("numbers", "positions", "cells", "offsets")


def as_pymatgen(structures: Structures) -> list:
    """pymatgen Structures of packed crystals, in order; sites are all full."""
    from pymatgen.core import Lattice, Structure

    crystals = (structures[s] for s in range(len(structures)))
    return [Structure(Lattice(cell), z, x, coords_are_cartesian=True) for z, x, cell in crystals]


def from_pymatgen(crystals: list) -> Structures:
    """Packed crystals of pymatgen Structures without disorder. Raises DataError for an empty list."""
    return Structures.pack(
        [(np.array(one.atomic_numbers), one.cart_coords, one.lattice.matrix) for one in crystals], periodic=True
    )


def as_atoms(structures: Structures) -> list:
    """ASE Atoms of packed structures, in order."""
    from ase import Atoms

    triples = (structures[s] for s in range(len(structures)))
    return [Atoms(z, positions=x, cell=cell, pbc=structures.periodic) for z, x, cell in triples]


def packed(structures: Structures) -> dict[str, np.ndarray]:
    """The arrays that hold packed structures without disorder in a file; `unpacked` reads them."""
    return {name: getattr(structures, name) for name in PACKED}


def unpacked(arrays: dict[str, np.ndarray]) -> Structures:
    """Structures of the arrays of a file; periodic where a cell has a volume."""
    cells = np.asarray(arrays["cells"], dtype=np.float64)
    numbers, positions = np.asarray(arrays["numbers"]), np.asarray(arrays["positions"], dtype=np.float64)
    return Structures(numbers, positions, cells, np.asarray(arrays["offsets"]), periodic=bool(cells.any()))
