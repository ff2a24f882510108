"""Predictions that were handed in to the JARVIS leaderboard, and how they meet the test rows of a benchmark.

A contribution is a zip with one csv of the columns id, prediction and mostly target (the true values once more).
"""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from replimat.datasets.jarvis_dft import only_member, scale_of
from replimat.errors import DataError

METRIC_IN_NAME = {"SinglePropertyPrediction": "mae", "SinglePropertyClass": "acc"}
AGREEMENT = 1e-4  # relative to the mean size of the values: true values are written to five digits or more


@dataclass(frozen=True)
class Released:
    """Predictions of one file: ids as they are written [n], prediction [n] and target [n] (None when not given)."""

    ids: list[str]
    prediction: np.ndarray
    target: np.ndarray | None


def released_file(column: str) -> str:
    """Name of the file of predictions for a target, from the `column` of the benchmark's card."""
    task, dataset, name = column.split("/")
    return f"AI-{task}-{name}-{dataset}-test-{METRIC_IN_NAME[task]}.csv.zip"


def read_released(folder: Path, column: str) -> Released:
    """The predictions of a file in the target's unit; one that is no number is NaN.

    Raises DataError when the file is no table, columns are missing or an id stands twice.
    """
    path, scale = folder / released_file(column), scale_of(column)
    try:
        reader = csv.DictReader(io.StringIO(only_member(path).decode("utf-8")), skipinitialspace=True)
        columns, rows = reader.fieldnames or [], list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not readable as CSV in UTF-8 ({error}).") from error
    if not {"id", "prediction"} <= set(columns):
        raise DataError(f"{path}: columns are {', '.join(columns)}; expected id and prediction, and perhaps target.")
    ids = [(row["id"] or "").strip() for row in rows]
    if repeated := len(ids) - len(set(ids)):
        raise DataError(f"{path}: {repeated} ids stand more than once.")
    prediction = scale * np.array([_number(row["prediction"]) for row in rows])
    target = scale * np.array([_number(row["target"]) for row in rows]) if "target" in columns else None
    return Released(ids, prediction, target)


def join(test: dict[str, float], released: Released, ids_as_text: bool = False) -> np.ndarray:
    """The prediction of every test row [n], NaN where there is none.

    Ids that are numbers are compared as numbers, because contributions lost the leading zeros of QM9's. ids_as_text:
    they are compared as they are written, as the leaderboard's own scoring does.
    Raises DataError when nothing fits, or when the true values in the file are not those of the benchmark.
    """
    same: Callable[[str], str] = str if ids_as_text else _as_number
    row_of = {same(name): row for row, name in enumerate(released.ids)}
    if len(row_of) < len(released.ids) or len({same(name) for name in test}) < len(test):
        raise DataError("Two ids are the same number, so leading zeros tell rows apart.")
    rows = np.array([row_of.get(same(name), -1) for name in test])
    found = rows >= 0
    if not found.any():
        raise DataError(f"None of the {len(test)} test rows is among the {len(released.ids)} released predictions.")
    if released.target is not None:
        truth = np.array(list(test.values()))[found]
        _check_truth(truth, released.target[rows[found]], released.prediction[rows[found]])
    return np.where(found, released.prediction[rows], np.nan)


def remarks(test: dict[str, float], released: Released, prediction: np.ndarray) -> list[str]:
    """What a reader must know of how ids met; prediction: of every test row, as `join` returns it."""
    said = []
    met = int(np.isfinite(prediction).sum())
    if met < len(test):
        said.append(f"{len(test) - met:,} of {len(test):,} test rows have no prediction")
    if len(released.ids) > met:
        said.append(f"{len(released.ids) - met:,} released predictions are of no test row or no number")
    if (as_written := len(test.keys() & set(released.ids))) < met:
        said.append(f"{met - as_written:,} ids agree only as numbers: leading zeros were lost")
    return said


def _check_truth(truth: np.ndarray, given: np.ndarray, prediction: np.ndarray) -> None:
    """The true values that stand beside the predictions must be the benchmark's, to the digits written."""
    allowed = AGREEMENT * np.abs(truth).mean()
    wrong = ~(np.abs(given - truth) <= allowed)  # true for NaN as well
    if not wrong.any():
        return
    if (np.abs(prediction - truth) <= allowed).all():
        raise DataError("The columns target and prediction are swapped: the predictions are the true values.")
    raise DataError(f"{wrong.sum()} of {len(truth)} true values beside the predictions are not the benchmark's.")


def _as_number(name: str) -> str:
    return (name.lstrip("0") or "0") if name.isdigit() else name


def _number(text: str | None) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return float("nan")
