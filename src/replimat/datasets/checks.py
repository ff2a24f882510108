"""Whether what a reader gives is a dataset at all, and the one its card describes; a reader's failure as one error.

Raw files are compared with their sha256 before a reader sees them, so what is found here is a file that was published
like that, a card that is wrong, or a reader that is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from replimat.cards import DatasetCard
from replimat.datasets.base import HEAVIEST, LARGEST, Dataset, Structures
from replimat.errors import DataError, ReplimatError

SAME_PLACE = 1e-3  # of a cell edge for crystals, angstrom for molecules: atoms this close are one atom twice
TIGHTEST = 1.0  # cubic angstrom per atom: the densest crystals have 3


@contextmanager
def reading(card: DatasetCard, folder: Path) -> Iterator[None]:
    """Turn whatever a reader stumbles over into one DataError that names the dataset, its folder and the cause."""
    try:
        yield
    except DataError as error:
        if card.name in str(error):
            raise
        raise DataError(f"Dataset {card.name!r}: {error}") from error
    except ReplimatError:
        raise
    except Exception as error:  # a library's word about bytes it does not know may be of any kind
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise DataError(
            f"Dataset {card.name!r}: {folder} is not what its reader {card.reader!r} expects ({cause}). "
            f"Compare it with its card: `replimat verify {card.name}`."
        ) from error


def with_reasons(data: Dataset) -> Dataset:
    """The dataset with a reason in `missing` for every NaN among its targets, also where its reader gave none."""
    missing = dict(data.missing)
    for name, values in data.targets.items():
        known = missing.get(name, {})
        unnamed = [str(row) for row in data.ids[np.isnan(values)] if str(row) not in known]
        if unnamed:
            missing[name] = known | dict.fromkeys(unnamed, "no value")
    return replace(data, missing=missing)


def check(data: Dataset, card: DatasetCard) -> None:
    """Raise DataError where rows, target counts or ranges differ from what the card says, or are no dataset."""
    if card.rows is not None and len(data) != card.rows:
        named = ", ".join(list(data.left_out)[:5]) or "none"
        raise DataError(
            f"Dataset {card.name!r}: {len(data)} usable rows, its card says {card.rows}. Rows left out: {named}."
        )
    if data.ids.dtype.kind != "U" or not np.char.str_len(data.ids).all():
        raise DataError(f"Dataset {card.name!r}: the id of a row is missing, or no text.")
    if repeated := len(data) - len(np.unique(data.ids)):
        raise DataError(f"Dataset {card.name!r}: {repeated} ids stand more than once.")
    _check_structures(data, card)
    for name, target in card.targets.items():
        per_atom = target.per == "atom"
        _check_target(data, card, name, data.atom_target(name) if per_atom else data.target(name))
    for name, parts in data.splits.items():
        if parts.shape != (len(data),) or not np.isin(parts, (-1, 0, 1, 2)).all():
            raise DataError(f"Dataset {card.name!r}, split {name!r}: expected one part in -1, 0, 1, 2 for every row.")


def check_places(data: Dataset, card: DatasetCard) -> None:
    """Raise DataError where two atoms of full sites stand at one place: a row that was written twice.

    It takes seconds for millions of atoms, so it is asked once, when a dataset is read.
    """
    structures = data.structures
    if structures.occupancies is not None:  # atoms that share a site stand at one place
        return
    owner = np.repeat(np.arange(len(data)), structures.sizes)
    if structures.periodic:
        fractional = np.einsum("ni,nij->nj", structures.positions, np.linalg.inv(structures.cells)[owner])
        places = np.round(fractional % 1.0 / SAME_PLACE) % round(1 / SAME_PLACE)  # [N, 3]
    else:
        places = np.round(structures.positions / SAME_PLACE)
    keys = np.column_stack([owner, places]).astype(np.int64)
    order = np.lexsort(keys.T)
    same = (np.diff(keys[order], axis=0) == 0).all(axis=1)
    if same.any():
        row = data.ids[owner[order[np.flatnonzero(same)[0]]]]
        raise DataError(f"Dataset {card.name!r}: {same.sum()} atoms stand where another one does, first in {row}.")


def _check_structures(data: Dataset, card: DatasetCard) -> None:
    """Raise DataError where lengths disagree, or a structure is none."""
    structures, what = data.structures, f"Dataset {card.name!r}"
    if fault := _unequal(structures, len(data)):
        raise DataError(f"{what}: {fault}.")
    owners, numbers = np.repeat(np.arange(len(data)), structures.sizes), structures.numbers
    atoms = structures.sizes if structures.occupancies is None else _sums(structures.occupancies, structures)
    faults = {
        f"expected atomic numbers from 1 to {HEAVIEST}": owners[(numbers < 1) | (numbers > HEAVIEST)],
        f"a coordinate is not finite, or above {LARGEST:g} angstrom": owners[_absurd(structures.positions)],
        f"a cell is not finite, or above {LARGEST:g} angstrom": np.flatnonzero(_absurd(structures.cells)),
    }
    if structures.periodic:
        with np.errstate(all="ignore"):  # of cells that are not finite, which are named before
            tight = ~(np.abs(np.linalg.det(structures.cells)) >= TIGHTEST * atoms)
        faults[f"a cell has less than {TIGHTEST:g} cubic angstrom for each atom"] = np.flatnonzero(tight)
    for fault, rows in faults.items():
        if len(rows):
            raise DataError(f"{what}: {fault}; {len(np.unique(rows))} rows, first {data.ids[rows[0]]}.")


def _unequal(structures: Structures, rows: int) -> str:
    """Which arrays do not have the length that `rows` structures ask for; empty when all do."""
    offsets, n = structures.offsets, len(structures.numbers)
    if len(offsets) != rows + 1 or offsets[0] != 0 or offsets[-1] != n or (np.diff(offsets) < 1).any():
        return f"{rows} rows, but {len(offsets) - 1} structures with {n} atoms in all; each needs one or more"
    if structures.positions.shape != (n, 3) or structures.cells.shape != (rows, 3, 3):
        return f"positions {structures.positions.shape} and cells {structures.cells.shape} of {n} atoms in {rows} rows"
    return ""


def _absurd(lengths: np.ndarray) -> np.ndarray:
    """Which rows of coordinates [N, 3] or cells [n, 3, 3] hold a length that none has."""
    return ~(np.abs(lengths) <= LARGEST).reshape(len(lengths), -1).all(axis=1)


def _sums(values: np.ndarray, structures: Structures) -> np.ndarray:
    """Sum of a per-atom array [N] over each structure [n]."""
    return np.add.reduceat(values, structures.offsets[:-1])


def _check_target(data: Dataset, card: DatasetCard, name: str, values: np.ndarray) -> None:
    """Raise DataError where values [n], or [N, ...] of a target per atom, differ from what the card says."""
    target, what = card.targets[name], f"Dataset {card.name!r}, target {name!r}"
    per_atom = target.per == "atom"
    owners = np.repeat(data.ids, data.structures.sizes) if per_atom else data.ids
    if len(values) != len(owners):
        raise DataError(f"{what}: {len(values)} values for {len(owners)} {'atoms' if per_atom else 'rows'}.")
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if per_atom and not finite.all():
        raise DataError(f"{what}: {(~finite).sum()} atoms without a finite value, first in {owners[~finite][0]}.")
    if (infinite := np.isinf(values)).any():
        raise DataError(f"{what}: {infinite.sum()} values are infinite, first {owners[infinite][0]}.")
    if target.count is not None and finite.sum() != target.count:
        raise DataError(f"{what}: {finite.sum()} values, its card says {target.count}.")
    low, high = target.range or (-np.inf, np.inf)
    outside = ((values < low) | (values > high)).reshape(len(values), -1).any(axis=1)
    if outside.any():
        raise DataError(
            f"{what}: {outside.sum()} values outside [{low}, {high}] {target.unit}, first {owners[outside][0]}. "
            "Wrong unit or damaged data."
        )
