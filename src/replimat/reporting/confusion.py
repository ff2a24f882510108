"""Confusion matrix of one run: of each true class, the share taken for every class, and how many rows there are."""

from pathlib import Path

import numpy as np

from replimat.evaluation.multiclass import confusion, multiclass
from replimat.records import Predictions, Run, number
from replimat.reporting.style import BLACK, canvas


def draw_confusion(path: Path, run: Run, seed: int, found: Predictions, reported: float | None) -> None:
    """Rows are true classes, columns predicted ones; a class without rows stays empty."""
    usable = np.isfinite(found.target) & np.isfinite(found.prediction)
    target, prediction = found.target[usable].astype(int), found.prediction[usable].astype(int)
    names = run.classes or tuple(str(k) for k in range(int(max(target.max(), prediction.max())) + 1))
    counts = confusion(target, prediction, len(names))
    rows = counts.sum(axis=1)
    share = counts / np.maximum(rows, 1)[:, None]
    size = 3.0 + 0.6 * len(names)
    with canvas(path, (size + 0.6, size)) as (figure, axes):
        axes.grid(False)
        image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        figure.colorbar(image, ax=axes, shrink=0.7, label="share of the true class")
        for i, j in np.argwhere(counts > 0):
            colour = "white" if share[i, j] > 0.6 else BLACK
            axes.text(j, i, f"{share[i, j]:.2f}".lstrip("0"), ha="center", va="center", color=colour, fontsize=9.5)
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), [f"{name} ({n:,})" for name, n in zip(names, rows, strict=True)])
        axes.set_xlabel(f"predicted {run.target.replace('_', ' ')}")
        axes.set_ylabel("true (rows)")
        axes.set_title(f"{run.paper} · {run.label}\n{_said(run, target, prediction, reported)}")


def _said(run: Run, target: np.ndarray, prediction: np.ndarray, reported: float | None) -> str:
    scores = multiclass(target, prediction)
    said = f"accuracy {scores['accuracy']:.3f}, n = {len(target):,}"
    said += f", reported {number(reported)}" if reported is not None else ""
    return f"{said}\nbalanced accuracy {scores['balanced_accuracy']:.3f}"
