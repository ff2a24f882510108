"""Scores and the record of a run, as replimat.records reads them."""

from pathlib import Path

import numpy as np
import pandas as pd

from replimat import files
from replimat.evaluation import classification as two_classes
from replimat.evaluation import multiclass as several_classes
from replimat.evaluation import reconstruction as autoencoding
from replimat.evaluation import regression as scalars
from replimat.evaluation import search_volume as searching
from replimat.evaluation.generation import generation
from replimat.evaluation.multiclass import multiclass
from replimat.evaluation.within_threshold import within_threshold
from replimat.experiments.base import Made
from replimat.experiments.catalogue import Planned
from replimat.experiments.provenance import Stopwatch, code_commit, environment
from replimat.experiments.reductions import reductions
from replimat.records import CLASS_COLUMN, sealed

PRIMARY = {
    "regression": scalars.PRIMARY,
    "classification": two_classes.PRIMARY,
    "multiclass": several_classes.PRIMARY,
    "reconstruction": autoencoding.PRIMARY,
    "search_volume": searching.PRIMARY,
}
SCORES = {
    "regression": scalars.regression,
    "classification": two_classes.classification,
    "reconstruction": autoencoding.reconstruction,
    "search_volume": searching.search_volume,
}


def primary_metric(task: str) -> str:
    """The metric a task is judged by where a paper prints no number."""
    return PRIMARY[task]


def measure(task: str, target: np.ndarray, prediction: np.ndarray, probabilities: np.ndarray | None = None) -> dict:
    """Metrics of a task, with the rows `evaluated` and `failed`."""
    if task == "multiclass":
        return multiclass(target, prediction, probabilities)
    return SCORES[task](target, prediction)


def score(
    task: str,
    ids: np.ndarray,
    target: np.ndarray,
    prediction: np.ndarray,
    path: Path,
    thresholds: tuple[float, ...] = (),
    probabilities: np.ndarray | None = None,
) -> dict:
    """Write the predictions of one target to `path` and return {"metrics", "evaluated", "failed", "file_sha256"}.

    prediction: in the target's unit, the probability of class 1, or the class; thresholds: see within_threshold;
    probabilities: of each class [n, K].
    """
    columns = {"id": ids, "target": target, "prediction": prediction}
    if probabilities is not None:
        columns |= {f"{CLASS_COLUMN}{k}": values for k, values in enumerate(probabilities.T)}
    with files.atomic(path) as temporary:
        pd.DataFrame(columns).to_parquet(temporary, index=False)
    metrics = measure(task, target, prediction, probabilities)
    for threshold in thresholds:
        metrics |= within_threshold(target, prediction, threshold)
    evaluated, failed = metrics.pop("evaluated"), metrics.pop("failed")
    return {"metrics": metrics, "evaluated": evaluated, "failed": failed, "file_sha256": files.sha256(path)}


def sample_metrics(table: pd.DataFrame) -> dict[str, float | None]:
    """Metrics of a table of samples; None where there is no value, as a record has it."""
    return {name: value if np.isfinite(value) else None for name, value in generation(table).items()}


def score_samples(made: Made, path: Path) -> dict:
    """Write the table of what was generated to `path` and return {"metrics", "evaluated", "failed", "file_sha256"}."""
    metrics = sample_metrics(made.judged)
    with files.atomic(path) as temporary:
        made.judged.to_parquet(temporary, index=False)
    evaluated, failed = metrics.pop("evaluated"), metrics.pop("failed")
    return {"metrics": metrics, "evaluated": evaluated, "failed": failed, "file_sha256": files.sha256(path)}


def describe(planned: Planned, measured: dict[str, dict]) -> dict:
    """The part of a record that card, experiment and measurements decide.

    measured: by target, the main one first, each with unit, task, primary_metric, n_test, seeds, baselines and its own
    provenance.
    """
    experiment = planned.experiment
    main, *others = measured
    seeds = measured[main]["seeds"]
    good = any(seed["status"] == "ok" for seed in seeds)
    return {
        "paper": planned.paper,
        "experiment": planned.name,
        "scale": planned.scale,
        "dataset": planned.card.dataset,
        "data_origin": planned.card.origin,
        "target": main,
        "kind": experiment.kind,
        "rung": experiment.rung,
        "status": "ok" if good else "failed",
        "reason": "" if good else "; ".join(f"seed {seed['seed']}: {seed['reason']}" for seed in seeds),
        "reductions": reductions(planned),
        **measured[main],
        "parts": {name: measured[name] for name in others},
    }


def finish(folder: Path, record: dict, provenance: dict, watch: Stopwatch) -> dict:
    """Add provenance, write run.json and provenance.json into the run's folder, and return the record."""
    own = record.pop("provenance", {})
    provenance = {**provenance, **own, "code_commit": code_commit(), **environment(), **watch.read()}
    record = record | {"provenance": provenance}
    files.write_json(folder / "run.json", sealed(record))
    files.write_json(folder / "provenance.json", provenance)
    return record
