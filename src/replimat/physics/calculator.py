"""A model as an ASE calculator, so that everything in physics/, and anything else built on ASE, runs on it."""

import numpy as np
import torch
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from replimat.models.forces import energy_forces_virial
from replimat.representations.neighbours import neighbours
from replimat.training.scaling import FittedScaling, element_counts, standardised


class ModelCalculator(Calculator):
    """Energy (eV), forces (eV/angstrom) and stress (eV/angstrom^3, Voigt order xx, yy, zz, yz, xz, xy) of a potential.

    model: energies [B] from z, pos, edge_index, offset, batch, n_graphs, with `cutoff` in angstrom; it is called in the
    precision of its weights. scaling: from its output to eV.
    """

    implemented_properties = ("energy", "free_energy", "forces", "stress")

    def __init__(self, model: torch.nn.Module, scaling: FittedScaling | None = None):
        super().__init__()
        self.model, self.scaling = model.eval(), scaling or standardised(0.0, 1.0)
        self.dtype = next(iter([*model.parameters(), *model.buffers()])).dtype
        self.calls = 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.calls += 1
        numbers, cell = self.atoms.numbers, self.atoms.cell.array
        found = energy_forces_virial(self.model, self._inputs(numbers, self.atoms.positions, cell))
        counts = element_counts(numbers, np.array([0, len(numbers)]))
        energy = float(self.scaling.inverse(found["energy"].numpy(), counts)[0])
        self.results = {"energy": energy, "free_energy": energy}
        self.results["forces"] = found["forces"].double().numpy() * self.scaling.scale
        if self.atoms.pbc.all():
            stress = found["virial"][0].double().numpy() * self.scaling.scale / self.atoms.get_volume()
            self.results["stress"] = full_3x3_to_voigt_6_stress(stress)

    def _inputs(self, numbers, positions, cell) -> dict:
        periodic = bool(self.atoms.pbc.any())
        box, positions = self._box(cell, positions) if periodic else (cell, positions)
        near = neighbours(positions, box, self.model.cutoff, periodic)
        inputs = {
            "z": torch.from_numpy(numbers.astype(np.int64)),
            "pos": torch.from_numpy(positions).to(self.dtype),
            "edge_index": torch.from_numpy(near.edge_index),
            "batch": torch.zeros(len(numbers), dtype=torch.long),
            "n_graphs": 1,
        }
        if periodic:
            inputs["offset"] = torch.from_numpy(near.shift.astype(np.float64) @ box).to(self.dtype)
        return inputs

    def _box(self, cell, positions):
        """The cell, made so long along directions without periodicity that no image is in reach, and atoms in it."""
        if self.atoms.pbc.all():
            return cell, self.atoms.get_positions(wrap=True)
        filled = self.atoms.copy()
        filled.center(vacuum=self.model.cutoff + 1.0, axis=np.flatnonzero(~self.atoms.pbc))
        filled.pbc = True
        return filled.cell.array, filled.get_positions(wrap=True)
