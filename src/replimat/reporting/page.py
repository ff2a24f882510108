"""The page: results/<scale>/report.html, one file that needs nothing else, for screens, telephones and paper."""

import base64
import json
from collections import Counter
from pathlib import Path

from replimat import cards, files
from replimat.cards import PaperCard
from replimat.errors import ExperimentError
from replimat.records import RELEASED, Run, SeedResult, number, read_run, run_folder, shown
from replimat.reporting.overview import draw_overview
from replimat.reporting.ranking import CAVEAT, remark, write_ranking
from replimat.reporting.style import COLOUR, metric_label
from replimat.reporting.tables import as_number, read_table, reported
from replimat.verdicts import VERDICTS

FAMILIES = {
    "property": "Property prediction",
    "generation": "Generation",
    "characterisation": "Characterisation",
    "phonons": "Potentials and phonons",
}
MEANING = {
    "EXACT": "No randomness (released weights or predictions), and equal to the printed digits.",
    "REPRODUCED": "At least three seeds on the paper's data and protocol; the interval for one more run lies wholly "
    "inside the margin around the reported value (two one-sided tests at 5 %).",
    "BETTER": "That interval lies wholly outside the margin, on the good side.",
    "CONSISTENT": "The reported value is inside the 95 % prediction interval, but the seeds spread too widely to "
    "confirm it within the margin; the seeds needed are said.",
    "INDICATIVE": "The paper's data and protocol, but fewer than three seeds: the spread is unknown.",
    "INCONCLUSIVE": "Neither inside nor wholly outside the margin, or the paper prints no number.",
    "REDUCED": "Less training or other data than the paper: the ratio is shown, and says nothing about the paper.",
    "WORSE": "The interval lies wholly outside the margin, on the bad side.",
    "FAILED": "Crashed, not a number, caught by a check of the record, or not better than a trivial baseline.",
    "NOT ATTEMPTED": "Nothing was run; the reason is given.",
}
FIGURES = {
    "cost": "Accuracy against cost",
    "physics": "Physics of the potentials",
    "parity": "Predicted against true",
    "confusion": "Confusion matrices",
    "cells": "Lattice lengths by crystal system",
    "latent": "Latent spaces",
    "novelty": "Known, mixed and unknown phases",
    "ramp": "Against temperature",
    "measured": "Measured patterns",
    "mixtures": "Mixtures",
    "rates": "How many samples pass",
    "spread": "Distributions beside the data's",
    "distances": "Distances between atoms",
    "windows": "Designs and their targets",
    "crystals": "The first ten that were made",
    "learning": "Learning curves",
}
WEIGHED = ("REPRODUCED", "BETTER", "CONSISTENT", "INCONCLUSIVE", "WORSE")  # verdicts the margin decides
SCALES = {
    "smoke": "Smoke scale runs all steps on a few dozen samples for seconds. Its numbers only show that the code runs.",
    "laptop": "Laptop scale trains every model on two processor cores within minutes: fewer samples, fewer epochs, and "
    "mostly public substitutes for data that cannot be had. No number here can be called reproduced, and a number far "
    "from the paper's does not count against the paper. What it shows: the model learns, and beats trivial baselines.",
    "paper": "Paper scale follows each published protocol as far as its data can be had, with at least three seeds.",
}


def write_report(scale: str, runs_dir: str | Path, results_dir: str | Path) -> Path:
    """Rank the models, draw the overview and write the page from the merged comparison; returns the page's path.

    Raises ExperimentError when the comparisons have not been merged.
    """
    folder = Path(results_dir) / scale
    if not (folder / "comparison.csv").is_file():
        raise ExperimentError(f"{folder}/comparison.csv is missing; run `replimat compare --scale {scale}` first.")
    rows = read_table(folder / "comparison.csv")
    overview = folder / "overview.png"
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    ranking = write_ranking(scale, runs_dir, results_dir)
    context = {
        "scale": scale,
        "scale_note": SCALES[scale],
        "verdicts": [{"name": name, "meaning": MEANING[name], "colour": COLOUR[name]} for name in VERDICTS],
        "summary": summary,
        "overview": data_uri(overview) if draw_overview(overview, rows, scale) else None,
        "ranking": ranking,
        "ranking_figure": data_uri(folder / "ranking.png") if ranking else None,
        "ranking_caveat": CAVEAT[scale],
        "families": _families(rows, scale, Path(runs_dir), folder),
        "measured": sum(1 for row in rows if row["ours"]),
        "papers_measured": len({row["paper"] for row in rows if row["ours"]}),
        "commits": sorted({row["code_commit"] for row in rows if row["code_commit"]}),
    }
    page = folder / "report.html"
    files.write_text(page, _template().render(context))
    return page


def data_uri(image: Path) -> str:
    """An image as text that stands inside a page."""
    return "data:image/png;base64," + base64.b64encode(image.read_bytes()).decode()


def _template():
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("replimat.reporting", "templates")
    surroundings = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    surroundings.filters |= {
        "number": lambda cell: number(as_number(cell)),
        "unit": shown,
        "short": _short,
        "metric": metric_label,
        "remark": remark,
    }
    return surroundings.get_template("report.html")


def _short(digest: str | None) -> str:
    """The first digits of a hash, enough to tell two apart."""
    return (digest or "unknown")[:10] + ("+" if (digest or "").endswith("+changes") else "")


# ------------------------------------------------------------------ papers


