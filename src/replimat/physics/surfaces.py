"""Surfaces: slabs of a crystal with an open plane on either side, and what the plane costs.

    gamma = (E_slab - N e_bulk) / 2A

The crystal is cut where its atomic planes are farthest apart: for (111) of diamond through the single bonds, not
through the double layer (three broken bonds), elsewhere without a choice. Surfaces keep the crystal's period in the
plane: no reconstruction (2x1 of silicon) can form unless `repeats` leaves room for it, and only if it lies downhill.
"""

from math import gcd

import numpy as np
from ase import Atoms, units
from ase.build import surface

from replimat.physics.crystals import Crystal
from replimat.physics.found import Found
from replimat.physics.relaxation import energy_per_atom, relax, relaxed_crystal

LOW_INDEX = ((1, 0, 0), (1, 1, 0), (1, 1, 1))
SAME_PLANE = 1e-3  # angstrom
JOULE_PER_M2 = units.kJ / 1000 / units.m**2  # in eV/angstrom^2


def slab(
    crystal: Crystal, indices: tuple[int, int, int], thickness: float, vacuum: float, cut: str = "widest"
) -> Atoms:
    """Slab of a cubic crystal in its smallest cell in the plane, the normal along z, `vacuum` angstrom between images.

    indices: of the cubic axes; thickness: angstrom, at least, in whole planes of the primitive lattice; cut: between
    the planes that are farthest apart ("widest") or nearest ("narrowest").
    """
    if not crystal.cubic:
        raise ValueError(f"{crystal.lattice}: slabs are for cubic crystals only.")
    cell, miller = crystal.primitive(), _primitive_indices(crystal, indices)
    spacing = surface(cell, miller, layers=1, periodic=True).cell[2, 2]
    layers = max(2, int(np.ceil(thickness / spacing - 1e-9)))
    block = _cut(surface(cell, miller, layers + 2, periodic=True), cut)
    height = np.ptp(block.positions[:, 2])
    block.set_cell([block.cell[0], block.cell[1], (0.0, 0.0, height + vacuum)])
    block.center(axis=2)
    block.pbc = True
    return block


def surfaces(
    calculator,
    crystal: Crystal,
    indices: tuple[tuple[int, int, int], ...] = LOW_INDEX,
    thickness: float = 20.0,
    vacuum: float = 15.0,
    fmax: float = 0.005,
    repeats: tuple[int, int] = (1, 1),
) -> Found:
    """surface_energy_<hkl> and surface_energy_<hkl>_unrelaxed [J/m^2] of a cubic crystal at zero pressure.

    thickness, vacuum: angstrom; beyond twice the potential's reach the unrelaxed value no longer depends on thickness,
    and beyond once the reach none depends on vacuum. curves: atoms of each slab.
    """
    bulk = relaxed_crystal(calculator, crystal)
    reference, values, atoms = energy_per_atom(calculator, bulk), {}, {}
    for hkl in indices:
        one = slab(bulk, hkl, thickness, vacuum).repeat((*repeats, 1))
        one.calc = calculator
        name = "surface_energy_" + "".join(map(str, hkl))
        values[f"{name}_unrelaxed"] = _gamma(one, reference)
        relax(one, fmax)
        values[name], atoms[name] = _gamma(one, reference), len(one)
    return Found(values, dict.fromkeys(values, "J/m^2"), {"atoms": atoms})


def area(atoms: Atoms) -> float:
    """Of the plane of the first two lattice vectors, square angstrom."""
    return float(np.linalg.norm(np.cross(atoms.cell[0], atoms.cell[1])))


def planes(atoms: Atoms) -> np.ndarray:
    """Heights of the atomic planes along z, ascending, angstrom."""
    heights = np.sort(atoms.positions[:, 2])
    return heights[np.concatenate([[True], np.diff(heights) > SAME_PLANE])]


def _gamma(atoms: Atoms, reference: float) -> float:
    return float((atoms.get_potential_energy() - len(atoms) * reference) / (2 * area(atoms)) / JOULE_PER_M2)


def _primitive_indices(crystal: Crystal, indices: tuple[int, int, int]) -> tuple[int, int, int]:
    """Miller indices of the same plane with respect to the primitive vectors p_i: proportional to p_i . (h, k, l)."""
    halves = np.rint(2 * crystal.primitive().cell.array @ np.array(indices, float) / crystal.a).astype(int)
    return tuple(int(h) // gcd(*halves.tolist()) for h in halves)


def _cut(block: Atoms, cut: str) -> Atoms:
    """What lies between the first and the last of the wanted gaps."""
    heights = planes(block)
    gaps = np.diff(heights)
    wanted = np.flatnonzero(np.abs(gaps - (gaps.max() if cut == "widest" else gaps.min())) < SAME_PLANE)
    lowest, highest = heights[wanted[0] + 1], heights[wanted[-1]]
    z = block.positions[:, 2]
    return block[(z > lowest - SAME_PLANE) & (z < highest + SAME_PLANE)]
