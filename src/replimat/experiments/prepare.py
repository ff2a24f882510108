"""From a dataset to the one file a training machine needs: graphs, targets, split, baselines."""

import warnings
from pathlib import Path

import numpy as np

from replimat import cards, datasets
from replimat.datasets.base import Dataset, Structures
from replimat.datasets.splits import Split, author_split, folds, leakage, split, split_sha256
from replimat.errors import DataError
from replimat.experiments.base import Learned, Prepared, Selection, prepared_key, prepared_path
from replimat.experiments.baselines import baselines, potential_baselines
from replimat.records import ids_sha256, targets_sha256
from replimat.representations import prepared
from replimat.representations.arrays import TEST, test_values
from replimat.representations.composition import composition_features
from replimat.sources import store
from replimat.training.scaling import MAX_Z, element_counts


def prepare(experiment: Prepared) -> Path:
    """Write the prepared file of an experiment unless it is there already; returns its path.

    Raises DataError if the dataset lacks a target or has too few rows.
    """
    path = cards.project_root() / prepared_path(experiment)
    key = prepared_key(experiment)
    if path.exists():
        prepared.load(path, key)  # refuses a damaged or foreign file
        return path
    data = datasets.load(experiment.data.dataset)
    chosen, fold = choose(data, experiment.data)
    rows = np.concatenate([chosen.train, chosen.val, chosen.test])
    structures = data.structures.take(rows)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        arrays = experiment.representation(structures)
    arrays |= {f"target.{name}": data.targets[name][rows] for name in experiment.data.require}
    arrays |= {f"also.{name}": data.target(name)[rows] for name in experiment.data.also}
    arrays |= {
        f"atoms.{name}": data.atom_target(name)[data.structures.atoms_of(rows)] for name in experiment.data.per_atom
    }
    arrays["part"] = np.repeat(np.arange(3, dtype=np.int8), [len(chosen.train), len(chosen.val), len(chosen.test)])
    if fold is not None:
        arrays["fold"] = fold
    if experiment.extras:
        arrays |= experiment.extras(store.verified_folder(experiment.extras_from))
    test = test_values(arrays, data.ids[rows])
    if isinstance(experiment, Learned):
        shared, twins = shared_kin(arrays, experiment.data.kin), []
    else:
        frames = "forces" in experiment.data.per_atom
        shared, twins = leakage(data.ids[rows], structures, arrays["part"], frames=frames)
    metadata = {
        "key": key,
        "dataset": data.name,
        "representation": type(experiment.representation).__name__,
        "data_sha256": data.sha256,
        "split": "author" if experiment.data.split else "rebuilt",
        "split_sha256": chosen.sha256,
        "test_ids_sha256": {name: ids_sha256(ids) for name, (ids, _) in test.items()},
        "test_targets_sha256": {name: targets_sha256(ids, values) for name, (ids, values) in test.items()},
        "ids": data.ids[rows].tolist(),
        "units": {name: data.units[name] for name in (*experiment.data.require, *experiment.data.per_atom)},
        "leakage": shared,
        "twins": twins,
        "left_out": len(data.left_out),
        "warnings": sorted({str(warning.message) for warning in caught}),
        "baselines": {} if isinstance(experiment, Learned) else _baselines(structures, arrays, experiment.data),
    }
    prepared.save(path, arrays, metadata)
    return path


def choose(data: Dataset, selection: Selection) -> tuple[Split, np.ndarray | None]:
    """The rows whose required targets are all finite, split as the selection asks; the fold of each in
    cross-validation [n_test].
    """
    if missing := [name for name in selection.require if name not in data.targets]:
        raise DataError(f"Dataset {data.name!r} has no target {', '.join(missing)}; it has {', '.join(data.targets)}.")
    usable = np.logical_and.reduce([np.isfinite(data.targets[name]) for name in selection.require])
    for name, value in selection.where:
        usable &= data.target(name) == value
    if selection.formula:
        usable &= has_formula(data.structures, selection.formula)
    if selection.ids:
        return chosen_by_id(data, usable, selection.ids), None
    kin = data.target(selection.kin) if selection.apart else None
    if selection.folds:
        classes = data.target(selection.require[0])
        return folds(data.ids, usable, classes, selection.folds, selection.n_test, selection.seed, kin)
    sizes = selection.n_train, selection.n_val, selection.n_test
    if not selection.split:
        return split(data.ids, usable, *sizes, selection.seed, kin), None
    if selection.split not in data.splits:
        known = ", ".join(data.splits) or "none"
        raise DataError(f"Dataset {data.name!r} has no split {selection.split!r} of its authors; it has: {known}.")
    return author_split(data.ids, usable, data.splits[selection.split], *sizes, selection.seed), None


def has_formula(structures: Structures, formula: str) -> np.ndarray:
    """Which structures consist of exactly the atoms of a formula such as "C7H10O2" [n]."""
    from ase.data import atomic_numbers
    from ase.formula import Formula

    wanted = np.zeros(MAX_Z, dtype=np.int64)
    for symbol, count in Formula(formula).count().items():
        wanted[atomic_numbers[symbol]] = count
    return (element_counts(structures.numbers.astype(np.int64), structures.offsets) == wanted).all(axis=1)


def chosen_by_id(data: Dataset, usable: np.ndarray, ids: tuple[str, ...]) -> Split:
    """The usable rows of these ids in this order, all as test rows. Raises DataError for an id that is not there."""
    row_of = {str(name): row for row, name in enumerate(data.ids) if usable[row]}
    if unknown := [name for name in ids if name not in row_of]:
        raise DataError(f"Dataset {data.name!r} has no usable row {', '.join(unknown)}.")
    rows = np.array([row_of[name] for name in ids])
    return Split(rows[:0], rows[:0], rows, split_sha256(rows[:0], rows[:0], data.ids[rows]))


def shared_kin(arrays: dict[str, np.ndarray], kin: str) -> dict[str, int]:
    """How many test rows have kin among the rows they are tested without: {"same_<kin>": count}, if kin are known."""
    if not kin:
        return {}
    group, part = arrays[f"target.{kin}"], arrays["part"]
    if "fold" not in arrays:
        return {f"same_{kin}": int(np.isin(group[part == TEST], group[part == 0]).sum())}
    pairs = np.unique(np.stack([group, arrays["fold"]]), axis=1)[0]  # a group in two folds stands twice
    several = np.unique(pairs)[np.unique(pairs, return_counts=True)[1] > 1]
    return {f"same_{kin}": int(np.isin(group, several).sum())}


def _baselines(structures: Structures, arrays: dict, selection: Selection) -> dict[str, dict]:
    train, test = np.flatnonzero(arrays["part"] == 0), np.flatnonzero(arrays["part"] == 2)
    if "forces" in selection.per_atom:
        (energy,) = selection.require
        found = potential_baselines(structures, arrays, energy, train, test)
        return {energy: found["energy"], "forces": found["forces"]}
    composition = composition_features(structures)
    atoms = None if structures.periodic else element_counts(structures.numbers.astype(np.int64), structures.offsets)
    return {name: baselines(composition, arrays[f"target.{name}"], train, test, atoms) for name in selection.require}
