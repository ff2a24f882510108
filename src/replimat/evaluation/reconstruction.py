"""How well an autoencoder gives back what it was shown."""

import numpy as np

from replimat.evaluation.checks import finite_pair

PRIMARY = "reconstruction_error"


def reconstruction(target: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """Mean of the rows' errors [n]; target is the perfect error, 0 [n]. Rows without a number are counted in
    `failed`.
    """
    y, p, failed = finite_pair(target, prediction)
    return {"reconstruction_error": float(np.abs(p - y).mean()), "evaluated": len(y), "failed": failed}
