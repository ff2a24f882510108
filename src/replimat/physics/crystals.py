"""Crystals of one element: a lattice by name, and the cells that a study needs of it."""

from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms
from ase.build import bulk, make_supercell

CUBIC = ("sc", "fcc", "bcc", "diamond")
AXIAL = {"hcp": np.sqrt(8 / 3), "beta-tin": 0.5456}  # ideal spheres; tin (and near it silicon, germanium) as measured
NEAREST = {"sc": 1.0, "fcc": np.sqrt(1 / 2), "bcc": np.sqrt(3) / 2, "diamond": np.sqrt(3) / 4}  # in units of a
BETA_TIN_BASIS = ((0.0, 0.0, 0.0), (0.25, 0.75, 0.5))  # in units of BETA_TIN_CELL's rows
BETA_TIN_CELL = np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]) / 2  # body-centred tetragonal, in units of (a, a, c)


@dataclass(frozen=True)
class Crystal:
    """symbol: an element; lattice: one of CUBIC or AXIAL; a, c: lattice constants in angstrom (c of AXIAL alone).

    Cubic axes are the Cartesian ones. Raises ValueError for a lattice without a name here, and for a missing or
    superfluous c: AXIAL has the c/a to start from.
    """

    symbol: str
    lattice: str
    a: float
    c: float | None = None

    def __post_init__(self):
        if self.lattice not in (*CUBIC, *AXIAL):
            raise ValueError(f"Unknown lattice {self.lattice!r}. Known: {', '.join((*CUBIC, *AXIAL))}.")
        if (self.c is None) == (self.lattice in AXIAL):
            raise ValueError(f"{self.lattice}: c is {'needed' if self.c is None else 'not free'}.")

    @property
    def cubic(self) -> bool:
        return self.lattice in CUBIC

    @property
    def nearest(self) -> float:
        """Distance of nearest neighbours of a cubic crystal, angstrom."""
        return self.a * float(NEAREST[self.lattice])

    def primitive(self) -> Atoms:
        """1 atom (sc, fcc, bcc) or 2 (diamond, hcp, beta-tin)."""
        if self.lattice == "beta-tin":
            cell = BETA_TIN_CELL * (self.a, self.a, self.c)
            return Atoms([self.symbol] * 2, scaled_positions=BETA_TIN_BASIS, cell=cell, pbc=True)
        return bulk(self.symbol, self.lattice, a=self.a, c=self.c)

    def conventional(self) -> Atoms:
        """The cube of a cubic crystal: 1 (sc), 2 (bcc), 4 (fcc) or 8 (diamond) atoms; the primitive cell of AXIAL."""
        return bulk(self.symbol, self.lattice, a=self.a, cubic=True) if self.cubic else self.primitive()

    def supercell(self, repeats: int | tuple[int, int, int]) -> Atoms:
        """`repeats` conventional cells along each axis."""
        along = np.broadcast_to(repeats, 3)
        return make_supercell(self.conventional(), np.diag(along))

    def of_cell(self, primitive: Atoms) -> "Crystal":
        """The same lattice with the lattice constants of a primitive cell (made by `primitive`, then strained)."""
        cell, volume = primitive.cell.array, primitive.get_volume() / len(primitive)
        if self.lattice == "hcp":
            return replace(self, a=float(np.linalg.norm(cell[0])), c=float(np.linalg.norm(cell[2])))
        if self.lattice == "beta-tin":
            c = float(np.linalg.norm(cell[0] + cell[1]))
            return replace(self, a=float(np.sqrt(4 * volume / c)), c=c)
        return replace(self, a=float(np.cbrt(volume * len(self.conventional()))))


def of_volume(symbol: str, lattice: str, volume: float) -> Crystal:
    """A crystal of that volume per atom (cubic angstrom), with the c/a of AXIAL where there is a choice."""
    axial = AXIAL.get(lattice)
    unit = Crystal(symbol, lattice, 1.0, axial).primitive()
    a = float(np.cbrt(volume * len(unit) / unit.get_volume()))
    return Crystal(symbol, lattice, a, None if axial is None else axial * a)
