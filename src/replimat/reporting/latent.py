"""A latent space seen from above: where the patterns of known phases, of mixtures and of unknown phases lie."""

from pathlib import Path

import numpy as np

from replimat.records import Run
from replimat.reporting.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, canvas

KNOWN, MIXTURE, UNKNOWN = range(3)
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, "#332288", "#7a4a1e")
MARKS = "osD^vph>"  # beside the colours, for those who cannot tell these apart
CROSSES = "x+1234"
DRAWN = 120  # patterns of each phase, and this many mixtures a phase: more hide each other


def draw(path: Path, run: Run, arrays: dict[str, np.ndarray]) -> None:
    """arrays: latent [n, L >= 2], kind [n] (0 known, 1 mixture, 2 unknown), phase [n], names [phases], known first."""
    latent, kind, phase = arrays["latent"][:, :2], arrays["kind"], arrays["phase"]
    names = arrays["names"].tolist()
    known = len(np.unique(phase[kind == KNOWN]))
    with canvas(path, (8.4, 5.8)) as (_, axes):
        mixtures = latent[kind == MIXTURE][: known * DRAWN]
        axes.scatter(*mixtures.T, s=7, color=GREY, linewidth=0, label="two-phase mixtures")
        for number, name in enumerate(names):
            of_phase = latent[phase == number][:DRAWN].T
            if number < known:
                look = {"marker": MARKS[number % len(MARKS)], "color": COLOURS[number % len(COLOURS)]}
                axes.scatter(*of_phase, s=24, edgecolor="white", linewidth=0.4, label=name, **look)
            else:
                mark = CROSSES[(number - known) % len(CROSSES)]
                axes.scatter(*of_phase, s=30, marker=mark, color=BLACK, linewidth=0.9, label=f"{name}, not learned")
        axes.set_xlabel("latent coordinate 1")
        axes.set_ylabel("latent coordinate 2")
        axes.set_title(f"{run.paper} · {run.experiment}\n{_counts(kind)}, at most {DRAWN} of a phase drawn")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=1.4)


def _counts(kind: np.ndarray) -> str:
    known, mixtures, unknown = (int((kind == one).sum()) for one in (KNOWN, MIXTURE, UNKNOWN))
    return f"n = {known:,} known, {mixtures:,} mixed, {unknown:,} unknown"
