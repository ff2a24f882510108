"""SNAP: energy and forces of one step of molecular dynamics, ours against LAMMPS, on face-centred copper.

    python benchmarks/snap_step.py

Linear SNAP with twojmax 6 and 8 and the quadratic one with 6, cutoff 4.1 angstrom, 108 and 864 atoms, the same
coefficients for both. Ours has ready edges; LAMMPS makes its list once, before the clock starts. Both must give the
same energy and forces first. One thread.
"""

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from common import OURS, Missing, keep, rows, seconds
from lammps_engine import snap_engine

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
        engine = snap_engine(model, atoms)
    except Missing as reason:
        print(f"left out: {reason}")
        return found
    ours, order = energy_and_forces(model, inputs)["forces"].numpy(), np.argsort(_per_atom(engine, "id", len(atoms)))
    theirs = _per_atom(engine, "f", len(atoms))[order]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=SAME * np.abs(theirs).max())
    return found | {"lammps": lambda: engine.command("run 1 pre no post no")}


def _per_atom(engine, name: str, count: int) -> np.ndarray:
    return np.array(engine.numpy.extract_atom(name)[:count])


if __name__ == "__main__":
    main()
