"""How much smaller a search becomes when an estimate says where to look."""

import numpy as np

from replimat.errors import DataError
from replimat.evaluation.checks import finite_pair

PRIMARY = "reduction"


def search_volume(everything: np.ndarray, searched: np.ndarray) -> dict[str, float]:
    """reduction: geometric mean of everything / searched, two volumes [n] in one unit.

    Where what is looked for is not in the volume searched, that is NaN, and the row is counted in `failed`. Raises
    DataError for a volume <= 0, or when nothing is found anywhere.
    """
    y, p, failed = finite_pair(everything, searched)
    if min(y.min(), p.min()) <= 0:
        raise DataError(f"A volume must be positive, got {min(y.min(), p.min()):g}.")
    return {"reduction": float(np.exp(np.log(y / p).mean())), "evaluated": len(y), "failed": failed}


def searched_share(true: np.ndarray, prediction: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Share of the box from low to high [k] that lies within the mean relative error of each prediction [n, k]; at most
    all, and NaN where the true point [n, k] does not lie there  [n].
    """
    error = np.abs(true - prediction) / np.abs(prediction)
    share = np.minimum((2 * error.mean() * np.abs(prediction) / (high - low)).prod(axis=1), 1.0)
    return np.where((error <= error.mean()).all(axis=1), share, np.nan)
