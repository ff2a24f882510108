"""Scores of what a generator made, from one table with a row for every sample.

Columns: `id`; `of`, "made" for what the generator made and "data" for what it is held against; `failed`, why a sample
could not be decoded ("" if it could; such a sample passes nothing). Every other column is `<how>.<metric>`, NaN in rows
it does not apply to:

    share.<metric>  1 or 0     ->  <metric>: the mean in %
    mean.<metric>   a number   ->  <metric>: the mean
    count.<metric>  1 or 0     ->  <metric>: how many
    emd.<name>      a number   ->  emd_<name>: the Wasserstein distance of rows made from rows of data
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from replimat.errors import DataError

HOW = ("share", "mean", "count", "emd")
MADE, DATA = "made", "data"


def judged(ids: Iterable[str], of: str = MADE, failed: dict[int, str] | None = None, **columns) -> pd.DataFrame:
    """A table of samples. columns: "<how>.<metric>" -> values [n] of the samples, given with ** from a dict; failed:
    sample -> reason.
    """
    ids = list(ids)
    reasons = [(failed or {}).get(k, "") for k in range(len(ids))]
    table = pd.DataFrame({"id": ids, "of": of, "failed": reasons})
    for name, values in columns.items():
        table[name] = np.asarray(values, dtype=np.float64)
    return check(table)


def check(table: pd.DataFrame) -> pd.DataFrame:
    """The table itself. Raises DataError when its columns are not as the module says."""
    if missing := [name for name in ("id", "of", "failed") if name not in table]:
        raise DataError(f"A table of samples lacks the columns {', '.join(missing)}.")
    if unknown := set(table["of"]) - {MADE, DATA}:
        raise DataError(f"Samples are {MADE!r} or {DATA!r}, not {', '.join(map(repr, sorted(unknown)))}.")
    if table["id"][table["of"] == MADE].duplicated().any():
        raise DataError("Two samples have the same id.")
    for name in metric_columns(table):
        how, _, metric = name.partition(".")
        if how not in HOW or not metric:
            raise DataError(f"Column {name!r}: expected <how>.<metric> with how in {', '.join(HOW)}.")
        values = table[name].to_numpy(np.float64)
        if how in ("share", "count") and not np.isin(values[~np.isnan(values)], (0.0, 1.0)).all():
            raise DataError(f"Column {name!r} holds something else than 0 and 1.")
    return table


def metric_columns(table: pd.DataFrame) -> list[str]:
    return [name for name in table.columns if name not in ("id", "of", "failed")]


def generation(table: pd.DataFrame) -> dict[str, float]:
    """Metrics of a table, with the rows made that could be decoded (`evaluated`) and that could not (`failed`).

    A metric without a single value is NaN. Raises DataError for a malformed or empty table.
    """
    check(table)
    made = table["of"] == MADE
    if not made.any():
        raise DataError("Nothing was made: the table has no such row.")
    found = {}
    for name in metric_columns(table):
        how, _, metric = name.partition(".")
        values = table[name].to_numpy(np.float64)
        known = np.isfinite(values)
        if how == "emd":
            found[f"emd_{metric}"] = _distance(values[made & known], values[~made & known])
        elif how == "count":
            found[metric] = float(values[known].sum())
        else:
            found[metric] = float(values[known].mean() * (100 if how == "share" else 1)) if known.any() else np.nan
    lost = int((table["failed"][made] != "").sum())
    return found | {"evaluated": int(made.sum()) - lost, "failed": lost}


def shares(table: pd.DataFrame) -> list[str]:
    """Metrics of a table that are in %."""
    return [name.removeprefix("share.") for name in metric_columns(table) if name.startswith("share.")]


def _distance(made: np.ndarray, data: np.ndarray) -> float:
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(made, data)) if len(made) and len(data) else np.nan
