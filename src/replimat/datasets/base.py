"""One uniform Dataset: structures packed end to end, targets by name, units, and what was left out."""

import hashlib
from dataclasses import dataclass, field

import numpy as np

from replimat.errors import DataError


@dataclass(frozen=True)
class Structures:
    """n structures packed end to end: the atoms of structure s are rows offsets[s]:offsets[s + 1].

    numbers: atomic numbers [N]; positions: cartesian, angstrom [N, 3]; cells: rows are lattice vectors, angstrom
    [n, 3, 3], zero for molecules; offsets [n + 1]; periodic: crystals (True) or molecules (False).
    """

    numbers: np.ndarray
    positions: np.ndarray
    cells: np.ndarray
    offsets: np.ndarray
    periodic: bool

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, s: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Atomic numbers [A], positions [A, 3] and cell [3, 3] of structure s."""
        rows = slice(self.offsets[s], self.offsets[s + 1])
        return self.numbers[rows], self.positions[rows], self.cells[s]

    @property
    def sizes(self) -> np.ndarray:
        """Atoms per structure [n]."""
        return np.diff(self.offsets)

    def take(self, rows: np.ndarray) -> "Structures":
        """The structures of the given rows, in that order."""
        rows = np.asarray(rows)
        sizes = self.sizes[rows]
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        atoms = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], sizes)
        return Structures(self.numbers[atoms], self.positions[atoms], self.cells[rows], offsets, self.periodic)

    @classmethod
    def pack(cls, structures: list[tuple[np.ndarray, np.ndarray, np.ndarray]], periodic: bool) -> "Structures":
        """Pack (numbers [A], positions [A, 3], cell [3, 3]) triples."""
        if not structures:
            raise DataError("No structures to pack: the list is empty.")
        numbers, positions, cells = zip(*structures, strict=True)
        return cls(
            numbers=np.concatenate(numbers).astype(np.int16),
            positions=np.concatenate(positions).astype(np.float64),
            cells=np.stack(cells).astype(np.float64),
            offsets=np.concatenate([[0], np.cumsum([len(z) for z in numbers])]).astype(np.int64),
            periodic=periodic,
        )


@dataclass(frozen=True)
class Dataset:
    """A named set of structures with targets.

    targets: float64 [n] by name, NaN where a structure has no value; units by target name; left_out: id -> reason for
    every raw row that could not be used; missing: target -> id -> reason for every NaN; sha256 of the content
    (structures, ids, targets).
    """

    name: str
    ids: np.ndarray
    structures: Structures
    targets: dict[str, np.ndarray]
    units: dict[str, str]
    left_out: dict[str, str] = field(default_factory=dict)
    missing: dict[str, dict[str, str]] = field(default_factory=dict)
    sha256: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    def target(self, name: str) -> np.ndarray:
        """Values of one target [n], NaN where missing. Raises DataError for an unknown target."""
        if name not in self.targets:
            raise DataError(f"Dataset {self.name!r} has no target {name!r}. It has: {', '.join(self.targets)}.")
        return self.targets[name]

    def content_sha256(self) -> str:
        """sha256 of structures, ids and targets, independent of how they are stored."""
        crystals = self.structures
        digest = hashlib.sha256("\n".join([self.name, *map(str, self.ids), *self.targets]).encode())
        packed = (crystals.numbers, crystals.positions, crystals.cells, crystals.offsets)
        for array in (*packed, np.array(crystals.periodic), *self.targets.values()):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()
