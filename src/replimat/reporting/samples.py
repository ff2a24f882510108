"""What generators made: one table of all their metrics, figures, and files of the first ten to open.

results/<scale>/papers/<key>/: generation.csv, generation.md; figures/rates-*.png (shares that pass, beside an untrained
generator, random structures and the reported value) and figures/spread-*.png (distributions beside the data's);
crystals/<experiment>/: ten CIF files, of molecules xyz files.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from replimat.audit import Samples
from replimat.cards import Claim
from replimat.errors import DataError
from replimat.files import atomic, write_text
from replimat.records import Run, conversion, finite, number, shown
from replimat.reporting.comparison import Outcome
from replimat.reporting.style import BLACK, BLUE, GREY, ORANGE, SKY, axis, canvas, metric_label
from replimat.reporting.tables import write_csv
from replimat.representations.conversion import as_atoms, unpacked
from replimat.verdicts import BASELINES

COLUMNS = ("experiment", "target", "metric", "unit", "ours", "std", "n_seeds", "baselines", "reported", "model", "seen")
LOOKED_AT = 10  # structures written and drawn
BINS = 40
MARKS = {"untrained": ("s", GREY), "random_structure": ("D", ORANGE)}


def write_samples(folder: Path, outcomes: Iterable[Outcome], claims: Iterable[Claim]) -> set[Path]:
    """Write tables, files and figures of all runs that generate; returns the figures."""
    said = {claim.claim_id: claim for claim in claims}
    made = [one for one in outcomes if one.run and one.run.task == "generation" and values_of(one.run)]
    rows = [row for one in made for row in rows_of(one.run, [said[name] for name in one.claims])]
    write_csv(folder / "generation.csv", COLUMNS, rows)
    write_text(folder / "generation.md", _markdown(rows))
    shutil.rmtree(folder / "crystals", ignore_errors=True)
    drawn = set()
    for one in made:
        path = folder / "figures" / f"rates-{one.run.label}.png"
        if draw_rates(path, one.run, [said[name] for name in one.claims]):
            drawn.add(path)
        seed, found = next(iter(one.predictions.items()), (0, None))
        path = folder / "figures" / f"spread-{one.run.label}.png"
        if found is not None and draw_spreads(path, one.run, found):
            drawn.add(path)
        kept = one.folder / f"seed{seed}" / "crystals.npz"
        if kept.is_file() and not one.run.is_part:
            write_structures(folder / "crystals" / one.run.experiment, kept)
    return drawn


# ------------------------------------------------------------------- table


def values_of(run: Run) -> dict[str, list[float]]:
    """Finite values of every metric over the seeds that finished."""
    finished = [seed.metrics for seed in run.seeds if seed.status == "ok"]
    names = dict.fromkeys(name for metrics in finished for name in metrics)
    found = {name: [metrics[name] for metrics in finished if finite(metrics.get(name))] for name in names}
    return {name: values for name, values in found.items() if values}


def rows_of(run: Run, reported: list[Claim]) -> list[dict]:
    """A row for every metric, with the baselines' values in words."""
    rows = []
    for metric, values in values_of(run).items():
        beside = [
            f"{BASELINES.get(name, name.replace('_', ' '))} {number(scores[metric])}"
            for name, scores in run.baselines.items()
            if finite(scores.get(metric))
        ]
        claim, value = claimed(run, metric, reported)
        rows.append(
            {
                "experiment": run.experiment,
                "target": run.target,
                "metric": metric,
                "unit": run.unit_of(metric),
                "ours": float(np.mean(values)),
                "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
                "n_seeds": len(values),
                "baselines": "; ".join(beside),
                "reported": value,
                "model": claim.model if claim else "",
                "seen": claim.seen if claim else "",
            }
        )
    return rows


def claimed(run: Run, metric: str, reported: list[Claim]) -> tuple[Claim | None, float | None]:
    """The first claim of a metric, and its value in the run's unit."""
    for claim in reported:
        if claim.metric == metric and claim.value is not None:
            try:
                return claim, claim.value * conversion(claim.unit, run.unit_of(metric))
            except DataError:
                continue
    return None, None


def _markdown(rows: list[dict]) -> str:
    lines = ["| experiment | target | metric | ours | baselines | reported |", "|---|---|---|---|---|---|"]
    for row in rows:
        spread = f" ± {number(row['std'])}" if row["std"] is not None else ""
        ours = f"{number(row['ours'])}{spread} {shown(row['unit'])}".rstrip()
        names = row["experiment"], row["target"].replace("_", " "), metric_label(row["metric"])
        lines.append(f"| {' | '.join(names)} | {ours} | {row['baselines']} | {number(row['reported'])} |")
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------- files


