"""Each claim of a paper beside what was measured, with a verdict; then all papers in one table.

results/<scale>/papers/<key>/: comparison.csv, comparison.md, metrics.json (small, for `dvc metrics show`), figures/.
results/<scale>/: comparison.csv, comparison.md, summary.json.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from replimat import cards, files
from replimat.audit import Check, Samples, check_run, check_together, faults
from replimat.cards import Claim, ExperimentCard, PaperCard
from replimat.errors import ExperimentError, ReplimatError
from replimat.margins import is_score
from replimat.records import Predictions, Run, read_predictions, read_run, read_samples, run_folder
from replimat.reporting.expected import expected_of
from replimat.reporting.tables import read_table, write_tables
from replimat.verdicts import VERDICTS, Verdict, judge


@dataclass
class Outcome:
    """What became of one target of an experiment at a scale: its record and predictions (or samples, where it
    generates), or why there are none.
    """

    name: str
    target: str
    card: ExperimentCard
    folder: Path
    run: Run | None = None
    absent: str = ""
    predictions: dict[int, Predictions | Samples | None] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)

    @property
    def claims(self) -> list[str]:
        return self.card.claims_by_target[self.target]


def compare_paper(key: str, scale: str, runs_dir: str | Path, results_dir: str | Path) -> Path:
    """Judge every claim of a paper at a scale; write its tables, metrics and figures, and return their folder.

    Raises CardError for an unknown paper, ExperimentError for a malformed record.
    """
    card, claims = cards.paper(key), cards.claims(key)
    outcomes = load_outcomes(card, scale, runs_dir)
    rows = rows_of(card, claims, outcomes, scale)
    folder = Path(results_dir) / scale / "papers" / key
    write_tables(folder, rows, title=f"{card.title} ({key}), {scale} scale")
    files.write_json(folder / "metrics.json", {"paper": key, "scale": scale} | summary(rows) | {"ours": _ours(rows)})
    drawn = _draw(folder / "figures", outcomes, {claim.claim_id: claim for claim in claims})
    drawn |= _potentials(folder, outcomes, claims) | _samples(folder, outcomes, claims)
    for stale in set((folder / "figures").glob("*.png")) - drawn:
        stale.unlink()
    return folder


def merge(scale: str, results_dir: str | Path) -> Path:
    """Put the comparisons of all papers into one table and count the verdicts; returns their folder.

    Papers not compared yet are named in summary.json. Raises ExperimentError when none is.
    """
    folder = Path(results_dir) / scale
    tables = {key: folder / "papers" / key / "comparison.csv" for key in cards.paper_keys()}
    there = [key for key, path in tables.items() if path.is_file()]
    if not there:
        raise ExperimentError(
            f"{folder}: no paper has been compared at {scale} scale; run `replimat compare PAPER` first."
        )
    rows = [row for key in there for row in read_table(tables[key])]
    write_tables(folder, rows, title=f"All papers, {scale} scale")
    papers = {key: summary(row for row in rows if row["paper"] == key) for key in there}
    missing = sorted(set(tables) - set(there))
    files.write_json(
        folder / "summary.json", {"scale": scale} | summary(rows) | {"papers": papers, "not_compared": missing}
    )
    return folder


def load_outcomes(card: PaperCard, scale: str, runs_dir: str | Path) -> list[Outcome]:
    """Records, predictions and checks of all experiments of a paper, target by target."""
    outcomes = [
        outcome
        for name, experiment in card.experiments.items()
        for outcome in _outcomes(card.key, name, experiment, scale, runs_dir)
    ]
    together = check_together(
        (one.run, next(iter(one.predictions.values()))) for one in outcomes if one.run and one.predictions
    )
    for one in outcomes:
        one.checks += [together[one.name, one.target]] if (one.name, one.target) in together else []
    return outcomes


def _outcomes(paper: str, name: str, card: ExperimentCard, scale: str, runs_dir: str | Path) -> list[Outcome]:
    folder = run_folder(runs_dir, scale, paper, name)
    run = read_run(folder) if card.at(scale) else None  # what an earlier card asked for is no answer to this one
    outcomes = [Outcome(name, target, card, folder) for target in card.claims_by_target]
    for outcome in outcomes:
        if run is None:
            outcome.absent = _why_absent(outcome, paper, scale)
        else:
            _judgeable(outcome, run)
    return outcomes


def _judgeable(outcome: Outcome, run: Run) -> None:
    """Add one target's part of the record, its predictions and their checks."""
    part = "" if outcome.target == outcome.card.target else outcome.target
    if part and run.status == "failed" and part not in run.parts:
        outcome.run = run  # it crashed before it could say anything of this target
        return
    outcome.run = run.part(part) if part else run
    finished = [seed for seed in outcome.run.seeds if seed.status == "ok"]
    read = read_samples if outcome.run.task == "generation" else read_predictions
    outcome.predictions = {
        seed.seed: read(outcome.folder, seed.seed, part, sha256=seed.file_sha256) for seed in finished
    }
    outcome.checks = check_run(outcome.run, outcome.predictions, expected_of(outcome.run))


