"""The one figure of the whole suite: how far each measured number lies from the reported one."""

from collections import Counter
from pathlib import Path

from replimat.reporting.style import BLACK, COLOUR, GREY, MARK, canvas, metric_label
from replimat.reporting.tables import as_number
from replimat.verdicts import VERDICTS

LINE = 0.235  # inch per line
WIDEST = 300.0  # factor at which the axis ends; what lies beyond is drawn at the edge


def draw_overview(path: Path, rows: list[dict], scale: str) -> bool:
    """Draw every row that has a ratio; returns whether there was any.

    A row is a claim, grouped by paper. To the right is always worse: errors are drawn as ours / reported, scores as
    reported / ours. Ticks are the baselines on the same scale. Released predictions that were scored again are left to
    the tables: they are many, and nearly all lie at one.
    """
    measured = [
        row for row in rows if row["kind"] != "author_predictions" and times_worse(row, row["ours"]) is not None
    ]
    if not measured:
        return False
    lines = _lines(measured)
    with canvas(path, (8.6, LINE * (len(lines) + 1) + 2.1)) as (figure, axes):
        axes.axvline(1, color=BLACK, linewidth=1.4)
        for y, (_, group) in enumerate(lines):
            if not group:
                axes.axhline(y + 0.5, color="#d4d9e0", linewidth=0.8)
            for row in group:
                _draw_row(axes, y, row)
        axes.set_xscale("log")
        _ticks(axes)
        axes.set_ylim(len(lines) - 0.4, -0.7)
        axes.set_yticks(range(len(lines)), [label for label, _ in lines])
        for tick, (_, group) in zip(axes.get_yticklabels(), lines, strict=True):
            recalled = group and all(row["seen"] == "recalled" for row in group)
            tick.set(weight="normal" if group else "bold", color=GREY if recalled else BLACK)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("times worse than reported\n(errors: ours / reported; scores: reported / ours)")
        axes.text(1, 1.005, "reported ", transform=axes.get_xaxis_transform(), ha="right", va="bottom", fontsize=10)
        numbers = f"{len(measured)} measured numbers of {len({row['paper'] for row in measured})} papers"
        figure.suptitle(f"{numbers}, {scale} scale", x=0.01, ha="left", fontsize=12, weight="bold")
        figure.legend(handles=_legend(measured), loc="outside lower center", ncols=3, fontsize=10)
    return True


def times_worse(row: dict, value: str | float | None) -> float | None:
    """By which factor a value of this row is worse than the reported one, below 1 if better; None without a factor."""
    ours, reported = as_number(value), as_number(row["reported"])
    if not ours or not reported or ours / reported <= 0:
        return None
    return reported / ours if row["direction"] == "higher" else ours / reported


def _lines(rows: list[dict]) -> list[tuple[str, list[dict]]]:
    """A heading per paper, then a line per claim with all rows that answer it."""
    lines: list[tuple[str, list[dict]]] = []
    for paper in dict.fromkeys(row["paper"] for row in rows):
        lines.append((paper, []))
        of_claim: dict[str, list[dict]] = {}
        for row in rows:
            if row["paper"] == paper:
                of_claim.setdefault(row["claim_id"], []).append(row)
        several = len({group[0]["model"] for group in of_claim.values()}) > 1
        said = Counter(_said(group[0], several) for group in of_claim.values())
        lines += [(_label(group[0], several, said[_said(group[0], several)] > 1), group) for group in of_claim.values()]
    return lines


def _said(row: dict, several: bool) -> str:
    """Target and metric of a claim; with the model where the paper reports several."""
    model = f"{row['model']}: " if several else ""
    metric = "" if row["metric"] == "mae" else f", {metric_label(row['metric'])}"
    return f"{model}{row['target'].replace('_', ' ')}{metric}"


def _label(row: dict, several: bool, ambiguous: bool) -> str:
    """Target and metric; with the paper's dataset where it reports the same of several."""
    dataset = f", {row['reported_dataset']}" if ambiguous else ""
    recalled = " (recalled)" if row["seen"] == "recalled" else ""
    return f"{_said(row, several)}{dataset}{recalled}"


def _draw_row(axes, y: float, row: dict) -> None:
    for name, height in (("baseline_rf", 11), ("baseline_other", 11), ("baseline_mean", 7)):
        factor = times_worse(row, row[name])
        if factor and factor < WIDEST:
            axes.plot(factor, y, marker="|", markersize=height, color=GREY, markeredgewidth=1.5)
    verdict, factor = row["verdict"], min(max(times_worse(row, row["ours"]), 1 / WIDEST), WIDEST)
    hollow = row["kind"] == "author_weights"
    if factor == WIDEST:
        beyond = f"{times_worse(row, row['ours']):,.0f}× →  "
        axes.annotate(beyond, (factor, y), ha="right", va="center", fontsize=9, color=COLOUR[verdict])
    axes.plot(
        factor,
        y,
        marker=MARK[verdict],
        markersize=9 if MARK[verdict] == "*" else 7,
        color=COLOUR[verdict],
        markerfacecolor="white" if hollow else COLOUR[verdict],
        markeredgewidth=1.6,
        alpha=0.55 if row["seen"] == "recalled" else 1,
        zorder=3,
    )


def _ticks(axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.8), max(high, 2.2))
    wide = axes.get_xlim()[1] / axes.get_xlim()[0] > 1000  # where labels at 1, 2 and 5 would run into each other
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if wide else (1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))


def _legend(rows: list[dict]) -> list:
    from matplotlib.lines import Line2D

    said = [name for name in VERDICTS if any(row["verdict"] == name for row in rows)]
    handles = [Line2D([], [], marker=MARK[name], color=COLOUR[name], linestyle="", label=name) for name in said]
    if any(row["kind"] == "author_weights" for row in rows):
        hollow = {"marker": "o", "color": BLACK, "markerfacecolor": "white", "linestyle": ""}
        handles.append(Line2D([], [], **hollow, label="hollow: author's weights"))
    for name, size in (("random forest (frames: ridge, pairs)", 11), ("mean predictor", 7)):
        handles.append(Line2D([], [], marker="|", color=GREY, linestyle="", markersize=size, label=name))
    return handles
