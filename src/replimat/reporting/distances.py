"""Distances between the atoms of generated molecules over those of the data, one panel for every pair of elements."""

from pathlib import Path

import numpy as np

from replimat.records import Run, number
from replimat.reporting.style import BLUE, GREY, ORANGE, VERMILION, canvas

COLUMNS = 3
LINES = {  # kept name -> label, colour, style
    "made": ("made", BLUE, "-"),
    "untrained": ("untrained generator", VERMILION, "--"),
    "random_structure": ("random points", ORANGE, ":"),
}


def draw(path: Path, run: Run, arrays: dict[str, np.ndarray]) -> None:
    """arrays: edges of the bins, angstrom [b + 1]; pairs of elements [p]; data, and of LINES what there is: share of
    the distances in every bin [p, b].
    """
    edges, pairs = arrays["edges"], arrays["pairs"].astype(str)
    middles = (edges[:-1] + edges[1:]) / 2
    rows = -(-len(pairs) // COLUMNS)
    with canvas(path, (3.7 * COLUMNS, 2.9 * rows + 0.9), nrows=rows, ncols=COLUMNS, squeeze=False) as (figure, grid):
        for axes, pair, k in zip(grid.flat, pairs, range(len(pairs)), strict=False):
            axes.fill_between(middles, 100 * arrays["data"][k], step="mid", color=GREY, alpha=0.45, label="data")
            for name, (label, colour, style) in LINES.items():
                if name in arrays:
                    width = 1.8 if name == "made" else 1.2
                    look = {"color": colour, "linestyle": style, "linewidth": width, "label": label}
                    axes.step(middles, 100 * arrays[name][k], where="mid", **look)
            shared = float(np.minimum(arrays["data"][k], arrays["made"][k]).sum())
            axes.set_title(f"{pair}   overlap {number(shared)}", fontweight="normal")
            axes.set_xlim(0, edges[-1])
            seen = max(arrays[name][k].max() for name in ("data", "made"))
            axes.set_ylim(0, 115 * seen)  # what is no molecule may pile up at one distance, and is cut there
        for axes in list(grid.flat)[len(pairs) :]:
            axes.set_axis_off()
        for axes in grid[-1]:
            axes.set_xlabel("distance (Å)")
        for axes in grid[:, 0]:
            axes.set_ylabel("share of the distances (%)")
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        title = f"{run.paper} · {run.label}: distances by pair of elements, n = {run.n_test:,} samples"
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=11.5)
