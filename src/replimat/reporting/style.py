"""Colours and marks of the report, the same in figures and page.

The colours are those of Okabe and Ito, which colour-blind readers can tell apart; marks differ as well.
"""

import io
from contextlib import contextmanager

BLACK, ORANGE, SKY, GREEN = "#1b1e23", "#e69f00", "#56b4e9", "#009e73"
YELLOW, BLUE, VERMILION, PURPLE, GREY = "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#8a9099"

COLOUR = {
    "EXACT": GREEN,
    "REPRODUCED": GREEN,
    "BETTER": BLUE,
    "CONSISTENT": SKY,
    "INDICATIVE": PURPLE,
    "INCONCLUSIVE": GREY,
    "REDUCED": ORANGE,
    "WORSE": VERMILION,
    "FAILED": BLACK,
    "NOT ATTEMPTED": "#c9ced6",
}
MARK = {
    "EXACT": "*",
    "REPRODUCED": "o",
    "BETTER": "<",
    "CONSISTENT": "D",
    "INDICATIVE": "p",
    "INCONCLUSIVE": "s",
    "REDUCED": "o",
    "WORSE": ">",
    "FAILED": "X",
    "NOT ATTEMPTED": ".",
}
# How metrics are written in print: whole names, and words of the others.
PHRASES = {
    "mad_mae": "MAD:MAE",
    "cov_r": "COV-R",
    "cov_p": "COV-P",
    "emd_density": "EMD of densities",
    "emd_energy": "EMD of energies",
    "emd_n_elements": "EMD of numbers of elements",
}
WORDS = {
    "mape": "MAPE",
    "top2": "Top-2",
    "f1": "F1",
    "mae": "MAE",
    "rmse": "RMSE",
    "mse": "MSE",
    "mad": "MAD",
    "auc": "AUC",
    "r2": "R²",
    "ewt": "EwT",
    "sr5": "SR5",
    "sr10": "SR10",
    "sr15": "SR15",
}
DPI = 120
RC = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 11.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#5b626c",
    "axes.labelcolor": BLACK,
    "axes.grid": True,
    "grid.color": "#e6e9ee",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "figure.facecolor": "white",
}


@contextmanager
def canvas(path, size: tuple[float, float], **grid):
    """A figure with axes, written to `path` as PNG at the end; whole or not at all."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from PIL import Image

    from replimat.files import atomic

    with matplotlib.rc_context(RC):
        figure, axes = pyplot.subplots(figsize=size, layout="constrained", **grid)
        try:
            yield figure, axes
            drawn = io.BytesIO()
            figure.savefig(drawn, format="png", dpi=DPI)
            with atomic(path) as temporary, Image.open(drawn) as image:  # 64 colours are enough and a third of the size
                image.convert("RGB").quantize(64).save(temporary, format="png", optimize=True)
        finally:
            pyplot.close(figure)


def metric_label(metric: str) -> str:
    """A metric as it stands on an axis or in a table: MAE, AUC, validation MAE, EwT 0.02."""
    return PHRASES.get(metric) or " ".join(WORDS.get(word, word) for word in metric.split("_"))


def unit_label(unit: str) -> str:
    """A unit as it stands on an axis."""
    return {"1": "", "angstrom": "Å", "angstrom^2": "Å²", "bohr^2": "bohr²", "bohr^3": "bohr³"}.get(
        unit, unit.replace("angstrom", "Å").replace("muB", "µB").replace("^2", "²").replace("^3", "³")
    )


def axis(name: str, unit: str) -> str:
    """An axis label: name and unit, without brackets around nothing."""
    shown = unit_label(unit)
    return f"{name} ({shown})" if shown else name
