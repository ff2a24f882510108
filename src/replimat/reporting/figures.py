"""Figures of one experiment: what it predicted against the truth, and how it learned. One idea each."""

import csv
import importlib
from pathlib import Path

import numpy as np

from replimat.audit import rescore
from replimat.cards import Claim
from replimat.errors import DataError
from replimat.records import RELEASED, Predictions, Run, conversion, number
from replimat.reporting.confusion import draw_confusion
from replimat.reporting.style import BLACK, BLUE, GREY, ORANGE, SKY, VERMILION, axis, canvas, metric_label

TRIVIAL = {  # baselines drawn as levels
    "random_forest": "random forest",
    "pair_ridge": "ridge on 1/distance",
    "pair_potential": "best pair potential",
    "principal_components": "principal components",
}
KEPT = ("latent", "novelty", "ramp", "cells", "measured", "mixtures", "crystals", "distances", "windows")
DENSE = 1500  # points above which they hide each other and a density is drawn


def draw_experiment(
    folder: Path, run: Run, predictions: dict[int, Predictions | None], run_folder: Path, reported: list[Claim]
) -> set[Path]:
    """Draw what an experiment's files allow into `folder`; returns the paths drawn."""
    seed, found = next((seed, found) for seed, found in predictions.items() if found is not None)
    line = reported_value(run, reported)
    drawn = {_draw_predictions(folder, run, seed, found, line)} - {None}
    if not run.is_part:
        drawn |= draw_kept(folder, run, run_folder / f"seed{seed}")
    logs = {seed: log for seed in predictions if (log := read_log(run_folder / f"seed{seed}" / "log.csv"))}
    columns = next(iter(logs.values()), {})
    if logs and (not run.is_part or f"val_{run.target}_{run.primary_metric}" in columns):  # a part may go unwatched
        path = folder / f"learning-{run.label}.png"
        draw_learning(path, run, logs, line)
        drawn.add(path)
    return drawn


def draw_kept(folder: Path, run: Run, kept: Path) -> set[Path]:
    """Figures of arrays that the experiment kept for them, <kind>.npz: each by the module of its kind."""
    drawn = set()
    for kind in KEPT:
        if (kept / f"{kind}.npz").is_file():
            with np.load(kept / f"{kind}.npz", allow_pickle=False) as stored:
                arrays = dict(stored.items())
            path = folder / f"{kind}-{run.label}.png"
            importlib.import_module(f"replimat.reporting.{kind}").draw(path, run, arrays)
            drawn.add(path)
    return drawn


def _draw_predictions(folder: Path, run: Run, seed: int, found: Predictions, line: float | None) -> Path | None:
    kinds = {"regression": ("parity", draw_parity), "classification": ("parity", draw_roc)}
    kinds["multiclass"] = ("confusion", draw_confusion)
    if run.task not in kinds:
        return None
    kind, draw = kinds[run.task]
    path = folder / f"{kind}-{run.label}.png"
    draw(path, run, seed, found, line)
    return path


def reported_value(run: Run, reported: list[Claim]) -> float | None:
    """The paper's value of the primary metric, in the run's unit; None where it prints none that compares."""
    for claim in reported:
        if claim.metric == run.primary_metric and claim.value is not None:
            try:
                return claim.value * conversion(claim.unit, run.unit_of(claim.metric))
            except DataError:
                continue
    return None


def read_log(path: Path) -> dict[str, np.ndarray] | None:
    """Columns of a log.csv; None when there is no epoch in it. An empty cell is NaN."""
    if not path.is_file():
        return None
    with open(path, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    if not rows:
        return None
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}


