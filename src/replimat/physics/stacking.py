"""Generalised stacking faults: one half of a crystal slides over the other (V. Vitek, Phil. Mag. 18, 773 (1968)).

    gamma(u) = (E(u) - E(0)) / A

Slip systems: fcc (111)<112> from perfect stacking to the intrinsic fault at a/6<112>; bcc (110)<111> and diamond
(111)<110> by a whole lattice vector, diamond between the widely spaced planes (shuffle set). Atoms move along the
normal only, so that the slide stays what it is; two free surfaces take up the opening, and cancel.
"""

import numpy as np
from ase import Atoms
from ase.constraints import FixCartesian
from scipy.interpolate import CubicSpline

from replimat.physics.crystals import Crystal
from replimat.physics.found import Found
from replimat.physics.relaxation import relax, relaxed_crystal
from replimat.physics.surfaces import JOULE_PER_M2, SAME_PLANE, area, planes, slab

PLANES = {"fcc": (1, 1, 1), "bcc": (1, 1, 0), "diamond": (1, 1, 1)}
FINE = 2001  # points at which the curve through the measured ones is searched for its top


def stacking_fault(
    calculator,
    crystal: Crystal,
    points: int = 9,
    thickness: float = 24.0,
    vacuum: float = 15.0,
    fmax: float = 0.005,
) -> Found:
    """unstable_stacking_energy (the highest of the path) and, for fcc, stacking_fault_energy (its end) [mJ/m^2].

    points: along the path with both ends, odd so that the middle is among them; thickness: of the slab, angstrom.
    curves: slip in angstrom and gamma in mJ/m^2, relaxed and unrelaxed.
    Raises ValueError for another lattice than fcc, bcc, diamond.
    """
    if crystal.lattice not in PLANES:
        raise ValueError(f"{crystal.lattice}: no slip system here. Known: {', '.join(PLANES)}.")
    atoms = slab(relaxed_crystal(calculator, crystal), PLANES[crystal.lattice], thickness, vacuum)
    atoms.calc = calculator
    slip, upper = _slip(atoms, crystal.lattice)
    part = np.linspace(0, 1, points)
    pairs = [_energies(atoms, upper, fraction * slip, fmax) for fraction in part]
    unrelaxed, gamma = 1000 * (np.array(pairs) - pairs[0]).T / area(atoms) / JOULE_PER_M2
    # both ends are stationary by symmetry, and so is the curve through the points
    curve = CubicSpline(part, gamma, bc_type="clamped")(np.linspace(0, 1, FINE))
    values = {"unstable_stacking_energy": float(curve.max())}
    if crystal.lattice == "fcc":
        values["stacking_fault_energy"] = float(gamma[-1])
    length = part * float(np.linalg.norm(slip))
    curves = {"slip": length.tolist(), "gamma": gamma.tolist(), "unrelaxed": unrelaxed.tolist(), "atoms": len(atoms)}
    return Found(values, dict.fromkeys(values, "mJ/m^2"), curves)


def _slip(atoms: Atoms, lattice: str) -> tuple[np.ndarray, np.ndarray]:
    """Slip vector (angstrom, in the plane) and the atoms above the fault."""
    heights = planes(atoms)
    gaps = np.diff(heights)
    widest = np.flatnonzero(gaps > gaps.max() - SAME_PLANE)
    middle = widest[len(widest) // 2]
    upper = atoms.positions[:, 2] > (heights[middle] + heights[middle + 1]) / 2
    first, second = atoms.cell.array[:2]
    if lattice != "fcc":  # a/2<111> of bcc and a/2<110> of diamond: the shortest vectors of the plane's lattice
        either = [first, second, first + second, first - second]
        return min(either, key=np.linalg.norm), upper
    third = (first + (second if first @ second > 0 else -second)) / 3  # a/6<112>, up to its sign
    return max((third, -third), key=lambda slip: _clearance(atoms, upper, slip)), upper


def _clearance(atoms: Atoms, upper: np.ndarray, slip: np.ndarray) -> float:
    """Smallest distance across the fault: into a hollow it stays, onto the top of an atom it shrinks."""
    moved = atoms.copy()
    moved.positions[upper] += slip
    return float(moved.get_all_distances(mic=True)[np.ix_(upper, ~upper)].min())


def _energies(atoms: Atoms, upper: np.ndarray, slip: np.ndarray, fmax: float) -> tuple[float, float]:
    """Energy (eV) of the slab with its upper half moved by `slip`: as it is, and relaxed along the normal."""
    moved = atoms.copy()
    moved.calc = atoms.calc
    moved.positions[upper] += slip
    before = moved.get_potential_energy()
    moved.set_constraint(FixCartesian(range(len(moved)), mask=(True, True, False)))
    relax(moved, fmax)
    return float(before), float(moved.get_potential_energy())
