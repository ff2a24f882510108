"""rMD17, the revised MD17: energies and forces of eight small molecules along trajectories at 500 K.

A. S. Christensen, O. A. von Lilienfeld, Mach. Learn.: Sci. Technol. 1, 045018 (2020), doi:10.1088/2632-2153/abba6f: the
geometries of MD17 with energies and forces computed anew (PBE/def2-SVP, tight convergence). They are not MD17's labels.

A file holds the authors' five splits, 1,000 training and 1,000 test frames each. Frames recur between splits of
different number, never within one: a frame is one row here, named after its first place, and `splits` says which part
of which split it is. There is no validation part.
"""

from pathlib import Path

import numpy as np

from replimat.cards import DatasetCard
from replimat.datasets.base import Dataset, Structures, are_elements
from replimat.errors import DataError
from replimat.sources.archives import require_unpacked

LARGEST = 1 << 28  # bytes of a file when unpacked; these have a tenth
PARTS = {"train": 0, "test": 2}


def read(folder: Path, card: DatasetCard) -> Dataset:
    """The unique frames of one molecule: `energy` in eV [n], `forces` in eV/angstrom [N, 3], splits "01" to "05"."""
    path = folder / card.source.members[0].save_as
    require_unpacked(path, LARGEST)
    try:
        with np.load(path, allow_pickle=False) as stored:
            numbers, positions, forces = stored["Z"], stored["pos"], stored["forces"]
            energy, place = stored["energy"], stored["split"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: not the expected arrays ({error}).") from error
    if not are_elements(numbers):
        raise DataError(f"{path}: expected atomic numbers, got {numbers}.")
    rows, frame = _unique(positions)
    if not ((energy == energy[rows][frame]).all() and (forces == forces[rows][frame]).all()):
        raise DataError(f"{path}: a frame stands twice with different labels.")
    return Dataset(
        name=card.name,
        ids=_names(place)[rows],
        structures=Structures(
            numbers=np.tile(numbers.astype(np.int16), len(rows)),
            positions=positions[rows].reshape(-1, 3).astype(np.float64),
            cells=np.zeros((len(rows), 3, 3)),
            offsets=np.arange(len(rows) + 1, dtype=np.int64) * len(numbers),
            periodic=False,
        ),
        targets={"energy": energy[rows].astype(np.float64)},
        units={name: target.unit for name, target in card.targets.items()},
        per_atom={"forces": forces[rows].reshape(-1, 3).astype(np.float64)},
        splits=_splits(place, frame, len(rows)),
    )


def _unique(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First row of every different frame, in file order [n], and the frame of every row [rows]."""
    _, first, frame = np.unique(positions.reshape(len(positions), -1), axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[frame.ravel()]


def _names(place: np.ndarray) -> np.ndarray:
    """Names like 01-train-17: split, part and number in it [rows]."""
    names = []
    count: dict[str, int] = {}
    for part, split in (label.split("_") for label in place.tolist()):
        key = f"{split}-{part}"
        names.append(f"{key}-{count.get(key, 0)}")
        count[key] = count.get(key, 0) + 1
    return np.array(names)


def _splits(place: np.ndarray, frame: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Part of every frame in every split [count]. Raises DataError when a frame is in both parts of one."""
    splits: dict[str, np.ndarray] = {}
    for label in np.unique(place).tolist():
        part, split = label.split("_")
        parts = splits.setdefault(split, np.full(count, -1, dtype=np.int8))
        members = frame[place == label]
        if (parts[members] != -1).any():
            raise DataError(f"rMD17 split {split}: a frame is in its training and its test part.")
        parts[members] = PARTS[part]
    return splits