def draw_parity(path: Path, run: Run, seed: int, found: Predictions, reported: float | None) -> None:
    """Predictions against true values, the diagonal, and the error beside the reported and the trivial ones."""
    usable = np.isfinite(found.target) & np.isfinite(found.prediction)
    target, prediction = found.target[usable], found.prediction[usable]
    low, high = _limits(target, prediction)
    with canvas(path, (5.4, 5.0)) as (figure, axes):
        diagonal = np.array([low, high])
        axes.plot(diagonal, diagonal, color=GREY, linewidth=1.2, zorder=1)
        if reported is not None:
            relative = run.primary_metric == "mape"
            reach = diagonal * reported / 100 if relative else reported
            band = axes.fill_between(diagonal, diagonal - reach, diagonal + reach, color=VERMILION, alpha=0.3)
            band.set(linewidth=0, zorder=1.5)
            said = f"{metric_label(run.primary_metric)} {number(reported)}" + (" %" if relative else "")
            axes.legend([band], [f"truth ± reported {said}"], loc="lower right")
        if len(target) > DENSE:
            extent = (low, high, low, high)
            density = axes.hexbin(
                target, prediction, gridsize=55, extent=extent, bins="log", mincnt=1, cmap="cividis_r"
            )
            figure.colorbar(density, ax=axes, shrink=0.7, label="rows per cell")
        else:
            axes.scatter(target, prediction, s=16, color=BLUE, alpha=0.45, linewidth=0)
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        target_name = run.target.replace("_", " ").replace("fermi", "Fermi")
        axes.set_xlabel(axis(f"true {target_name}", run.unit))
        axes.set_ylabel(axis(f"predicted {target_name}", run.unit))
        outside = int(((prediction < low) | (prediction > high)).sum())
        axes.set_title(_title(run, seed, len(target)) + (f", {outside} outside the axes" if outside else ""))
        ours = rescore(run.task, target, prediction)[run.primary_metric]
        _box(axes, run, ours, reported, (0.03, 0.97), "top")


def draw_roc(path: Path, run: Run, seed: int, found: Predictions, reported: float | None) -> None:
    """The ROC curve, the diagonal of chance, and the area beside the reported and the trivial ones."""
    from sklearn.metrics import roc_curve

    usable = np.isfinite(found.prediction)
    target, prediction = found.target[usable], found.prediction[usable]
    false_positive, true_positive, _ = roc_curve(target, prediction)
    with canvas(path, (5.4, 5.0)) as (_, axes):
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1.2, linestyle="--")
        axes.text(0.63, 0.6, "chance", color=GREY, rotation=45, rotation_mode="anchor")
        axes.fill_between(false_positive, true_positive, color=SKY, alpha=0.18, linewidth=0)
        axes.plot(false_positive, true_positive, color=BLUE, linewidth=2)
        axes.set(xlim=(-0.01, 1), ylim=(0, 1.01), aspect="equal")
        axes.set_xlabel("false positive rate")
        axes.set_ylabel("true positive rate")
        axes.set_title(f"{_title(run, seed, len(target))}, {int(target.sum())} positive")
        _box(axes, run, rescore(run.task, target, prediction)["auc"], reported, (0.97, 0.04), "bottom")


def draw_learning(path: Path, run: Run, logs: dict[int, dict[str, np.ndarray]], reported: float | None) -> None:
    """The validation metric of every seed by epoch, with the reported test value and the baselines; below, the loss."""
    metric = _logged_metric(run, logs)
    column = f"val_{run.target}_{metric}" if run.is_part else f"val_{metric}"
    primary = metric == run.primary_metric
    with canvas(path, (5.4, 5.0), nrows=2, sharex=True, height_ratios=(2, 1)) as (_, (top, bottom)):
        for log in logs.values():
            if column in log:
                top.plot(log["epoch"] + 1, log[column], color=BLUE, alpha=0.9, linewidth=1.8)
            if "train_loss" in log:
                bottom.plot(log["epoch"] + 1, log["train_loss"], color=ORANGE, linewidth=1.5)
            if "val_loss" in log:
                bottom.plot(log["epoch"] + 1, log["val_loss"], color=BLUE, linewidth=1.5, alpha=0.9)
        _level(top, reported if primary else None, "reported (test)", VERMILION, "-")
        for name, said in TRIVIAL.items():
            _level(top, run.baselines.get(name, {}).get(metric) if primary else None, f"{said} (test)", GREY, "--")
        top.margins(y=0.15)
        if metric not in ("auc", "accuracy"):
            top.set_yscale("log")
            _plain_log_ticks(top.yaxis)
        top.set_ylabel(axis(f"validation {metric_label(metric)}", run.unit_of(metric)))
        top.set_title(f"{run.paper} · {run.label}\n{_count(len(logs), 'seed')}, {run.n_train:,} training rows")
        bottom.set_yscale("symlog" if any((log.get("train_loss", 1) <= 0).any() for log in logs.values()) else "log")
        bottom.set_ylabel("loss")
        bottom.set_xlabel("epoch")
        bottom.text(0.99, 0.93, "training", color=ORANGE, transform=bottom.transAxes, ha="right", va="top")
        bottom.text(0.99, 0.75, "validation", color=BLUE, transform=bottom.transAxes, ha="right", va="top")