def _needed(paper: str, name: str, scale: str) -> list[str]:
    """Datasets that an experiment needs, as far as they have cards."""
    from replimat.experiments.catalogue import plan_one

    try:
        return [one for one in plan_one(paper, name, scale).datasets if one in cards.dataset_names()]
    except (ReplimatError, ImportError):
        return []


def _why_absent(outcome: Outcome, paper: str, scale: str) -> str:
    if outcome.card.at(scale) is None:
        return f"its card has no settings for {scale} scale" + (f": {outcome.card.note}" if outcome.card.note else "")
    if paper_data := [name for name in _needed(paper, outcome.name, scale) if cards.dataset(name).data == "paper"]:
        return f"needs the paper's own data ({', '.join(paper_data)}), which the embedded suite does not fetch"
    started = outcome.folder.is_dir() and any(outcome.folder.iterdir())
    return "started and never finished: no run.json" if started else f"not run yet at {scale} scale"


# -------------------------------------------------------------------- rows


def rows_of(card: PaperCard, claims: Iterable[Claim], outcomes: list[Outcome], scale: str) -> list[dict]:
    """Every own or named claim times every experiment that names it; then the targets that answer no claim."""
    rows = []
    for claim in claims:
        answers = [one for one in outcomes if claim.claim_id in one.claims]
        rows += [_row(card.key, scale, claim, one) for one in answers]
        if not answers and claim.role == "own":
            rows.append(
                _row(card.key, scale, claim, None, card.not_attempted or "no experiment asks for this number yet")
            )
    rows += [_row(card.key, scale, None, one) for one in outcomes if not one.claims]
    if not rows:
        rows.append(_row(card.key, scale, None, None, card.not_attempted or "the paper prints no number of its own"))
    return rows


def _row(paper: str, scale: str, claim: Claim | None, outcome: Outcome | None, absent: str = "") -> dict:
    run = outcome.run if outcome else None
    checks = outcome.checks if outcome else []
    found = judge(
        claim,
        run,
        margin=outcome.card.margin if outcome else None,
        faults=faults(checks),
        absent=outcome.absent if outcome else absent,
    )
    row = {"paper": paper, "scale": scale, "experiment": outcome.name if outcome else ""}
    row |= _claim_columns(claim) | _run_columns(outcome) | _verdict_columns(found, checks)
    row["baseline_other"] = _best_other(found.baselines or {}, row)
    if run and outcome.card.note:
        row["reason"] = f"{row['reason']}. {outcome.card.note}"
    return row


def _claim_columns(claim: Claim | None) -> dict:
    if claim is None:
        return {}
    value = None if claim.value is None else f"{claim.value:.{claim.digits}f}"
    return {
        "claim_id": claim.claim_id,
        "table": claim.table,
        "model": claim.model,
        "dataset": claim.dataset,
        "reported_dataset": claim.dataset,
        "target": claim.target,
        "metric": claim.metric,
        "direction": claim.direction,
        "reported": value,
        "qualifier": claim.qualifier,
        "seen": claim.seen,
        "source": claim.source,
        "reported_n_train": claim.n_train,
        "reported_n_test": claim.n_test,
    }


