"""Behler-Parrinello potential: one step of dynamics, ours, and its symmetry functions against dscribe's.

    python benchmarks/nnp_step.py

Body-centred Mo, 54 shaken atoms, the functions of the released Mo potential (15 radial, 24 angular, 5.2 angstrom), one
thread. Ours has ready edges; dscribe finds its neighbours itself, a small part. dscribe has derivatives by numeric
differences alone, which are no rival; so energy, forces and virial are ours only. The functions are compared first.
"""

import numpy as np
import torch
from ase.build import bulk
from ase.units import Bohr
from common import OURS, Missing, keep, peer, rows, seconds

from replimat.models.forces import energy_forces_virial
from replimat.models.nnp import Nnp
from replimat.physics.calculator import ModelCalculator

CUTOFF = 9.8265759 * Bohr
RADIAL = [(eta / Bohr**2, shift) for eta in (0.01, 0.02, 0.05) for shift in (0.0, 1.0, 2.0, 3.0, 4.0)]
ANGULAR = [(eta / Bohr**2, lam, zeta) for eta in (0.01, 0.02, 0.05) for zeta in (1, 2, 4, 16) for lam in (-1, 1)]


def main() -> None:
    torch.set_num_threads(1)
    atoms = bulk("Mo", cubic=True) * (3, 3, 3)
    atoms.rattle(0.05, seed=0)
    model = Nnp(CUTOFF, RADIAL, ANGULAR, (16, 16)).eval()
    calculator = ModelCalculator(model)
    calculator.atoms = atoms
    inputs = calculator._inputs(atoms.numbers, atoms.positions, atoms.cell.array)

    def functions():
        near = model.near(inputs["z"], inputs["pos"], inputs["edge_index"], inputs["offset"])
        return model.functions(*near, len(atoms))

    alone = {OURS: lambda: torch.no_grad()(functions)()}
    whole = {OURS: lambda: energy_forces_virial(model, inputs)}
    try:
        theirs = _dscribe()
        np.testing.assert_allclose(theirs.create(atoms)[:, 1:], functions().detach().numpy(), rtol=1e-8, atol=1e-10)
        alone["dscribe"] = lambda: theirs.create(atoms)
    except Missing as reason:
        print(f"left out: {reason}")
    per_atom = {name: t / len(atoms) for name, t in seconds(alone, 10).items()}
    moved = {name: t / len(atoms) for name, t in seconds(whole, 10).items()}
    results = rows("NNP", "functions, bcc Mo", _milliseconds(per_atom), "ms/atom")
    keep(results + rows("NNP", "energy, forces, virial, bcc Mo", _milliseconds(moved), "ms/atom"))


def _dscribe():
    return peer("dscribe.descriptors").ACSF(
        r_cut=CUTOFF,
        species=["Mo"],
        g2_params=[list(one) for one in RADIAL],
        g4_params=[[eta, zeta, lam] for eta, lam, zeta in ANGULAR],
        periodic=True,
    )


def _milliseconds(times: dict[str, float]) -> dict[str, float]:
    return {name: 1000 * t for name, t in times.items()}


if __name__ == "__main__":
    main()
