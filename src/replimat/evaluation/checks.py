"""What every metric asks of its inputs."""

import numpy as np

from replimat.errors import DataError


def finite_pair(target: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The rows where both are finite, as float64, and the number of rows that are not.

    Raises DataError when shapes differ or nothing is left: a metric over no samples is not a number.
    """
    target, prediction = np.asarray(target, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    if target.shape != prediction.shape or target.ndim != 1:
        raise DataError(f"Targets {target.shape} and predictions {prediction.shape} must be two vectors of one length.")
    usable = np.isfinite(target) & np.isfinite(prediction)
    if not usable.any():
        raise DataError(f"No finite pair of target and prediction among {len(target)}.")
    return target[usable], prediction[usable], int((~usable).sum())
