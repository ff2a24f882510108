"""Which model is best on identical work: runs of several papers trained with the same dataset, target and split.

results/<scale>/: ranking.csv, ranking.md, ranking.png. Runs are ranked by their primary metric. A run whose record does
not stand up to its checks, or that has no value, is named and not ranked; released weights and predictions are not
ranked, since they were trained on other rows, perhaps on the test rows themselves.

How far a rank can be trusted: the test rows are drawn again, with replacement, RESAMPLES times, the same rows for all
models; a model is "level" with the first when the 95 % interval of its difference to the first contains zero. That
allows for the luck of the test rows, not for that of the training seed.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from replimat import cards, files
from replimat.audit import faults
from replimat.margins import is_score
from replimat.records import Run, finite, number, shown
from replimat.reporting.comparison import Outcome, load_outcomes
from replimat.reporting.figures import TRIVIAL
from replimat.reporting.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, canvas, metric_label
from replimat.reporting.tables import write_csv

RESAMPLES = 1000
BASELINES = TRIVIAL | {"mean": "mean predictor"}
CAVEAT = {
    "smoke": "Smoke scale trains for seconds: these ranks only show that the code runs.",
    "laptop": "These ranks are of reduced runs: a few hundred to a few thousand training rows, a few dozen epochs, "
    "often narrower networks. They say which model learns most from this much data and time, and nothing about how "
    "the published models compare.",
    "paper": "Published recipes on identical rows; where the data is a substitute, not the published comparison.",
}
COLUMNS = (
    *("dataset", "target", "metric", "unit", "rank", "model", "experiment", "value", "std", "n_seeds", "level", "note"),
    *("n_train", "n_test", "seconds", "hardware", "scale", "split_sha256", "test_ids_sha256"),
)
LINE = 0.5  # inch per group in the figure
COLOURS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK, GREY)
MARKS = "oDs^vPXp"


@dataclass
class Entry:
    """A model or a baseline in a group. rank: None for baselines and for what cannot be ranked (note says why)."""

    model: str
    value: float | None
    run: Run | None = None
    note: str = ""
    std: float | None = None
    rank: int | None = None
    level: bool = False  # not told apart from the first

    @property
    def seconds(self) -> float | None:
        """Of training, a seed."""
        spent = [seed.seconds for seed in self.run.seeds if seed.seconds is not None] if self.run else []
        return sum(spent) / len(spent) if spent else None

    @property
    def n_seeds(self) -> int | None:
        return len(_values(self.run)) if self.run else None


@dataclass
class Group:
    """Runs that did identical work, best first, baselines among them."""

    run: Run  # any of them: what they share is the same
    entries: list[Entry] = field(default_factory=list)

    @property
    def ranked(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.rank]

    @property
    def work(self) -> str:
        return f"{self.run.dataset}, {self.run.n_train:,} train, {self.run.n_test:,} test rows"

    @property
    def measure(self) -> str:
        """The metric with its unit."""
        metric = self.run.primary_metric
        unit = shown(self.run.unit_of(metric))
        return f"{metric_label(metric)} ({unit})" if unit else metric_label(metric)


def write_ranking(scale: str, runs_dir: str | Path, results_dir: str | Path) -> list[Group]:
    """Rank all runs of a scale and write ranking.csv, ranking.md and, if anything is ranked, ranking.png."""
    folder = Path(results_dir) / scale
    outcomes = [one for key in cards.paper_keys() for one in load_outcomes(cards.paper(key), scale, runs_dir)]
    groups = rank(outcomes)
    write_csv(folder / "ranking.csv", COLUMNS, [row for group in groups for row in _rows(group)])
    files.write_text(folder / "ranking.md", _markdown(groups, scale))
    figure = folder / "ranking.png"
    if groups:
        draw_ranking(figure, groups, scale)
    else:
        figure.unlink(missing_ok=True)
    return groups


def rank(outcomes: Iterable[Outcome]) -> list[Group]:
    """Groups of identical work that at least two papers did, each ranked."""
    same: dict[tuple, list[Outcome]] = {}
    for one in outcomes:
        if one.run and one.run.kind == "trained" and (key := _work(one.run)):
            same.setdefault(key, []).append(one)
    groups = [_group(same[key]) for key in sorted(same)]
    return [group for group in groups if len({entry.model for entry in group.ranked}) > 1]


def _work(run: Run) -> tuple | None:
    """What runs must share to be ranked together; None when the record does not say it."""
    hashes = [run.provenance.get(name) for name in ("data_sha256", "split_sha256", "test_ids_sha256")]
    return (run.dataset, run.target, run.primary_metric, run.unit, *hashes) if all(hashes) else None


def _group(outcomes: list[Outcome]) -> Group:
    first = outcomes[0].run
    sign = -1 if is_score(first.primary_metric) else 1  # more is better, or less
    entries = {id(one): _entry(one) for one in outcomes}
    baselines = [
        Entry(label, value)
        for name, label in BASELINES.items()
        if finite(value := first.baselines.get(name, {}).get(first.primary_metric))
    ]
    best_first = sorted(
        (one for one in outcomes if entries[id(one)].value is not None), key=lambda one: sign * entries[id(one)].value
    )
    for place, one in enumerate(best_first, start=1):
        entries[id(one)].rank = place
        entries[id(one)].level = place > 1 and _level(best_first[0], one)
    placed = sorted([*entries.values(), *baselines], key=lambda e: (e.value is None, sign * (e.value or 0)))
    return Group(first, placed)


def _entry(one: Outcome) -> Entry:
    values, wrong = _values(one.run), faults(one.checks)
    if wrong or not values:
        return Entry(one.run.paper, None, one.run, note=wrong[0] if wrong else f"failed: {one.run.reason}")
    lost = len(one.run.seeds) - len(values)
    note = f"{lost} of {len(one.run.seeds)} seeds failed" if lost else ""
    return Entry(one.run.paper, float(np.mean(values)), one.run, note, _std(values))


def _values(run: Run) -> list[float]:
    """The primary metric of every seed that finished."""
    found = [seed.metrics.get(run.primary_metric) for seed in run.seeds if seed.status == "ok"]
    return [value for value in found if finite(value)]


def _std(values: list[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


# ---------------------------------------------------- how sure a rank is


def _level(first: Outcome, other: Outcome) -> bool:
    """Whether the test rows do not tell two models apart: the 95 % interval of their difference contains zero."""
    a, b = _table(first), _table(other)
    if a is None or b is None or a[0] != b[0]:
        return False
    (ids, target, left), (_, _, right) = a, b
    drawn = np.random.default_rng(0).integers(len(ids), size=(RESAMPLES, len(ids)))
    metric = first.run.primary_metric
    difference = _resampled(metric, target, left, drawn) - _resampled(metric, target, right, drawn)
    low, high = np.nanpercentile(difference, [2.5, 97.5])
    return bool(low <= 0 <= high)


def _table(one: Outcome) -> tuple[list[str], np.ndarray, np.ndarray] | None:
    """Test ids, targets [n] and predictions of every seed [seeds, n] in the order of the ids; None without files."""
    found = [predictions for predictions in one.predictions.values() if predictions is not None]
    if not found or one.run.primary_metric not in SCORES:
        return None
    orders = [np.argsort(predictions.ids, kind="stable") for predictions in found]
    ids = found[0].ids[orders[0]]
    predicted = np.stack([predictions.prediction[order] for predictions, order in zip(found, orders, strict=True)])
    return ids.tolist(), found[0].target[orders[0]], predicted


def _resampled(metric: str, target: np.ndarray, predicted: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """The metric on every draw of rows, averaged over the seeds [RESAMPLES]."""
    return np.mean([SCORES[metric](target, seed, drawn) for seed in predicted], axis=0)


def _mae(target: np.ndarray, predicted: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    return np.abs(predicted - target)[drawn].mean(axis=1)


def _auc(target: np.ndarray, predicted: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Area under the ROC curve from the ranks of the positives (Mann-Whitney); NaN where a draw has one class only."""
    from scipy.stats import rankdata

    positive = target[drawn] == 1
    n1, n0 = positive.sum(axis=1), (~positive).sum(axis=1)
    ranks = np.where(positive, rankdata(predicted[drawn], axis=1), 0).sum(axis=1)
    return (ranks - n1 * (n1 + 1) / 2) / np.where(n1 * n0, n1 * n0, np.nan)


