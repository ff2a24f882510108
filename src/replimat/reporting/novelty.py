"""Reconstruction errors: of known phases, mixtures and unknown phases, and of mixtures against the mixing ratio."""

from pathlib import Path

import numpy as np

from replimat import cards
from replimat.records import Run, number
from replimat.reporting.style import BLACK, BLUE, ORANGE, SKY, VERMILION, canvas

NAMES = ("known", "mixtures", "unknown")
COLOURS = (SKY, ORANGE, VERMILION)
METRIC = "reconstruction_error"
BINS = 20


def draw(path: Path, run: Run, arrays: dict[str, np.ndarray]) -> None:
    """arrays: error [n], kind [n] (0 known, 1 mixture, 2 unknown), share of the first phase [n], threshold []."""
    error, kind, limit = arrays["error"], arrays["kind"], float(arrays["threshold"])
    groups = [error[kind == one] for one in range(3)]
    with canvas(path, (10.0, 4.8), ncols=2, sharey=True, width_ratios=(1.15, 1)) as (_, (left, right)):
        _violins(left, groups)
        _reported(left, run)
        _by_share(right, arrays["share"][kind == 1], groups[1])
        for axes in (left, right):
            line = axes.axhline(limit, color=BLACK, linestyle="--", linewidth=1.2)
        line.set_label("95 % of known validation patterns lie below")
        right.legend(loc="lower center")
        left.set_yscale("log")
        _plain_ticks(left.yaxis)
        left.set_ylabel("reconstruction error")
        left.set_title(f"{run.paper} · {run.experiment}\nerrors of test patterns, median as bar")
        right.set_title("mixtures by mixing ratio")


def _violins(axes, groups: list[np.ndarray]) -> None:
    """Densities of the errors on a logarithmic axis, with median and number."""
    present = [(place, group) for place, group in enumerate(groups) if len(group) > 1]
    for place, group in present:
        heights, density = _density(group)
        width = 0.38 * density / density.max()
        axes.fill_betweenx(heights, place - width, place + width, color=COLOURS[place], linewidth=0)
        axes.plot([place - 0.2, place + 0.2], [np.median(group)] * 2, color=BLACK, linewidth=2)
    labels = [f"{NAMES[place]}\nn = {len(group):,}\nmean {number(group.mean())}" for place, group in present]
    axes.set_xticks([place for place, _ in present], labels)
    axes.set_xlim(-0.55, 2.55)


def _density(group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Errors and the density of their logarithm there."""
    from scipy.stats import gaussian_kde

    logarithms = np.log(group)
    if np.ptp(logarithms) == 0:
        return group[:1].repeat(2), np.ones(2)
    heights = np.linspace(logarithms.min(), logarithms.max(), 200)
    return np.exp(heights), gaussian_kde(logarithms)(heights)


def _reported(axes, run: Run) -> None:
    """A line for each reconstruction error the paper reports."""
    for claim in cards.claims(run.paper):
        if claim.metric == METRIC and claim.value is not None:
            axes.axhline(claim.value, color=BLUE, linewidth=1.5)
            left_out = "left out" in claim.dataset
            said = "phase left out" if left_out else "known phases"
            axes.annotate(
                f"reported {number(claim.value)}, {said}",
                (0 if left_out else 1, claim.value),
                xycoords=("axes fraction", "data"),
                xytext=(4 if left_out else -4, 3),
                textcoords="offset points",
                ha="left" if left_out else "right",
                color=BLUE,
                fontsize=9.5,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1},
            )


def _by_share(axes, share: np.ndarray, error: np.ndarray) -> None:
    """Every mixture, and the median of the errors in bins of the share."""
    axes.scatter(100 * share, error, s=6, color=ORANGE, linewidth=0)
    edges = np.linspace(0, 1, BINS + 1)
    place = np.clip(np.digitize(share, edges) - 1, 0, BINS - 1)
    middles = [(50 * (edges[k] + edges[k + 1]), np.median(error[place == k])) for k in np.unique(place)]
    axes.plot(*zip(*middles, strict=True), color=BLACK, linewidth=2, marker="o", markersize=4, label="median")
    axes.set_xlabel("share of the first phase in the recorded intensity (%)")


def _plain_ticks(which) -> None:
    """Ticks 1, 2, 5 of each decade as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    which.set_major_locator(LogLocator(subs=(1, 2, 5)))
    which.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    which.set_minor_locator(NullLocator())
