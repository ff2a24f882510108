"""Synchrotron powder patterns with refined cells (S. R. Chitturi et al., J. Appl. Cryst. 54, 1799 (2021)).

Two columns per pattern, two theta in degree and counts less background; ssrl_labels.csv has crystal system, refined
cell and wavelength of each.
"""

import csv
from pathlib import Path

import numpy as np

from replimat.cards import DatasetCard
from replimat.datasets.patterns import SYSTEMS, TWO_THETA, MeasuredPatterns
from replimat.errors import DataError

LABELS = "ssrl_labels.csv"


def read_patterns(folder: Path, card: DatasetCard) -> MeasuredPatterns:
    """All patterns in the order of the labels file.

    Labels: crystal_system [n] as the authors have it, lengths [n, 3] ascending in angstrom, angles [n, 3] alpha, beta,
    gamma in degree, and the compound [n].
    """
    rows = _rows(folder / LABELS)
    curves = [_curve(folder / "XYdata" / f"{row['Material']}.xy") for row in rows]
    return MeasuredPatterns(
        name=card.name,
        ids=np.array([row["Material"] for row in rows]),
        axis=[curve[:, 0] for curve in curves],
        intensity=[curve[:, 1] for curve in curves],
        labels={
            "crystal_system": np.array([SYSTEMS.index(row["Crystal System"].lower()) for row in rows]),
            "lengths": np.sort(_numbers(rows, ("a", "b", "c")), axis=1),
            "angles": _numbers(rows, ("alpha", "beta", "gamma")),
            "compound": np.array([row["Name"] for row in rows]),
        },
        axis_name=TWO_THETA,
        wavelengths=_numbers(rows, ("Wavelength",))[:, 0],
    )


def _rows(path: Path) -> list[dict[str, str]]:
    """Rows of the labels file by column. Raises DataError when one is not whole."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as CSV ({error}).") from error
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values() or row.get("Crystal System", "").lower() not in SYSTEMS:
            raise DataError(f"{path}, line {number}: not a crystal system with a cell and a wavelength.")
    return rows


def _numbers(rows: list[dict[str, str]], columns: tuple[str, ...]) -> np.ndarray:
    """Columns as numbers [n, columns]. Raises DataError."""
    try:
        return np.array([[float(row[column]) for column in columns] for row in rows])
    except (KeyError, ValueError) as error:
        raise DataError(f"{LABELS}: columns {', '.join(columns)} are not all numbers ({error}).") from error


def _curve(path: Path) -> np.ndarray:
    """Two theta and intensity [P, 2]. Raises DataError."""
    try:
        curve = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not two columns of numbers ({error}).") from error
    if curve.shape[1:] != (2,):
        raise DataError(f"{path}: {curve.shape[1]} columns, expected 2.")
    return curve
