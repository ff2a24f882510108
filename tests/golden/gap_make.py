"""Makes the golden file of GAP: a potential fitted by QUIP's own gap_fit. Run by hand, never by the tests.

    python tests/golden/gap_make.py --gap-fit PATH_OF_gap_fit

Needs quippy-ase (with its gap_fit) and ase. Rattled copper crystals of 8 atoms, labelled with ase's EMT (any smooth
potential would do), are fitted with the settings of the released potentials and few sparse points.

gap_quip.npz: the frames (positions, cells, energies, forces; the last TEST of them held out), QUIP's descriptors of the
first frame, the sparse points it chose, its weights and what its potential answers on the frames held out.
"""

import argparse
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write
from quippy.descriptors import Descriptor
from quippy.potential import Potential

HERE = Path(__file__).parent
FRAMES, TEST, SPARSE = 18, 4, 25
SOAP = "soap l_max=8 n_max=8 atom_sigma=0.5 zeta=4 cutoff=4.1 cutoff_transition_width=0.5 delta=1.0 f0=0.0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gap-fit", required=True)
    options = parser.parse_args()
    frames = labelled_frames()
    with tempfile.TemporaryDirectory() as folder:
        sparse, weights, potential = fitted(options.gap_fit, frames[:-TEST], Path(folder))
        answers = [answer(potential, atoms) for atoms in frames[-TEST:]]
    np.savez_compressed(
        HERE / "gap_quip.npz",
        positions=np.stack([atoms.positions for atoms in frames]),
        cells=np.stack([atoms.cell.array for atoms in frames]),
        energies=np.array([atoms.info["dft_energy"] for atoms in frames]),
        forces=np.stack([atoms.arrays["dft_force"] for atoms in frames]),
        descriptors=Descriptor(SOAP).calc_descriptor(frames[0])[:, :-1],
        sparse=sparse,
        weights=weights,
        test_energies=np.array([energy for energy, _ in answers]),
        test_forces=np.stack([forces for _, forces in answers]),
    )


def labelled_frames() -> list:
    rng = np.random.default_rng(7)
    frames = []
    for _ in range(FRAMES):
        atoms = bulk("Cu", "fcc", a=3.62, cubic=True) * (2, 1, 1)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.uniform(-0.05, 0.05, (3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(0, 0.12, (len(atoms), 3))
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = None
        atoms.info["dft_energy"], atoms.arrays["dft_force"] = energy, forces
        frames.append(atoms)
    return frames


def fitted(gap_fit: str, frames: list, folder: Path) -> tuple[np.ndarray, np.ndarray, Potential]:
    """Sparse points [M, F], weights [M] and the potential."""
    write(folder / "train.xyz", frames, format="extxyz")
    options = [
        "at_file=train.xyz",
        f"gap={{{SOAP} n_sparse={SPARSE} covariance_type=dot_product sparse_method=cur_points}}",
        "sparse_jitter=1e-8 e0=-0.65 e0_offset=0.0".split(),
        "default_sigma={0.01 0.05 0.01 1}",
        "energy_parameter_name=dft_energy force_parameter_name=dft_force gp_file=gap.xml".split(),
    ]
    flat = [word for option in options for word in ([option] if isinstance(option, str) else option)]
    subprocess.run([gap_fit, *flat], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (points,) = folder.glob("gap.xml.sparseX*")
    sparse = np.loadtxt(points).reshape(SPARSE, -1)[:, :-1]  # the last feature is a constant, here zero
    text = (folder / "gap.xml").read_text()
    weights = np.array([float(value) for value in re.findall(r'<sparseX [^>]*alpha="([^"]+)"', text)])
    return sparse, weights, Potential(param_filename=str(folder / "gap.xml"))


def answer(potential: Potential, atoms) -> tuple[float, np.ndarray]:
    copy = atoms.copy()
    copy.calc = potential
    return copy.get_potential_energy(), copy.get_forces()


if __name__ == "__main__":
    main()
