"""Errors of a scalar: MAE, MSE, RMSE, R2, and the spread of the target (MAD) that an error is to be judged by."""

import numpy as np

from replimat.evaluation.checks import finite_pair

PRIMARY = "mae"
DIRECTION = {"mae": "lower", "mse": "lower", "rmse": "lower", "r2": "higher", "mad_mae": "higher", "mad": "none"}


def regression(target: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """Metrics of predictions [n] in the target's unit (mse: its square; r2, mad_mae: none).

    mad is the mean absolute deviation of the targets from their mean, so MAD:MAE is how many times better the model
    is than predicting the mean (Choudhary & DeCost 2021). r2 is NaN-free: it is left out when the target does not
    vary. Rows where either side is not finite are left out and counted in `failed`. Raises DataError if none is left.
    """
    y, p, failed = finite_pair(target, prediction)
    error = p - y
    mae, mse = float(np.abs(error).mean()), float((error**2).mean())
    mad = float(np.abs(y - y.mean()).mean())
    metrics = {"mae": mae, "mse": mse, "rmse": mse**0.5, "mad": mad, "evaluated": len(y), "failed": failed}
    if mae > 0:
        metrics["mad_mae"] = mad / mae
    if y.var() > 0:
        metrics["r2"] = 1.0 - mse / float(y.var())
    return metrics
