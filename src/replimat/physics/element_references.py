"""Crystals and molecules of the elements from which formation energies are counted, as measured.

Most are ASE's reference states (ase.data.reference_states). The others stand here, with three compromises: a molecule
in a box for the gases; for manganese its face-centred phase with antiferromagnetic layers, since the 58 atoms of the
ground state are too dear; crystals as measured, not relaxed, where dispersion holds them together, which PBE lacks.
"""

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.spacegroup import crystal

from replimat.errors import DataError

GASES = {"H": "H2", "N": "N2", "O": "O2", "F": "F2", "Cl": "Cl2"}
BOX = (8.0, 8.5, 9.0)  # angstrom, around a molecule along the last axis
FERROMAGNETIC = {"Fe": 2.3, "Co": 1.7, "Ni": 0.7}  # Bohr magnetons to start from

# space group, a, c or (a, b, c) in angstrom, one site of each orbit
CRYSTALS = {
    "B": (166, (4.908, 4.908, 12.567), [(0.1188, 0.8812, 0.8916), (0.5302, 0.4698, 0.6909)]),  # alpha, 12 atoms
    "C": (194, (2.461, 2.461, 6.708), [(0, 0, 0.25), (1 / 3, 2 / 3, 0.25)]),  # graphite
    "P": (64, (3.3136, 10.478, 4.3763), [(0, 0.1017, 0.0806)]),  # black
    "S": (
        70,
        (10.4646, 12.8660, 24.4860),
        [(0.8554, 0.9526, 0.9516), (0.7844, 0.0301, 0.0763), (0.7069, 0.9795, 0.0040), (0.7862, 0.9073, 0.1290)],
    ),  # alpha, rings of 8
    "Ga": (64, (4.5192, 7.6586, 4.5258), [(0, 0.1539, 0.0810)]),
    "Se": (152, (4.3662, 4.3662, 4.9536), [(0.2254, 0, 1 / 3)]),
    "Br": (64, (6.67, 4.48, 8.72), [(0, 0.135, 0.110)]),
    "Te": (152, (4.4566, 4.4566, 5.9264), [(0.2636, 0, 1 / 3)]),
    "I": (64, (7.136, 4.687, 9.784), [(0, 0.1543, 0.1174)]),
}
DISPERSION = ("C", "P", "S", "Br", "I", "Ne", "Ar", "Kr", "Xe")  # as measured

MANGANESE = (2.565, 3.477)  # a, c in angstrom of its two atoms, as PBE relaxes them
NOTES = {
    "Mn": "face-centred manganese with antiferromagnetic layers, not the ground state of 58 atoms: in RPBE it lies "
    "0.08 eV/atom higher (mp-8634 above mp-35, dataset oc20_bulks), and formation energies come out that much too low "
    "for each manganese atom",
    "O": "PBE binds the O2 molecule too strongly, so that formation energies of oxides come out too high: see the one "
    "with the anion correction",
}


@dataclass(frozen=True)
class Reference:
    """An element at rest: atoms with initial moments; relax: "cell", "atoms" or
    "none"; note: what to know of it."""

    atoms: Atoms
    relax: str
    molecule: bool = False
    note: str = ""


def reference(symbol: str) -> Reference:
    """The crystal or molecule that stands for an element. Raises DataError where none is known."""
    if symbol in GASES:
        return Reference(_molecule(GASES[symbol]), "atoms", True, NOTES.get(symbol, f"a molecule {GASES[symbol]}"))
    if symbol in DISPERSION:
        return Reference(_crystal(symbol), "none", False, "as measured, not relaxed: PBE lacks dispersion")
    return Reference(_crystal(symbol), "cell", False, NOTES.get(symbol, ""))


def _molecule(formula: str) -> Atoms:
    found = molecule(formula, cell=BOX, pbc=True)
    found.center()
    return found  # ASE gives O2 the moments of its triplet, the others none


def _crystal(symbol: str) -> Atoms:
    if symbol == "Mn":
        a, c = MANGANESE
        atoms = Atoms("Mn2", scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5)], cell=(a, a, c), pbc=True)
        atoms.set_initial_magnetic_moments([2.5, -2.5])
        return atoms
    if symbol == "Cr":
        atoms = bulk("Cr", cubic=True)
        atoms.set_initial_magnetic_moments([1.5, -1.5])
        return atoms
    if symbol in CRYSTALS:
        group, (a, b, c), sites = CRYSTALS[symbol]
        cell = (a, b, c, 90, 90, 120 if 143 <= group < 195 else 90)
        setting = 2 if group == 70 else 1  # Fddd: origin at an inversion; the others: the only one, or hexagonal
        return crystal(
            [symbol] * len(sites), sites, spacegroup=group, setting=setting, cellpar=cell, primitive_cell=True
        )
    try:
        atoms = bulk(symbol)
    except ValueError:
        raise DataError(f"{symbol}: no crystal of the element is known here, so no formation energy.") from None
    if symbol in FERROMAGNETIC:
        atoms.set_initial_magnetic_moments(np.full(len(atoms), FERROMAGNETIC[symbol]))
    return atoms
