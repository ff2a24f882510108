"""GAP: energy and forces of copper per atom, ours against QUIP's, with one and the same potential.

    python benchmarks/gap_step.py [--gap-fit PATH]

QUIP's gap_fit makes the potential out of rattled crystals labelled with ase's EMT; its sparse points and weights are
put into ours, and the answers are compared before anything is timed. Settings are the released copper's (cutoff 4.1
angstrom, 8 radial functions, l to 8) with 500 sparse points. Both times have the neighbour list in them; one thread.
"""

import argparse
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write
from common import OURS, Missing, keep, peer, rows, seconds

from replimat.models.gap import Gap
from replimat.physics.calculator import ModelCalculator

SPARSE, FRAMES = 500, 30  # FRAMES of 32 atoms to fit to
CASES = {"fcc Cu, 108 atoms": 3, "fcc Cu, 500 atoms": 5}  # cubic cells along each edge
SOAP = "soap l_max=8 n_max=8 atom_sigma=0.5 zeta=4 cutoff=4.1 cutoff_transition_width=0.5 delta=1.0 f0=0.0"
SAME = 1e-7  # eV/angstrom: double precision, with weights in the hundreds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gap-fit", default=shutil.which("gap_fit"), help="the program, where not on the path")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        if not options.gap_fit:
            raise Missing("gap_fit: not on the path")
        quippy = peer("quippy.potential")
    except Missing as reason:
        print(f"left out: {reason}")
        return
    with tempfile.TemporaryDirectory() as folder:
        ours, xml = fitted(options.gap_fit, Path(folder))
        theirs = quippy.Potential(param_filename=str(xml))
    results = []
    for case, cells in CASES.items():
        atoms = rattled(cells, seed=1)
        calls = {OURS: step(ModelCalculator(ours), atoms), "quippy-ase": step(theirs, atoms)}
        np.testing.assert_allclose(calls[OURS](), calls["quippy-ase"](), atol=SAME)
        times = {name: 1000 * t / len(atoms) for name, t in seconds(calls, repeats=5).items()}
        results += rows("GAP", f"energy and forces, {case}", times, "ms/atom")
    keep(results)


def rattled(cells: int, seed: int):
    atoms = bulk("Cu", "fcc", a=3.62, cubic=True) * (cells, cells, cells)
    atoms.rattle(0.1, seed=seed)
    return atoms


def step(calculator, atoms):
    """Forces after a small move, so that nothing is answered from memory."""
    rng, moving = np.random.default_rng(0), atoms.copy()
    moving.calc = calculator

    def forces():
        moving.positions = atoms.positions
        moving.positions += 1e-9 * rng.standard_normal(3)
        return moving.get_forces()

    return forces


def fitted(gap_fit: str, folder: Path) -> tuple[Gap, Path]:
    """gap_fit's potential as ours, and its file."""
    frames = [rattled(2, seed) for seed in range(FRAMES)]
    for atoms in frames:
        atoms.calc = EMT()
        atoms.info["dft_energy"], atoms.arrays["dft_force"] = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = None
    write(folder / "train.xyz", frames, format="extxyz")
    words = [
        "at_file=train.xyz",
        f"gap={{{SOAP} n_sparse={SPARSE} covariance_type=dot_product sparse_method=cur_points}}",
        "sparse_jitter=1e-8",
        "default_sigma={0.01 0.05 0.01 1}",
        "e0=0.0",
        "energy_parameter_name=dft_energy",
        "force_parameter_name=dft_force",
        "gp_file=gap.xml",
    ]
    subprocess.run([gap_fit, *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (points,) = folder.glob("gap.xml.sparseX*")
    weights = re.findall(r'<sparseX [^>]*alpha="([^"]+)"', (folder / "gap.xml").read_text())
    model = Gap(29, 4.1, len(weights))
    with torch.no_grad():
        model.sparse.copy_(torch.from_numpy(np.loadtxt(points).reshape(len(weights), -1)[:, :-1]))
        model.coefficients.copy_(torch.tensor([float(weight) for weight in weights], dtype=torch.float64))
    return model, folder / "gap.xml"


if __name__ == "__main__":
    main()