# ---------------------------------------------------------------- helpers


def _logged_metric(run: Run, logs: dict[int, dict[str, np.ndarray]]) -> str:
    """The primary metric, or what was watched in its place while training."""
    columns = next(iter(logs.values()))
    if run.is_part or f"val_{run.primary_metric}" in columns:
        return run.primary_metric
    watched = [name.removeprefix("val_") for name in columns if name.startswith("val_") and name != "val_loss"]
    return watched[0] if watched else run.primary_metric


def _limits(target: np.ndarray, prediction: np.ndarray) -> tuple[float, float]:
    """One range for both axes: all true values, and predictions unless they fly far out."""
    low, high = target.min(), target.max()
    room = 0.5 * (high - low) or 1.0
    low, high = min(low, max(prediction.min(), low - room)), max(high, min(prediction.max(), high + room))
    edge = 0.03 * (high - low) or 1.0
    return float(low - edge), float(high + edge)


def _title(run: Run, seed: int, n: int) -> str:
    source, counted = RELEASED.get(run.kind, f"seed {seed}"), "values" if run.is_part else "rows"
    return f"{run.paper} · {run.label}\n{source}, n = {n:,} test {counted}"


def _box(axes, run: Run, value: float, reported: float | None, where: tuple[float, float], vertical: str) -> None:
    """Ours, the paper's and the trivial value, one under the other, in a corner."""
    metric, unit = run.primary_metric, run.unit_of(run.primary_metric)
    lines = [axis(metric_label(metric), unit), f"ours {number(value)}"]
    lines += [f"reported {number(reported)}"] if reported is not None else []
    trivial = TRIVIAL | {"mean": "mean"}
    lines += [
        f"{said} {number(run.baselines[name].get(metric))}" for name, said in trivial.items() if name in run.baselines
    ]
    axes.text(
        *where,
        "\n".join(lines),
        transform=axes.transAxes,
        va=vertical,
        ha="left" if where[0] < 0.5 else "right",
        linespacing=1.4,
        bbox={"boxstyle": "round,pad=0.45", "facecolor": "white", "edgecolor": "#d4d9e0", "alpha": 0.92},
    )


def _level(axes, value: float | None, said: str, colour: str, style: str) -> None:
    if value is None:
        return
    axes.axhline(value, color=colour, linestyle=style, linewidth=1.5)
    axes.annotate(
        f"{said} {number(value)}",
        (1, value),
        xycoords=("axes fraction", "data"),
        xytext=(-3, 3),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color=colour if colour != GREY else BLACK,
        fontsize=10,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1},
    )


def _plain_log_ticks(which) -> None:
    """Ticks 1, 2, 5 of each decade as plain numbers: a log axis of less than a decade has no others."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    which.set_major_locator(LogLocator(subs=(1, 2, 5)))
    which.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    which.set_minor_locator(NullLocator())
    which.set_minor_formatter(NullFormatter())


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"
