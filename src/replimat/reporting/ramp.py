"""A powder through its phase transitions: what a network says of the phase and the cell at every temperature."""

from pathlib import Path

import numpy as np

from replimat.records import Run
from replimat.reporting.style import BLACK, BLUE, GREEN, GREY, ORANGE, canvas

COLOURS = (BLACK, ORANGE, GREEN, BLUE)
MARKS = ("o", "s", "^", "D")


def draw(path: Path, run: Run, arrays: dict[str, np.ndarray]) -> None:
    """Probability of each phase, lengths and angle of the cell against temperature, with the transitions.

    arrays: temperature (K) [n], probabilities [n, K] of the phases `names` [K], cells and literature (a, b, c in
    angstrom, alpha, beta, gamma in degree) [n, 6], phase by the transitions [n], transitions (K), measured (bool).
    """
    temperature, right = arrays["temperature"], arrays["probabilities"].argmax(axis=1) == arrays["phase"]
    with canvas(path, (7.0, 7.6), nrows=3, sharex=True, height_ratios=(2.2, 2, 1.4)) as (_, (top, middle, bottom)):
        for name, values, colour, mark in zip(arrays["names"], arrays["probabilities"].T, COLOURS, MARKS, strict=True):
            top.plot(temperature, values, color=colour, marker=mark, markersize=4, linewidth=1.2, label=str(name))
        top.set(ylim=(-0.04, 1.04), ylabel="probability of the phase")
        top.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=4, handletextpad=0.4, columnspacing=1.2)
        _against_literature(middle, arrays, dict(zip("abc", range(3), strict=True)))
        middle.plot([], [], color=BLACK, linewidth=1.4, label="literature")
        middle.set_ylabel("lengths (Å)")
        middle.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=4, handletextpad=0.4, columnspacing=1.2)
        _against_literature(bottom, arrays, {"alpha": 3})
        bottom.set(ylabel="alpha (degree)", xlabel="temperature (K)")
        for axes in (top, middle, bottom):
            for edge in arrays["transitions"]:
                axes.axvline(edge, color=GREY, linestyle="--", linewidth=1.2)
        _name_phases(top, arrays)
        kind = "measured" if arrays["measured"] else "simulated"
        said = f"{right.sum()} of {len(right)} {kind} patterns in the phase of their temperature"
        top.set_title(f"{run.paper} · {run.label}\n{said}", pad=22)


def _against_literature(axes, arrays: dict[str, np.ndarray], columns: dict[str, int]) -> None:
    """Predicted values as points, those of the literature as lines that break at the transitions."""
    temperature, phase = arrays["temperature"], arrays["phase"]
    for (name, column), colour, mark in zip(columns.items(), (BLUE, ORANGE, GREEN), ("o", "s", "x"), strict=False):
        axes.scatter(temperature, arrays["cells"][:, column], s=18, color=colour, marker=mark, label=name, alpha=0.8)
        for one in np.unique(phase):
            rows = phase == one
            axes.plot(temperature[rows], arrays["literature"][rows, column], color=colour, linewidth=1.4, zorder=1)


def _name_phases(axes, arrays: dict[str, np.ndarray]) -> None:
    """Names of the phases above the range of each."""
    for number in np.unique(arrays["phase"]):
        middle = arrays["temperature"][arrays["phase"] == number].mean()
        axes.annotate(
            str(arrays["names"][number]),
            (middle, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            color=COLOURS[number],
        )
