"""Rebuilt splits: which rows train, validate and test; and whether a test row has a twin among the training rows.

A twin is found by id or by structure. The structural comparison is cheap and says what it can see: a structure is
described by its reduced composition, its volume per atom and, averaged over its atoms, by smooth sums over all
neighbours within 7 angstrom after crystals are scaled to one volume per atom; plain sums, and sums weighted with the
product of atomic numbers. None of this changes with the choice of cell, origin, orientation, supercell or order of
atoms. Two structures of one composition are twins when their sums agree within 3 % and their volumes within 10 %.

It cannot tell mirror images apart, nor stackings that differ little within the cutoff (polytypes): these count as
twins. It misses twins whose atoms moved apart by some hundredths of an angstrom. Measured on all pairs of one
composition in mp_flla, mp_dielectric and mp_elastic against pymatgen's StructureMatcher: of its 56 matches 37 are seen,
and 100 further pairs are reported, mostly polytypes. So the count is a warning and not a proof.

Frames of dynamics of one substance all look alike to within these tolerances. There a twin is a frame that is the same
to within rounding, perhaps turned: in mlearn twins agree to 1e-14 and the next nearest frames differ by 2e-5 or more.
"""

from dataclasses import dataclass
from functools import reduce
from math import gcd

import numpy as np

from replimat.datasets.base import Structures
from replimat.errors import DataError
from replimat.files import sha256_json

CUTOFF = 7.0  # angstrom
CENTRES = np.arange(1.0, 7.0)  # angstrom
WIDTH = 0.7  # angstrom
COMMON_VOLUME = 15.0  # cubic angstrom per atom, to which crystals are scaled
TOLERANCES = np.array([0.03] * (2 * len(CENTRES)) + [0.10])  # relative differences of two twins: sums, volume
FLOOR = 0.05  # values below this are compared absolutely
SAME_FRAME = 1e-6  # relative difference of two frames that are one


@dataclass(frozen=True)
class Split:
    """Rows of a dataset: train [n_train], val [n_val], test [n_test], no row twice; sha256 of their ids in order."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    sha256: str


def split(
    ids: np.ndarray,
    usable: np.ndarray,
    n_train: int,
    n_val: int,
    n_test: int,
    seed: int,
    kin: np.ndarray | None = None,
) -> Split:
    """Random split of the `usable` rows (mask [n]) of a dataset with these ids [n].

    Test rows are drawn first, then validation, then training rows: the same rows are tested whatever n_train is.
    kin: numbers [n]; rows of one number stay in one part, as far as that is filled: a group that does not fit is cut,
    and the rest of it is not used. Raises DataError when a part would be empty (validation may be) or there are too
    few rows.
    """
    rows = np.flatnonzero(usable)
    if min(n_train, n_test) < 1 or n_val < 0:
        raise DataError(f"Empty split: {n_train} training, {n_val} validation, {n_test} test rows were asked for.")
    if (wanted := n_train + n_val + n_test) > len(rows):
        raise DataError(
            f"Too few rows: {n_train} training + {n_val} validation + {n_test} test = {wanted} were asked for, "
            f"{len(rows)} can be used."
        )
    # Raw output of the bit generator: numpy promises it for ever, unlike the shuffles built on top of it.
    order = np.argsort(np.random.PCG64(seed).random_raw(len(rows)), kind="stable")
    rows = rows[order]
    if kin is None:
        test, val, train = np.split(rows[:wanted], [n_test, n_test + n_val])
    else:
        test, rows = _apart(rows, kin, n_test)
        val, rows = _apart(rows, kin, n_val)
        train = rows[:n_train]
        if len(train) < n_train:
            raise DataError(f"Too few rows: {len(train)} for training are left when kin stay together, not {n_train}.")
    return Split(train, val, test, split_sha256(ids[train], ids[val], ids[test]))


def _apart(rows: np.ndarray, kin: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """`size` of these rows in random order, whole groups at a time, and the rows that are no kin of them.

    A group's turn is that of its lowest row: by its first row in random order large groups would come first.
    """
    ascending = np.argsort(rows, kind="stable")
    _, lowest = np.unique(kin[rows[ascending]], return_index=True)
    _, group = np.unique(kin[rows], return_inverse=True)
    together = rows[np.argsort(ascending[lowest][group], kind="stable")]
    taken = together[:size]
    return taken, rows[~np.isin(kin[rows], kin[taken])]


def folds(
    ids: np.ndarray, usable: np.ndarray, classes: np.ndarray, number: int, n: int, seed: int, kin: np.ndarray | None
) -> tuple[Split, np.ndarray]:
    """Cross-validation: `n` of the usable rows (0: all), each tested in one of `number` folds; their folds [n].

    classes [rows of the dataset]: spread evenly over the folds; kin: rows of one number stay in one fold.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    rows = np.flatnonzero(usable)
    rows = np.sort(rows[np.argsort(np.random.PCG64(seed).random_raw(len(rows)), kind="stable")][: n or None])
    kind = StratifiedKFold if kin is None else StratifiedGroupKFold
    fold = np.empty(len(rows), dtype=np.int8)
    groups = None if kin is None else kin[rows]
    for k, (_, tested) in enumerate(kind(number, shuffle=True, random_state=seed).split(rows, classes[rows], groups)):
        fold[tested] = k
    none = rows[:0]
    parts = [ids[rows[fold == k]] for k in range(number)]
    return Split(none, none, rows, sha256_json([[str(name) for name in part] for part in parts])), fold


