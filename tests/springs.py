"""A calculator simple enough to have an answer on paper: pairs that never change partners."""

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from replimat.representations.neighbours import neighbours


class Springs(Calculator):
    """Pairs closer than `cutoff` at the first call with so many atoms, bound by `pair`: r -> energy, slope."""

    implemented_properties = ("energy", "free_energy", "forces", "stress")

    def __init__(self, pair, cutoff: float):
        super().__init__()
        self.pair, self.cutoff, self.bonds, self.calls = pair, cutoff, {}, 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.calls += 1
        x, cell = self.atoms.positions, self.atoms.cell.array
        if len(x) not in self.bonds:
            near = neighbours(x, cell, self.cutoff)
            self.bonds[len(x)] = (*near.edge_index, near.shift.astype(float))
        j, i, shift = self.bonds[len(x)]
        vec = x[j] + shift @ cell - x[i]  # [E, 3]
        r = np.sqrt((vec**2).sum(axis=1))
        energy, slope = self.pair(r)
        pull = (slope / r)[:, None] * vec  # on i; each pair comes twice
        forces = np.stack([np.bincount(i, pull[:, d], len(x)) for d in range(3)], axis=1)
        energy = 0.5 * energy.sum()
        self.results = {"energy": energy, "free_energy": energy, "forces": forces}
        self.results["stress"] = full_3x3_to_voigt_6_stress(0.5 * pull.T @ vec / self.atoms.get_volume())


def harmonic(k: float, r0: float):
    return lambda r: (0.5 * k * (r - r0) ** 2, k * (r - r0))


def morse(depth: float, width: float, r0: float):
    def pair(r):
        e = np.exp(-width * (r - r0))
        return depth * (e * e - 2 * e), 2 * depth * width * (e - e * e)

    return pair
