"""Several classes, told apart by number: shares that are right, over all rows and as means over the classes."""

import numpy as np

from replimat.errors import DataError
from replimat.evaluation.checks import finite_pair

PRIMARY = "accuracy"
MEANS = ("balanced_accuracy", "precision", "f1")  # over the classes that occur among the targets, each counting once


def multiclass(target: np.ndarray, prediction: np.ndarray, probabilities: np.ndarray | None = None) -> dict[str, float]:
    """Metrics of predicted classes [n] against true ones [n], both numbers from 0; probabilities of each class [n, K].

    top2_accuracy: the true class is among the two most probable (ties go to the lower number); balanced_accuracy is
    the mean recall. Rows where either side is not finite are left out and counted in `failed`. Raises DataError when a
    class is no whole number, or when there are fewer probabilities than rows.
    """
    y, p, failed = finite_pair(target, prediction)
    if not (np.equal(np.mod(y, 1), 0).all() and (y >= 0).all()):
        raise DataError(f"Classes must be whole numbers from 0; got {sorted(set(y.tolist()))[:5]}.")
    per_class = [_of_class(y == k, p == k) for k in np.unique(y)]
    metrics = {"accuracy": float((y == p).mean()), "evaluated": len(y), "failed": failed}
    metrics |= dict(zip(MEANS, np.mean(per_class, axis=0).tolist(), strict=True))
    if probabilities is not None:
        if len(probabilities) != len(target):
            raise DataError(f"{len(probabilities)} rows of probabilities for {len(target)} rows.")
        usable = np.isfinite(target) & np.isfinite(prediction)
        best = np.argsort(-probabilities[usable], axis=1, kind="stable")[:, :2]
        metrics["top2_accuracy"] = float((best == y[:, None]).any(axis=1).mean())
    return metrics


def confusion(target: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """How many rows of each true class (row) were taken for each class (column) [K, K]."""
    matrix = np.zeros((classes, classes), dtype=int)
    np.add.at(matrix, (np.asarray(target, dtype=int), np.asarray(prediction, dtype=int)), 1)
    return matrix


def _of_class(true: np.ndarray, said: np.ndarray) -> tuple[float, float, float]:
    """Recall, precision and F1 of one class that occurs; a class never predicted has precision 0."""
    right = (true & said).sum()
    recall, precision = right / true.sum(), right / max(said.sum(), 1)
    return recall, precision, 2 * right / (true.sum() + said.sum())
