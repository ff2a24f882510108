"""Errors relative to the true value, for quantities that are never zero: lattice lengths."""

import numpy as np

from replimat.errors import DataError
from replimat.evaluation.checks import finite_pair

PRIMARY = "mape"


def relative_errors(target: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """mape: mean absolute error over the true value, % (Chitturi et al. 2021). Raises DataError for a value <= 0."""
    y, p, _ = finite_pair(target, prediction)
    if (y <= 0).any():
        raise DataError(f"A relative error needs positive true values, got {y.min():g}.")
    return {"mape": float(100 * np.abs((p - y) / y).mean())}