def author_split(
    ids: np.ndarray, usable: np.ndarray, part: np.ndarray, n_train: int, n_val: int, n_test: int, seed: int
) -> Split:
    """The authors' own split: part [n] is 0 train, 1 validation, 2 test, -1 unused. A size of 0 takes all of a part.

    A smaller size takes rows of the part in the order of `split`. Where the authors set no validation rows aside, they
    are taken out of the training part. Raises DataError when a part has fewer rows than asked for.
    """
    order = np.argsort(np.random.PCG64(seed).random_raw(len(part)), kind="stable")
    order = order[usable[order]]
    train, val, test = (order[part[order] == number] for number in range(3))
    if not len(val):
        train, val = train[n_val:], train[:n_val]
    for name, rows, size in (("training", train, n_train), ("validation", val, n_val), ("test", test, n_test)):
        if len(rows) < max(size, name != "validation"):
            raise DataError(
                f"The authors' split leaves {len(rows)} usable {name} rows, {size or 'some'} were asked for."
            )
    train, val, test = (rows[: size or None] for rows, size in ((train, n_train), (val, n_val), (test, n_test)))
    return Split(train, val, test, split_sha256(ids[train], ids[val], ids[test]))


def split_sha256(train_ids: np.ndarray, val_ids: np.ndarray, test_ids: np.ndarray) -> str:
    """sha256 of the ids of a split, in order."""
    return sha256_json([[str(name) for name in part] for part in (train_ids, val_ids, test_ids)])


def leakage(
    ids: np.ndarray, structures: Structures, part: np.ndarray, frames: bool = False
) -> tuple[dict[str, int], list[str]]:
    """How many test rows have a twin in train, by id and by structure, and the ids of the latter.

    part: 0 train, 1 validation, 2 test [n]; frames: rows are frames of dynamics, and a twin is the same frame.
    """
    train, test = np.flatnonzero(part == 0), np.flatnonzero(part == 2)
    twins = has_twin(structures.take(test), structures.take(train), SAME_FRAME if frames else TOLERANCES)
    same_id = int(np.isin(ids[test], ids[train]).sum())
    return {"same_id": same_id, "same_structure": int(twins.sum())}, ids[test][twins].tolist()


def has_twin(structures: Structures, others: Structures, tolerances: np.ndarray | float = TOLERANCES) -> np.ndarray:
    """Whether each of `structures` [n] has a twin among `others`: bool [n]."""
    kinds, values = structure_fingerprints(structures)
    other_kinds, other_values = structure_fingerprints(others)
    by_kind: dict[str, list[int]] = {}
    for row, kind in enumerate(other_kinds):
        by_kind.setdefault(kind, []).append(row)
    rows = [by_kind.get(kind, []) for kind in kinds]
    return np.array([_agrees(own, other_values[near], tolerances) for own, near in zip(values, rows, strict=True)])


def _agrees(own: np.ndarray, others: np.ndarray, tolerances: np.ndarray | float) -> bool:
    """Whether the values own [K] agree with one row of others [m, K]."""
    allowed = tolerances * np.maximum(np.abs(own), FLOOR)
    return bool((np.abs(others - own) <= allowed).all(axis=1).any())


def structure_fingerprints(structures: Structures) -> tuple[list[str], np.ndarray]:
    """Reduced composition [n]; neighbour sums and volume per atom (0 for molecules) [n, 2 K + 1] of each structure."""
    kinds, values = [], np.empty((len(structures), len(TOLERANCES)))
    for row in range(len(structures)):
        numbers, positions, cell = structures[row]
        volume = abs(np.linalg.det(cell)) / len(numbers)
        scale = (COMMON_VOLUME / volume) ** (1 / 3) if volume else 1.0
        kinds.append(_composition(numbers))
        values[row] = *_neighbour_sums(numbers.astype(float), positions * scale, cell * scale), volume
    return kinds, values


def _composition(numbers: np.ndarray) -> str:
    """Reduced composition by atomic number, for example '8:3 22:1 56:1'."""
    elements, counts = np.unique(numbers, return_counts=True)
    divisor = reduce(gcd, counts.tolist())
    return " ".join(f"{z}:{count // divisor}" for z, count in zip(elements, counts, strict=True))


def _neighbour_sums(numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Plain and weighted sums [2 K] over neighbours within the cutoff, averaged over atoms."""
    if cell.any():
        positions = positions @ np.linalg.inv(cell) % 1.0 @ cell  # into the cell, so that few images are enough
    vectors = positions[None, :] - positions[:, None]  # [A, A, 3]
    distances = np.linalg.norm(vectors[:, :, None] + _shifts(cell), axis=-1)  # [A, A, images]
    first, second, image = np.nonzero((distances < CUTOFF) & (distances > 1e-6))
    shells = _shells(distances[first, second, image])  # [pairs, K]
    weights = numbers[first] * numbers[second] / np.mean(numbers**2)  # [pairs]
    return np.concatenate([shells.sum(axis=0), weights @ shells]) / len(numbers)


def _shells(distances: np.ndarray) -> np.ndarray:
    """Gaussians around the centres that vanish smoothly at the cutoff [pairs, K]."""
    envelope = (1 - (distances / CUTOFF) ** 2) ** 2
    return envelope[:, None] * np.exp(-(((distances[:, None] - CENTRES) / WIDTH) ** 2))


def _shifts(cell: np.ndarray) -> np.ndarray:
    """Lattice translations [m, 3] that can bring two atoms of one cell within the cutoff; only zero for molecules."""
    if not cell.any():
        return np.zeros((1, 3))
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)  # distance between opposite faces
    reach = np.ceil(CUTOFF / heights).astype(int)
    steps = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), axis=-1)
    return steps.reshape(-1, 3) @ cell
