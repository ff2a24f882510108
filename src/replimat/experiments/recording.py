"""Scores and the record of a run, as replimat.records reads them."""

from pathlib import Path

import numpy as np
import pandas as pd

from replimat import files
from replimat.evaluation.classification import PRIMARY as CLASSIFICATION_METRIC
from replimat.evaluation.classification import classification
from replimat.evaluation.regression import PRIMARY as REGRESSION_METRIC
from replimat.evaluation.regression import regression
from replimat.evaluation.within_threshold import within_threshold
from replimat.experiments.catalogue import Planned
from replimat.experiments.provenance import Stopwatch, code_commit, environment
from replimat.experiments.reductions import reductions


def primary_metric(task: str) -> str:
    """The metric a task is judged by where a paper prints no number."""
    return CLASSIFICATION_METRIC if task == "classification" else REGRESSION_METRIC


def score(
    task: str,
    ids: np.ndarray,
    target: np.ndarray,
    prediction: np.ndarray,
    path: Path,
    thresholds: tuple[float, ...] = (),
) -> dict:
    """Write the predictions of one target to `path` and return {"metrics", "evaluated", "failed"}.

    prediction: in the target's unit, or the probability of class 1; thresholds: see within_threshold.
    """
    with files.atomic(path) as temporary:
        pd.DataFrame({"id": ids, "target": target, "prediction": prediction}).to_parquet(temporary, index=False)
    metrics = (classification if task == "classification" else regression)(target, prediction)
    for threshold in thresholds:
        metrics |= within_threshold(target, prediction, threshold)
    evaluated, failed = metrics.pop("evaluated"), metrics.pop("failed")
    return {"metrics": metrics, "evaluated": evaluated, "failed": failed}


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
    files.write_json(folder / "run.json", record)
    files.write_json(folder / "provenance.json", provenance)
    return record