SCORES = {"mae": _mae, "auc": _auc}


# ---------------------------------------------------------------- tables


def _rows(group: Group) -> list[dict]:
    run = group.run
    shared = {"dataset": run.dataset, "target": run.target, "metric": run.primary_metric, "scale": run.scale}
    shared |= {"unit": run.unit_of(run.primary_metric), "n_train": run.n_train, "n_test": run.n_test}
    shared |= {name: run.provenance[name] for name in ("split_sha256", "test_ids_sha256")}
    own = ("rank", "model", "value", "std", "n_seeds", "note", "seconds")
    return [
        shared
        | {name: getattr(entry, name) for name in own}
        | {"level": entry.level if entry.rank else None}
        | ({"experiment": entry.run.experiment, "hardware": entry.run.hardware} if entry.run else {})
        for entry in group.entries
    ]


def _markdown(groups: list[Group], scale: str) -> str:
    lines = [f"# Same rows, same split: which model is best ({scale} scale)", "", CAVEAT[scale], ""]
    if not groups:
        lines.append("No two papers have been measured on the same rows.")
    for group in groups:
        lines += [f"## {group.run.target.replace('_', ' ')}: {group.work}", ""]
        lines += [f"| rank | model | {group.measure} | std | seeds | seconds | |", "| --- " * 7 + "|"]
        for entry in group.entries:
            cells = [entry.rank or "", entry.model, number(entry.value), number(entry.std), entry.n_seeds or ""]
            cells += [f"{entry.seconds:,.0f}" if entry.seconds is not None else "", remark(entry)]
            lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines) + "\n"


