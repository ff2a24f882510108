"""mlearn: DFT energies and forces of Ni, Cu, Li, Mo, Si and Ge for interatomic potentials.

Y. Zuo et al., J. Phys. Chem. A 124, 731 (2020), doi:10.1021/acs.jpca.9b08723: frames of ab-initio dynamics, vacancies,
strained cells and surfaces (PBE). The file lists training frames, validation frames and test frames; its validation
frames are the test frames once more, so each stands here once, as a test frame. Frames that the authors repeat among
the training frames are kept: repetition is a weight.
"""

import json
from pathlib import Path

import numpy as np

from replimat.cards import DatasetCard
from replimat.datasets.base import Dataset, Structures
from replimat.errors import DataError

SPLIT = "published"
TRAIN, TEST = 0, 2


def read(folder: Path, card: DatasetCard) -> Dataset:
    """The frames of one element: `energy_per_atom` in eV/atom [n], `forces` in eV/angstrom [N, 3], and the split."""
    path = folder / card.source.members[0].save_as
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        n_test = _repeated(listed)
        frames = listed[: len(listed) - n_test]
        structures = Structures.pack([_structure(frame["atoms"]) for frame in frames], periodic=True)
        energy = np.array([frame["total_energy"] for frame in frames], dtype=np.float64)
        forces = np.concatenate([np.array(frame["forces"], dtype=np.float64) for frame in frames])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not the expected list of frames ({error}).") from error
    part = np.full(len(frames), TRAIN, dtype=np.int8)
    part[len(frames) - n_test :] = TEST
    return Dataset(
        name=card.name,
        ids=np.array([f"{('train', '', 'test')[p]}-{k + 1}" for k, p in enumerate(part)]),
        structures=structures,
        targets={"energy_per_atom": energy},
        units={name: target.unit for name, target in card.targets.items()},
        per_atom={"forces": forces},
        splits={SPLIT: part},
    )


def _repeated(frames: list[dict]) -> int:
    """How many frames at the end repeat, in order, those before them: the test frames that stand as validation too.

    Raises ValueError when there are none: then the file is not what this reader knows.
    """
    labels = [(frame["total_energy"], frame["forces"]) for frame in frames]
    for size in range(len(labels) // 2, 0, -1):
        if labels[-size:] == labels[-2 * size : -size]:
            return size
    raise ValueError("its validation frames are not its test frames")


def _structure(atoms: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atomic numbers [A], cartesian positions in angstrom [A, 3] and cell [3, 3] of one frame."""
    from ase.data import atomic_numbers

    cell, coords = np.array(atoms["lattice_mat"]), np.array(atoms["coords"])
    numbers = np.array([atomic_numbers[symbol.strip()] for symbol in atoms["elements"]])
    return numbers, coords if atoms["cartesian"] else coords @ cell, cell
