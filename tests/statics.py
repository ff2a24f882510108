"""Potentials with known answers, for the tests of statics: springs, a fluid, copper and silicon."""

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.tersoff import Tersoff, TersoffParameters
from ase.neighborlist import neighbor_list
from ase.stress import full_3x3_to_voigt_6_stress

from replimat.physics.crystals import Crystal
from replimat.physics.relaxation import relaxed_crystal

BOND, SPRING, LENGTH = 0.5, 3.0, 2.5  # of Springs: eV, eV/angstrom^2, angstrom
COPPER = Crystal("Cu", "fcc", 3.60)
# Tersoff's silicon, J. Tersoff, Phys. Rev. B 38, 9902 (1988): parameters, and what he finds with them
SILICON = TersoffParameters(
    m=3.0, gamma=1.0, lambda3=0.0, c=100390.0, d=16.217, h=-0.59825, n=0.78734, beta=1.1e-6,
    lambda2=1.73222, B=471.18, R=2.85, D=0.15, lambda1=2.4799, A=1830.8,
)  # fmt: skip


class Springs(Calculator):
    """-BOND + SPRING / 2 (r - LENGTH)^2 for every pair nearer than 1.1 LENGTH, and nothing beyond."""

    implemented_properties = ("energy", "free_energy", "forces", "stress")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        i, d, vectors = neighbor_list("idD", self.atoms, 1.1 * LENGTH)
        energy = float((-BOND + SPRING / 2 * (d - LENGTH) ** 2).sum() / 2)
        pull = (SPRING * (d - LENGTH) / d)[:, None] * vectors
        forces = np.zeros((len(self.atoms), 3))
        np.add.at(forces, i, pull)
        stress = full_3x3_to_voigt_6_stress(vectors.T @ pull / 2 / self.atoms.get_volume())
        self.results = {"energy": energy, "free_energy": energy, "forces": forces, "stress": stress}


class Fluid(Calculator):
    """An energy per atom that depends on the volume per atom alone."""

    implemented_properties = ("energy",)

    def __init__(self, law):
        super().__init__()
        self.law = law

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": len(self.atoms) * self.law(self.atoms.get_volume() / len(self.atoms))}


def tersoff():
    return Tersoff({("Si", "Si", "Si"): SILICON})


def copper():
    return relaxed_crystal(EMT(), COPPER)
