"""Energy within threshold (EwT): the share of structures whose error is small enough to be of use."""

import numpy as np

from replimat.errors import DataError
from replimat.evaluation.checks import finite_pair


def within_threshold(target: np.ndarray, prediction: np.ndarray, threshold: float) -> dict[str, float]:
    """Fraction of |prediction - target| < threshold, all in one unit.

    OC20 uses 0.02 eV on total adsorption energies; Matformer 0.02 and 0.01 eV per atom on crystals: not comparable with
    each other. A structure without a finite prediction counts as outside: it is of no use either.
    """
    if not threshold > 0:
        raise DataError(f"The threshold must be positive, got {threshold}.")
    y, p, failed = finite_pair(target, prediction)
    inside = int((np.abs(p - y) < threshold).sum())
    return {f"ewt_{threshold:g}": inside / (len(y) + failed), "evaluated": len(y), "failed": failed}
