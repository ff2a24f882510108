"""Moment tensor potential: energy and forces of a crystal, ours against LAMMPS' SNAP.

    python benchmarks/mtp_step.py

108 atoms of copper, displaced by 0.05 angstrom, one thread, per atom and evaluation; the neighbour list is left out of
ours and made once in LAMMPS. SNAP is another potential (2 J = 8, 55 coefficients): it is the yardstick of cost in the
field, not the same computation. No package of MTP is on a public index to compare with.
"""

import torch
from ase.build import bulk
from common import OURS, Missing, keep, rows, seconds
from lammps_engine import snap_engine

from replimat.models.forces import energy_and_forces
from replimat.models.mtp import Mtp
from replimat.models.snap import Snap
from replimat.physics.calculator import ModelCalculator

CUTOFF = 4.1  # angstrom
LEVELS = (8, 16, 20)


def main() -> None:
    torch.set_num_threads(1)
    atoms = bulk("Cu", a=3.615, cubic=True) * (3, 3, 3)
    atoms.rattle(0.05, seed=7)
    results = []
    for level in LEVELS:
        calls = {OURS: ours(level, atoms)} | yardstick(atoms)
        times = {name: 1000 * t / len(atoms) for name, t in seconds(calls, repeats=7).items()}
        results += rows("MTP", f"energy and forces, level {level}", times, "ms/atom")
    keep(results)


def ours(level: int, atoms):
    """A call that gives energy and forces."""
    model = Mtp(CUTOFF, level)
    with torch.no_grad():
        model.coefficients.fill_(1e-6)
    calculator = ModelCalculator(model)
    calculator.atoms = atoms
    given = calculator._inputs(atoms.numbers, atoms.positions, atoms.cell.array)
    return lambda: energy_and_forces(model, given)


def yardstick(atoms) -> dict:
    """A step of LAMMPS with a SNAP, where LAMMPS is here."""
    try:
        engine = snap_engine(Snap(CUTOFF, 8), atoms)
    except Missing as reason:
        print(f"left out: {reason}")
        return {}
    return {"lammps SNAP": lambda: engine.command("run 1 pre no post no")}


if __name__ == "__main__":
    main()