def _families(rows: list[dict], scale: str, runs_dir: Path, folder: Path) -> list[dict]:
    """Papers by family, each with all the template shows."""
    of_paper: dict[str, list[dict]] = {}
    for row in rows:
        of_paper.setdefault(row["paper"], []).append(row)
    papers = [_paper(cards.paper(key), found, scale, runs_dir, folder) for key, found in of_paper.items()]
    grouped = [
        {"title": title, "papers": [one for one in papers if one["card"].family == name]}
        for name, title in FAMILIES.items()
    ]
    return [family for family in grouped if family["papers"]]


def _paper(card: PaperCard, rows: list[dict], scale: str, runs_dir: Path, folder: Path) -> dict:
    runs = {name: read_run(run_folder(runs_dir, scale, card.key, name)) for name in card.experiments}
    several = len({row["model"] for row in rows if row["claim_id"]}) > 1
    attempted = [_row(row, several) for row in rows if row["verdict"] != "NOT ATTEMPTED"]
    absent = [_row(row, several) for row in rows if row["verdict"] == "NOT ATTEMPTED"]
    counted = Counter(row["verdict"] for row in rows if row["counted"] == "true")
    return {
        "card": card,
        "authors": ", ".join(card.authors[:3]) + (" and others" if len(card.authors) > 3 else ""),
        "status": _status(card, attempted),
        "attempted": attempted,
        "absent": absent,
        "bar": [(name, counted[name], COLOUR[name]) for name in VERDICTS if counted[name]],
        "counted": sum(counted.values()),
        "potentials": _potentials(folder / "papers" / card.key / "potentials.csv"),
        "generation": _generation(folder / "papers" / card.key / "generation.csv"),
        "figures": _figures(folder / "papers" / card.key / "figures"),
        "records": [_record(run, rows) for run in runs.values() if run],
    }


def _status(card: PaperCard, attempted: list[dict]) -> str:
    if attempted:
        measured = sum(1 for row in attempted if row["ours"])
        return f"{measured} numbers measured, {len(card.experiments)} experiments"
    return card.not_attempted or "no experiment has been run at this scale"


def _row(row: dict, several: bool = False) -> dict:
    """A row of the comparison with what the template needs; several: of the many models its paper reports."""
    colour = COLOUR[row["verdict"]]
    return row | {
        "said": reported(row),
        "colour": colour,
        "recalled": row["seen"] == "recalled",
        "name": row["target"].replace("_", " ") or row["experiment"] or "no reported number",
        "which": (row["model"] or row["experiment"]) if several else "",
        "released": RELEASED.get(row["kind"]),
        "weighed": row["verdict"] in WEIGHED,
    }


def _generation(path: Path) -> list[dict]:
    """Metrics of what was generated, by experiment and target."""
    rows = read_table(path) if path.is_file() else []
    groups: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        groups.setdefault((row["experiment"], row["target"].replace("_", " ")), []).append(row)
    return [{"experiment": name, "target": target, "rows": found} for (name, target), found in groups.items()]


def _potentials(path: Path) -> list[dict]:
    """Tables of potentials beside each other, one per material."""
    from replimat.reporting.potentials import pivot

    return pivot(read_table(path)) if path.is_file() else []


def _figures(folder: Path) -> dict[str, list[dict]]:
    """The figures of a paper by kind, each with its alternative text."""
    found = {}
    for kind, title in FIGURES.items():
        paths = sorted(folder.glob(f"{kind}-*.png"))
        experiments = [path.stem.removeprefix(f"{kind}-") for path in paths]
        found[title] = [
            {"uri": data_uri(path), "alt": f"{name}: {title.lower()}"}
            for path, name in zip(paths, experiments, strict=True)
        ]
    return found


def _record(run: Run, rows: list[dict]) -> dict:
    """Where the numbers of a run come from."""
    provenance = run.provenance
    checks = next((row["checks"] for row in rows if row["experiment"] == run.experiment), "")
    seeds = [_seed(run, seed) for seed in run.seeds]
    packages = ", ".join(f"{name} {version}" for name, version in provenance.get("packages", {}).items())
    return {
        "name": run.experiment,
        "facts": {
            "data": f"{run.dataset} ({run.data_origin}), sha256 {_short(provenance.get('data_sha256'))}",
            "split": f"{run.split or 'unknown'}, sha256 {_short(provenance.get('split_sha256'))}; {_sizes(run)}",
            "leakage": "; ".join(f"{name.replace('_', ' ')}: {count}" for name, count in run.leakage.items()),
            "prepared file": _short(provenance.get("prepared_key")),
            "code": _short(provenance.get("code_commit")),
            "environment": f"{_short(provenance.get('environment_sha256'))} ({packages})",
            "hardware": f"{run.hardware}; {provenance.get('device', '')}".rstrip("; "),
            "seeds": seeds or [run.reason],
            "reductions": list(run.reductions),
            "checks": f"{checks} passed" if checks else "none could be made",
            "warnings": list(run.warnings),
        },
    }


def _seed(run: Run, seed: SeedResult) -> str:
    """What one seed gave, in a line."""
    metric, unit = run.primary_metric, shown(run.unit_of(run.primary_metric))
    value = f"{metric_label(metric)} {number(seed.metrics.get(metric))} {unit}".rstrip()
    said = [f"seed {seed.seed}: " + (value if seed.status == "ok" else f"{seed.status}, {seed.reason}")]
    said += [f"{seed.seconds:,.0f} s"] if seed.seconds is not None else []
    said += [f"{seed.failed} rows failed"] if seed.failed else []
    return ", ".join(said)


def _sizes(run: Run) -> str:
    sizes = {"train": run.n_train, "validation": run.n_val, "test": run.n_test}
    return ", ".join(f"{count:,} {name}" for name, count in sizes.items() if count)
