"""Benchmarks of the JARVIS leaderboard: true values with the authors' split, and the few crystals that come with them.

A benchmark is a zip with one JSON, {"train": {id: value}, "val": {...}, "test": {...}}; every target has its own split.
On the cards a target's `column` is "<task>/<dataset>/<property>", which names the file. The leaderboard has structures
of dft_3d for 1,056 crystals only: `read` joins them by id with their targets.

Values of qm9_std_jctc are stored as z-scores and are scaled back here. The means are not part of the files, so QM9
values are those above the mean of the set; errors and spreads do not depend on it.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from replimat.cards import DatasetCard
from replimat.datasets.base import Dataset
from replimat.datasets.rows import Rows, require_listed
from replimat.errors import DataError, SourceError
from replimat.sources.archives import sole_member

LARGEST = 1 << 28  # bytes of a benchmark; the largest here has a tenth
PARTS = ("train", "val", "test")
CLASSES = "SinglePropertyClass"  # the task whose values are 0 or 1
STANDARD_DEVIATIONS = {  # of the z-scored targets, from the leaderboard's scoring code; bohr, debye, eV, cal/mol/K
    "qm9_std_jctc": {
        "alpha": 8.172947,
        "mu": 1.503449,
        "HOMO": 0.597728,
        "LUMO": 1.274800,
        "gap": 1.284114,
        "R2": 280.472586,
        "ZPVE": 0.901645,
        "U0": 10.322918,
        "U": 10.414332,
        "H": 10.488418,
        "G": 9.497589,
        "Cv": 4.067492,
    }
}


def read(folder: Path, card: DatasetCard) -> Dataset:
    """The crystals with their targets: structures from the card's first member, each target from its benchmark.

    `splits` holds the authors' split of every target under the target's name.
    """
    values = {target: read_benchmark(folder, spec.column) for target, spec in card.targets.items()}
    rows = Rows(card)
    for name, poscar in _structures(folder / card.source.members[0].save_as).items():
        try:
            structure = _structure(poscar)
        except (ValueError, IndexError) as error:
            rows.leave_out(name, f"structure not readable ({error})")
            continue
        rows.add(name, structure, {spec.column: _value(values[target], name) for target, spec in card.targets.items()})
    return replace(rows.dataset(), splits={target: _part(parts, rows.ids) for target, parts in values.items()})


def benchmark_file(column: str) -> str:
    """Path of a target's true values inside the folder of its dataset."""
    task, dataset, name = column.split("/")
    return f"{task}/{dataset}_{name}.json.zip"


def scale_of(column: str) -> float:
    """Factor from a stored value to the target's unit."""
    _, dataset, name = column.split("/")
    return STANDARD_DEVIATIONS.get(dataset, {}).get(name, 1.0)


def read_benchmark(folder: Path, column: str) -> dict[str, dict[str, float]]:
    """Values by id for each part, in the target's unit.

    Raises DataError when the file is no benchmark, an id stands twice in a part, or a value is not finite.
    """
    path, scale = folder / benchmark_file(column), scale_of(column)
    try:
        content = json.loads(only_member(path), object_pairs_hook=_each_once)
        parts = {part: {name: scale * float(value) for name, value in content[part].items()} for part in PARTS}
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError, OverflowError) as error:
        raise DataError(f"{path}: expected train, val and test with a number for each id ({error}).") from error
    if wrong := [name for values in parts.values() for name, value in values.items() if not np.isfinite(value)]:
        raise DataError(f"{path}: {len(wrong)} values are not finite, the first is that of {wrong[0]}.")
    return parts


def only_member(path: Path) -> bytes:
    """The one file inside a zip. Raises DataError when there is not exactly one, or it is larger than any benchmark."""
    try:
        return sole_member(path, LARGEST)
    except SourceError as error:
        raise DataError(str(error)) from error


def _each_once(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if repeated := len(pairs) - len(found):
        raise ValueError(f"{repeated} ids stand more than once")
    return found


def _structures(path: Path) -> dict[str, str]:
    """POSCAR text by id, all parts together. Line ends stand in the file as a backslash and an n."""
    content = json.loads(only_member(path))
    return {name: text.replace("\\n", "\n") for part in PARTS for name, text in content[part].items()}


def _structure(poscar: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from pymatgen.io.vasp import Poscar

    require_listed(poscar)
    crystal = Poscar.from_str(poscar).structure
    return np.array(crystal.atomic_numbers), crystal.cart_coords, crystal.lattice.matrix


def _value(parts: dict[str, dict[str, float]], name: str) -> float | None:
    return next((values[name] for values in parts.values() if name in values), None)


def _part(parts: dict[str, dict[str, float]], ids: list[str]) -> np.ndarray:
    """0 train, 1 validation, 2 test, -1 for a crystal without this target: int8 [n]."""
    number = {name: k for k, part in enumerate(PARTS) for name in parts[part]}
    return np.array([number.get(name, -1) for name in ids], dtype=np.int8)
