"""One uniform Dataset: structures packed end to end, targets by name, units, and what was left out."""

import hashlib
from dataclasses import dataclass, field

import numpy as np

from replimat.errors import DataError

HEAVIEST = 118  # atomic number of the last element
LARGEST = 1e4  # angstrom: no cell and no coordinate in one is as long


def atoms_of(offsets: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Indices of the atoms of the given structures, in that order; offsets [n + 1] say where each one's atoms begin."""
    sizes = np.diff(offsets)[rows]
    ends = np.cumsum(sizes)
    return np.arange(sizes.sum()) + np.repeat(offsets[rows] - (ends - sizes), sizes)


def are_elements(numbers: np.ndarray) -> bool:
    """Whether numbers [A], of any type, are all atomic numbers: asked before they are stored in 16 bits."""
    numbers = np.asarray(numbers)
    return numbers.dtype.kind in "iuf" and bool(
        ((numbers >= 1) & (numbers <= HEAVIEST) & (numbers == np.floor(numbers))).all()
    )


@dataclass(frozen=True)
class Structures:
    """n structures packed end to end: the atoms of structure s are rows offsets[s]:offsets[s + 1].

    numbers: atomic numbers [N]; positions: cartesian, angstrom [N, 3]; cells: rows are lattice vectors, angstrom
    [n, 3, 3], zero for molecules; offsets [n + 1]; periodic: crystals (True) or molecules (False); occupancies: share
    of each site that is filled [N], atoms of several elements that share a site stand at one position; None: all full.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cells: np.ndarray
    offsets: np.ndarray
    periodic: bool
    occupancies: np.ndarray | None = None

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

    def atoms_of(self, rows: np.ndarray) -> np.ndarray:
        """Indices of the atoms of the given rows, in that order: what `take` takes of a per-atom array [N, ...]."""
        return atoms_of(self.offsets, np.asarray(rows))

    def take(self, rows: np.ndarray) -> "Structures":
        """The structures of the given rows, in that order."""
        rows = np.asarray(rows)
        offsets = np.concatenate([[0], np.cumsum(self.sizes[rows])])
        atoms = self.atoms_of(rows)
        occupancies = None if self.occupancies is None else self.occupancies[atoms]
        cells = self.cells[rows]
        return Structures(self.numbers[atoms], self.positions[atoms], cells, offsets, self.periodic, occupancies)

    @classmethod
    def pack(
        cls,
        structures: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
        periodic: bool,
        occupancies: list[np.ndarray | None] | None = None,
    ) -> "Structures":
        """Pack (numbers [A], positions [A, 3], cell [3, 3]) triples, and the occupancies [A] of those that have any."""
        if not structures:
            raise DataError("No structures to pack: the list is empty.")
        numbers, positions, cells = zip(*structures, strict=True)
        if wrong := [s for s, z in enumerate(numbers) if not are_elements(z)]:
            raise DataError(f"Atomic numbers are whole, from 1 to {HEAVIEST}; not so in structure {wrong[0]} (from 0).")
        shares = None
        if occupancies is not None and any(share is not None for share in occupancies):
            filled = zip(numbers, occupancies, strict=True)
            shares = np.concatenate([np.ones(len(z)) if share is None else share for z, share in filled])
        return cls(
            numbers=np.concatenate(numbers).astype(np.int16),
            positions=np.concatenate(positions).astype(np.float64),
            cells=np.stack(cells).astype(np.float64),
            offsets=np.concatenate([[0], np.cumsum([len(z) for z in numbers])]).astype(np.int64),
            periodic=periodic,
            occupancies=shares,
        )


@dataclass(frozen=True)
class Dataset:
    """A named set of structures with targets.

    targets: float64 [n] by name, NaN where a structure has no value; per_atom: float64 [N, ...] by name, for example
    forces [N, 3], N atoms packed as in `structures`; units by name of a target or per-atom target; splits: the author's
    own splits by name, part of each row (0 train, 1 validation, 2 test, -1 unused) int8 [n]; left_out: id -> reason for
    every raw row that could not be used; missing: target -> id -> reason for every NaN; sha256 of the content
    (structures with their occupancies, ids, targets, per-atom targets, splits).
    """

    name: str
    ids: np.ndarray
    structures: Structures
    targets: dict[str, np.ndarray]
    units: dict[str, str]
    left_out: dict[str, str] = field(default_factory=dict)
    missing: dict[str, dict[str, str]] = field(default_factory=dict)
    per_atom: dict[str, np.ndarray] = field(default_factory=dict)
    splits: dict[str, np.ndarray] = field(default_factory=dict)
    sha256: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    def target(self, name: str) -> np.ndarray:
        """Values of one target [n], NaN where missing. Raises DataError for an unknown target."""
        if name not in self.targets:
            raise DataError(f"Dataset {self.name!r} has no target {name!r}. It has: {', '.join(self.targets)}.")
        return self.targets[name]

    def atom_target(self, name: str) -> np.ndarray:
        """Values of one per-atom target [N, ...]. Raises DataError for an unknown one."""
        if name not in self.per_atom:
            raise DataError(
                f"Dataset {self.name!r} has no per-atom target {name!r}. It has: {', '.join(self.per_atom) or 'none'}."
            )
        return self.per_atom[name]

    def content_sha256(self) -> str:
        """sha256 of structures, ids, targets, per-atom targets and splits, independent of how they are stored."""
        crystals = self.structures
        digest = hashlib.sha256("\n".join([self.name, *map(str, self.ids), *self.targets]).encode())
        packed = (crystals.numbers, crystals.positions, crystals.cells, crystals.offsets)
        for array in (*packed, np.array(crystals.periodic), *self.targets.values()):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        shares = {} if crystals.occupancies is None else {"occupancies": crystals.occupancies}
        for kind, arrays in (("per_atom", self.per_atom), ("split", self.splits), ("structures", shares)):
            for name, array in arrays.items():
                digest.update(f"{kind}.{name}{array.dtype.str}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()