def write_structures(folder: Path, kept: Path) -> None:
    """The first structures of a crystals.npz, one file each, named by number and formula."""
    from ase.io import write

    folder.mkdir(parents=True, exist_ok=True)
    for k, atoms in enumerate(as_atoms(unpacked(read_kept(kept)))[:LOOKED_AT], start=1):
        kind = "cif" if atoms.pbc.any() else "xyz"
        with atomic(folder / f"{k:02d}-{atoms.get_chemical_formula(empirical=kind == 'cif')}.{kind}") as temporary:
            write(temporary, atoms, format=kind)


def read_kept(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored.items())


# ----------------------------------------------------------------- figures


def draw_rates(path: Path, run: Run, reported: list[Claim]) -> bool:
    """Every metric in % as a line of points; False where there is none."""
    shares = {name: values for name, values in values_of(run).items() if run.unit_of(name) == "%"}
    if not shares:
        return False
    names = list(shares)
    with canvas(path, (7.2, 2.0 + 0.4 * len(names))) as (figure, axes):
        for place, name in enumerate(names):
            _, value = claimed(run, name, reported)
            axes.plot([0, 100], [place, place], color="#e6e9ee", linewidth=1, zorder=1)
            if value is not None:
                label = "reported" if not axes.get_legend_handles_labels()[1].count("reported") else None
                axes.plot([value, value], [place - 0.32, place + 0.32], color=BLACK, linewidth=3, label=label)
            for baseline, scores in run.baselines.items():
                if finite(scores.get(name)):
                    mark, colour = MARKS.get(baseline, ("v", SKY))
                    said = BASELINES.get(baseline, baseline.replace("_", " "))
                    label = said if said not in axes.get_legend_handles_labels()[1] else None
                    look = {"markersize": 7, "markerfacecolor": "white", "markeredgewidth": 1.6}
                    axes.plot(scores[name], place, mark, color=colour, label=label, **look)
            label = "ours, each seed" if place == 0 else None
            axes.plot(shares[name], [place] * len(shares[name]), "o", color=BLUE, markersize=8, label=label, zorder=3)
            axes.annotate(
                number(float(np.mean(shares[name]))),
                (1.01, place),
                xycoords=("axes fraction", "data"),
                va="center",
                color=BLACK,
            )
        axes.set(xlim=(-2, 102), ylim=(len(names) - 0.4, -0.6), xlabel="share (%)")
        axes.set_yticks(range(len(names)), [metric_label(name) for name in names])
        axes.grid(axis="y", visible=False)
        seeds = f"{len(run.seeds)} seeds" if len(run.seeds) > 1 else "1 seed"
        axes.set_title(f"{run.paper} · {run.label}\nn = {run.n_test:,} samples, {seeds}")
        figure.legend(loc="outside lower left", ncols=2)
    return True


def draw_spreads(path: Path, run: Run, found: Samples) -> bool:
    """Histograms of what was made over those of the data, one for every emd column; False where there is none."""
    made = found["of"] == "made"
    columns = [name for name in found if name.startswith("emd.")]
    columns = [name for name in columns if all(np.isfinite(found[name][rows]).any() for rows in (made, ~made))]
    if not columns:
        return False
    with canvas(path, (3.7 * len(columns) + 0.6, 3.6), ncols=len(columns), squeeze=False) as (figure, grid):
        for axes, column in zip(grid[0], columns, strict=True):
            _spread(axes, run, column.partition(".")[2], found[column][made], found[column][~made])
        grid[0][0].set_ylabel("share of the samples")
        grid[0][0].legend(loc="upper right")
        figure.suptitle(f"{run.paper} · {run.label}", x=0.01, ha="left", fontweight="bold", fontsize=11.5)
    return True


def _spread(axes, run: Run, name: str, made: np.ndarray, data: np.ndarray) -> None:
    made, data = made[np.isfinite(made)], data[np.isfinite(data)]
    low, high = np.percentile(np.concatenate([made, data]), [0.5, 99.5])
    whole = np.array_equal(data, np.round(data)) and high - low <= BINS
    edges = np.arange(np.floor(low) - 0.5, np.ceil(high) + 1) if whole else np.linspace(low, high, BINS + 1)
    share = lambda values: np.full(len(values), 1 / len(values))  # noqa: E731
    axes.hist(data, edges, weights=share(data), color=GREY, alpha=0.45, label=f"data, {len(data):,}")
    axes.hist(
        made, edges, weights=share(made), histtype="step", color=BLUE, linewidth=1.8, label=f"made, {len(made):,}"
    )
    metric = f"emd_{name}"
    values = values_of(run).get(metric, [np.nan])
    axes.set_xlabel(axis(name.replace("_", " "), run.unit_of(metric)))
    axes.set_title(f"EMD {number(values[0])}", fontweight="normal")
