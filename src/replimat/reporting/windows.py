"""Designs and what they were asked for: the predicted property of each beside its window and the training crystals."""

from pathlib import Path

import numpy as np

from replimat.records import Run
from replimat.reporting.style import BLACK, BLUE, GREY, ORANGE, VERMILION, axis, canvas

BINS = 60
SPREAD = 0.3  # of the points of a window to both sides, in windows
VIEW = 1, 99  # percentiles that the axis shows, of training crystals and designs together


def draw(path: Path, run: Run, arrays: dict[str, np.ndarray]) -> None:
    """arrays: of, unit (texts); bounds [W, 2]; of the n designs window, made, success (on target and new) and apart
    (atoms not too close); chance [n] (of random crystals); training [m], NaN where unknown.
    """
    bounds, window, made = arrays["bounds"], arrays["window"], arrays["made"]
    training = arrays["training"][np.isfinite(arrays["training"])]
    apart, success = arrays["apart"].astype(bool), arrays["success"].astype(bool)
    low, high = _view(training, made[apart & np.isfinite(made)], bounds)
    with canvas(path, (7.6, 4.6), ncols=2, sharey=True, width_ratios=(1, 2.2)) as (_, (left, right)):
        left.hist(training, np.linspace(low, high, BINS), orientation="horizontal", color=GREY, alpha=0.6)
        left.set(xlabel="training crystals", ylabel=axis(str(arrays["of"]), str(arrays["unit"])), ylim=(low, high))
        left.set_title(f"{run.paper} · {run.label}\n{len(training):,} training crystals, {len(made):,} designs")
        jitter = np.random.default_rng(0).uniform(-SPREAD, SPREAD, len(made))
        for k, (bottom, top) in enumerate(bounds):
            right.fill_between([k - 0.45, k + 0.45], bottom, top, color=VERMILION, alpha=0.25, linewidth=0)
            kinds = (
                ("random structures", arrays["chance"], np.ones(len(made), dtype=bool), ORANGE, 3.5),
                ("other designs", made, apart & ~success, BLACK, 3.5),
                ("successes", made, success, BLUE, 8),
            )
            for said, values, chosen, colour, size in kinds:
                rows = chosen & (window == k)
                look = {"color": colour, "markersize": size, "markeredgewidth": 0.4, "markeredgecolor": "white"}
                right.plot(k + jitter[rows], values[rows], "o", label=said if k == 0 else None, **look)
        right.set_xticks(range(len(bounds)), [f"{bottom:g}\nto {top:g}" for bottom, top in bounds])
        right.set_xlabel(axis("window asked for", str(arrays["unit"])))
        right.legend(loc="upper center", bbox_to_anchor=(0.3, -0.2), ncols=3)


def _view(training: np.ndarray, made: np.ndarray, bounds: np.ndarray) -> tuple[float, float]:
    both = np.concatenate([training, made])
    low, high = np.percentile(both, VIEW)
    return min(low, bounds[np.isfinite(bounds)].min()), max(high, bounds[np.isfinite(bounds)].max())