def remark(entry: Entry) -> str:
    """What stands beside an entry."""
    said = ["level with the first"] if entry.level else []
    return "; ".join([*said, *([entry.note] if entry.note else [])])


# ---------------------------------------------------------------- figure


def draw_ranking(path: Path, groups: list[Group], scale: str) -> None:
    """One line per group: how far every model is behind the best. Classes are drawn as 1 - AUC; forests are ticks."""
    models = sorted({entry.model for group in groups for entry in group.ranked})
    style = {name: (COLOURS[k % len(COLOURS)], MARKS[k % len(MARKS)]) for k, name in enumerate(models)}
    with canvas(path, (8.6, LINE * len(groups) + 1.8)) as (figure, axes):
        for y, group in enumerate(groups):
            best = group.ranked[0].value
            for entry in group.entries:
                if entry.rank:
                    colour, mark = style[entry.model]
                    face = "white" if entry.level else colour
                    behind = _behind(group, entry.value, best)
                    axes.plot(behind, y, mark, color=colour, markerfacecolor=face, markersize=9, markeredgewidth=1.8)
                elif entry.model == BASELINES["random_forest"]:
                    axes.plot(_behind(group, entry.value, best), y, "|", color=GREY, markersize=16, markeredgewidth=2)
        _ticks(axes)
        axes.set_yticks(range(len(groups)), [_label(group) for group in groups], fontsize=9.5)
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("error / error of the best model on the same test rows  (MAE; for classes 1 − AUC)")
        figure.suptitle(f"Same rows, same split: which model is best, {scale} scale", x=0.01, ha="left", weight="bold")
        figure.legend(handles=_legend(style, groups), loc="outside lower center", ncols=4)


def _behind(group: Group, value: float, best: float) -> float:
    """Error relative to that of the best model: 1 for the best, infinite when the best makes none."""
    error, least = (1 - value, 1 - best) if is_score(group.run.primary_metric) else (value, best)
    if least == 0:
        return 1.0 if error == 0 else float("inf")
    return error / least


def _label(group: Group) -> str:
    return f"{group.run.target.replace('_', ' ')}\n{group.run.dataset}, {group.run.n_test:,} test"


def _ticks(axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.95), max(high, 1.6))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.2, 1.5, 2, 3, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))


def _legend(style: dict, groups: list[Group]) -> list:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker=mark, color=colour, linestyle="", label=name) for name, (colour, mark) in style.items()
    ]
    handles.append(Line2D([], [], marker="|", color=GREY, linestyle="", markersize=12, label="random forest"))
    if any(entry.level for group in groups for entry in group.ranked):
        hollow = {"marker": "o", "color": BLACK, "markerfacecolor": "white", "linestyle": ""}
        handles.append(Line2D([], [], **hollow, label="hollow: level with the best"))
    return handles
