"""Two classes: area under the ROC curve, and what follows from a threshold of one half."""

import numpy as np

from replimat.errors import DataError
from replimat.evaluation.checks import finite_pair

PRIMARY = "auc"
DIRECTION = dict.fromkeys(
    ("auc", "accuracy", "balanced_accuracy", "precision", "recall", "specificity", "f1"), "higher"
)


def classification(target: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Metrics of the probability [n] of class 1 against targets 0 or 1 [n].

    Rows where either side is not finite are left out and counted in `failed`. Raises DataError if only one class is
    there (then there is no ROC curve) or a target is neither 0 nor 1.
    """
    import torch
    from torchmetrics.functional import classification as tm

    y, p, failed = finite_pair(target, probability)
    if set(np.unique(y)) != {0.0, 1.0}:
        raise DataError(f"Classes must be 0 and 1, both present; got {sorted(set(y.tolist()))[:5]}.")
    truth, score = torch.from_numpy(y).long(), torch.from_numpy(p)
    sensitivity = float(tm.binary_recall(score, truth))
    specificity = float(tm.binary_specificity(score, truth))
    return {
        "auc": float(tm.binary_auroc(score, truth)),
        "accuracy": float(tm.binary_accuracy(score, truth)),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "precision": float(tm.binary_precision(score, truth)),
        "recall": sensitivity,
        "specificity": specificity,
        "f1": float(tm.binary_f1_score(score, truth)),
        "evaluated": len(y),
        "failed": failed,
    }