def _run_columns(outcome: Outcome | None) -> dict:
    if outcome is None or outcome.run is None:
        return {}
    run = outcome.run
    finished = [seed for seed in run.seeds if seed.status == "ok"]
    columns = {
        "dataset": run.dataset,
        "data_origin": run.data_origin,
        "target": run.target,
        "rung": run.rung,
        "kind": run.kind,
        "split": run.split,
        "n_train": run.n_train,
        "n_test": run.n_test,
        "evaluated": _same([seed.evaluated for seed in finished]),
        "failed": _same([seed.failed for seed in finished]),
        "seconds": sum(seed.seconds or 0 for seed in run.seeds),
        "hardware": run.hardware,
        "leakage": "; ".join(f"{name.replace('_', ' ')} {count}" for name, count in run.leakage.items()),
    }
    if not outcome.claims:
        columns["metric"] = run.primary_metric
    return columns | {name: run.provenance.get(name) for name in ("data_sha256", "split_sha256", "code_commit")}


def _verdict_columns(found: Verdict, checks: list[Check]) -> dict:
    baselines = found.baselines or {}
    made = [check for check in checks if check.ok is not None]
    return {
        "unit": found.unit,
        "ours": found.ours,
        "std": found.std,
        "n_seeds": found.n_seeds or None,
        "ratio": found.ratio,
        "verdict": found.name,
        "reason": found.reason,
        "baseline_mean": baselines.get("mean"),
        "baseline_rf": baselines.get("random_forest"),
        "low": found.low,
        "high": found.high,
        "eps": found.eps,
        "eps_reason": found.eps_reason,
        "seeds_needed": found.seeds_needed,
        "counted": found.counted,
        "checks": f"{sum(check.ok for check in made)}/{len(made)}" if made else "",
    }


def _best_other(baselines: dict[str, float], row: dict) -> float | None:
    """The best baseline that has no column of its own."""
    others = [value for name, value in baselines.items() if name not in ("mean", "random_forest")]
    higher = row.get("direction") == "higher" or (not row.get("claim_id") and is_score(row.get("metric") or ""))
    return (max if higher else min)(others, default=None)


def _same(values: list) -> object:
    """The value all seeds share, or all of them in a line."""
    return values[0] if len(set(values)) == 1 else " ".join(map(str, values))


# ----------------------------------------------------------------- summary


def summary(rows: Iterable[dict]) -> dict:
    """Rows that count by verdict, and how many are shown without being counted (recalled, or nothing reported)."""
    rows = list(rows)
    counted = [row for row in rows if str(row.get("counted")).lower() == "true"]
    said = Counter(row["verdict"] for row in counted)
    return {
        "counted": len(counted),
        "shown_only": len(rows) - len(counted),
        "verdicts": {name: said[name] for name in VERDICTS if said[name]},
    }


def _ours(rows: list[dict]) -> dict:
    """Measured values: claim id -> experiment -> value."""
    values: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.get("ours") is not None:
            values.setdefault(row.get("claim_id") or "no claim", {})[row["experiment"]] = float(f"{row['ours']:.6g}")
    return values


def _draw(folder: Path, outcomes: list[Outcome], claims: dict[str, Claim]) -> set[Path]:
    """Figures of the experiments that have predictions."""
    drawn = set()
    for one in outcomes:
        if one.run and any(found is not None for found in one.predictions.values()):
            from replimat.reporting.figures import draw_experiment

            reported = [claims[claim] for claim in one.claims]
            drawn |= draw_experiment(folder, one.run, one.predictions, one.folder, reported)
    return drawn


def _potentials(folder: Path, outcomes: list[Outcome], claims: tuple[Claim, ...]) -> set[Path]:
    """Tables and figures of potentials whose physical properties were measured; returns the figures."""
    if not any(seed.properties for one in outcomes if one.run for seed in one.run.seeds):
        return set()
    from replimat.reporting.potentials import write_potentials

    return write_potentials(folder, outcomes, claims)


def _samples(folder: Path, outcomes: list[Outcome], claims: tuple[Claim, ...]) -> set[Path]:
    """Tables, figures and files of what was generated; returns the figures."""
    if not any(one.run and one.run.task == "generation" for one in outcomes):
        return set()
    from replimat.reporting.samples import write_samples

    return write_samples(folder, outcomes, claims)
