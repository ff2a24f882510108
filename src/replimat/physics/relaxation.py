"""Relaxation of atoms and cells; the relaxed crystal every other study starts from.

A calculator without stress can be wrapped in ase.calculators.fd.FiniteDifferenceCalculator: stress from energies.
"""

import numpy as np
from ase import Atoms
from ase.constraints import FixSymmetry
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, LBFGS

from replimat.errors import ReplimatError
from replimat.physics.crystals import Crystal
from replimat.physics.found import Found

FEW = 8  # atoms: up to here the full Hessian of BFGS costs nothing and saves calls
LARGEST_STEP = 0.1  # angstrom, or strain of the cell times its atoms: fitted potentials are wild far from their data
LARGEST_CHANGE = 2.0  # of the volume, either way: beyond it the crystal has fallen apart or collapsed


def relax(
    atoms: Atoms,
    fmax: float = 1e-3,
    cell: bool = False,
    max_steps: int = 500,
    symmetric: bool = False,
    hydrostatic: bool = False,
) -> int:
    """Moves atoms, and the cell if `cell`, to the nearest minimum of the energy; returns the number of steps taken.

    fmax: largest force in eV/angstrom; with `cell` also the largest V * stress / N in eV. symmetric: keeps the space
    group, so that noise cannot push a crystal off a saddle; hydrostatic: the cell keeps its shape.
    Raises ReplimatError when it has not converged after `max_steps`, when energy or forces are not finite, and when the
    volume has changed by more than LARGEST_CHANGE.
    """
    name, volume, constraints = atoms.get_chemical_formula(), abs(atoms.cell.volume), list(atoms.constraints)
    if symmetric:
        atoms.set_constraint([*constraints, FixSymmetry(atoms)])
    moved = FrechetCellFilter(atoms, hydrostatic_strain=hydrostatic) if cell else atoms
    optimiser = (BFGS if len(atoms) <= FEW else LBFGS)(moved, logfile=None, maxstep=LARGEST_STEP)
    converged = False
    for done in optimiser.irun(fmax=fmax, steps=max_steps):
        _check_finite(atoms, name)
        if cell and not 1 / LARGEST_CHANGE < abs(atoms.cell.volume) / volume < LARGEST_CHANGE:
            raise ReplimatError(f"{name}: its volume changed more than {LARGEST_CHANGE:g} times on relaxation.")
        converged = bool(done)
    atoms.set_constraint(constraints)
    if not converged:
        raise ReplimatError(f"{name}: not relaxed to {fmax:g} eV/angstrom after {max_steps} steps.")
    return optimiser.nsteps


def relaxed_crystal(calculator, crystal: Crystal, fmax: float = 1e-5) -> Crystal:
    """The crystal with its lattice constants at zero pressure and its space group kept.

    The primitive cell is enough: 3 B V dx/x is the force on ln a, some 30 eV (5 for lithium) times dx/x per atom, so
    that the default leaves an error of 1e-5 angstrom at most.
    """
    atoms = crystal.primitive()
    atoms.calc = calculator
    relax(atoms, fmax, cell=True, symmetric=True)
    return crystal.of_cell(atoms)


def energy_per_atom(calculator, crystal: Crystal) -> float:
    """Energy of the crystal as it is, eV/atom."""
    atoms = crystal.primitive()
    atoms.calc = calculator
    return atoms.get_potential_energy() / len(atoms)


def lattice_constant(calculator, crystal: Crystal, fmax: float = 1e-5) -> Found:
    """lattice_constant [angstrom] at zero pressure, and `lattice_constant_c` where the lattice has one."""
    found = relaxed_crystal(calculator, crystal, fmax)
    values = {"lattice_constant": found.a} | ({} if found.c is None else {"lattice_constant_c": found.c})
    return Found(values, dict.fromkeys(values, "angstrom"), {"energy_per_atom": energy_per_atom(calculator, found)})


def _check_finite(atoms: Atoms, name: str) -> None:
    if not (np.isfinite(atoms.get_potential_energy()) and np.isfinite(atoms.get_forces()).all()):
        raise ReplimatError(f"{name}: energy or forces are not finite.")
