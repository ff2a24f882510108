"""Weight fractions of mixtures, predicted against true: one panel for each phase."""

import math
from pathlib import Path

import numpy as np

from replimat.records import Run, number
from replimat.reporting.style import BLUE, GREY, VERMILION, canvas

COLUMNS = 4
NAMED = 20  # mixtures up to which each is told by its number


def draw(path: Path, run: Run, arrays: dict[str, np.ndarray]) -> None:
    """arrays: phases [K], samples [n], true and found weight fractions in % [n, K]."""
    phases, true, found = arrays["phases"], arrays["true"], arrays["found"]
    rows = math.ceil(len(phases) / COLUMNS)
    high = 1.06 * max(true.max(), found.max())
    size = (2.4 * COLUMNS, 2.45 * rows + 0.9)
    with canvas(path, size, nrows=rows, ncols=COLUMNS, sharex=True, sharey=True, squeeze=False) as (figure, axes):
        for k, panel in enumerate(axes.ravel()):
            if k < len(phases):
                _panel(panel, str(phases[k]), true[:, k], found[:, k], high)
            else:
                panel.set_visible(False)
        figure.supxlabel("true weight fraction (%)", fontsize=11)
        figure.supylabel("predicted weight fraction (%)", fontsize=11)
        said = f"{len(true)} mixtures, MAE {number(np.abs(found - true).mean())} weight %"
        said += ", each by its number" if len(true) <= NAMED else ""
        figure.suptitle(f"{run.paper} · {run.label}\n{said}", fontsize=11.5, fontweight="bold", x=0.01, ha="left")


def _panel(panel, phase: str, true: np.ndarray, found: np.ndarray, high: float) -> None:
    """Mixtures without the phase in another colour."""
    panel.plot([0, high], [0, high], color=GREY, linewidth=1.2, zorder=1)
    there = true > 0
    for which, colour in ((there, BLUE), (~there, VERMILION)):
        if len(true) > NAMED:
            panel.scatter(true[which], found[which], s=11, color=colour, alpha=0.45, linewidth=0)
            continue
        for k in np.flatnonzero(which):
            panel.text(true[k], found[k], str(k + 1), color=colour, ha="center", va="center", fontsize=10.5)
    panel.set(xlim=(-0.05 * high, high), ylim=(-0.05 * high, high), aspect="equal")
    panel.set_title(phase, fontsize=10.5)
    said = {"transform": panel.transAxes, "fontsize": 9.5}
    panel.text(0.05, 0.95, f"MAE {number(np.abs(found - true).mean())}", va="top", **said)
    if not there.all():
        panel.text(0.96, 0.05, f"{(~there).sum()} without it", ha="right", color=VERMILION, **said)
