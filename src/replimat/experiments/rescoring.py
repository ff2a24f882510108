"""Rung 4: test predictions that authors released, scored again against the benchmark's true values.

Nothing is trained. What is missing counts: every test row of the benchmark is in the record, with or without a
prediction, so that a shrunken test set is seen.
"""

from functools import cache

import numpy as np

from replimat import cards, sources
from replimat.datasets.jarvis_dft import CLASSES, PARTS, benchmark_file, read_benchmark
from replimat.datasets.splits import split_sha256
from replimat.errors import DataError, ExperimentError
from replimat.evaluation.classification import classification
from replimat.evaluation.regression import regression
from replimat.experiments.catalogue import Planned
from replimat.experiments.provenance import Stopwatch, hardware
from replimat.experiments.recording import describe, finish, primary_metric, score
from replimat.experiments.released import join, read_released, released_file, remarks
from replimat.files import sha256
from replimat.records import ids_sha256, predictions_path, targets_sha256

THRESHOLDS = {"eV/atom": (0.02, 0.01)}  # shares of energies per atom within these errors are scored too
SEED = 0  # there is no randomness, and the record has this one


class Rescoring:
    """Released predictions of one experiment, in its run's folder: every target scored, then run.json."""

    def __init__(self, planned: Planned):
        self.planned, self.experiment = planned, planned.experiment
        self.folder = cards.project_root() / planned.folder
        self.specs = cards.dataset(self.experiment.dataset).targets
        self.benchmark = sources.folder_of(self.experiment.dataset)
        self.released = sources.folder_of(self.experiment.predictions)
        if unknown := [name for name in self.experiment.targets if name not in self.specs]:
            raise ExperimentError(f"Dataset {self.experiment.dataset!r} has no target {', '.join(unknown)}.")

    def fit(self) -> dict:
        """Score every target, write predictions and run.json, and return the record.

        A file that cannot be scored is recorded as failed and does not stop the others. Raises SourceError when the
        files are not here.
        """
        watch = Stopwatch()
        for name in (self.experiment.dataset, self.experiment.predictions):
            sources.verify(name)
        measured = {target: self._measure(target) for target in self.experiment.targets}
        record = describe(self.planned, measured) | {
            "split": "author",
            "full_protocol": False,
            "deterministic": True,
            "reductions": [],  # of a training, and nothing is trained
            "hardware": hardware("cpu"),
        }
        return finish(self.folder, record, {"device": "cpu"}, watch)

    def evaluate(self) -> dict:
        """The same: to score is all there is to do."""
        return self.fit()

    def _measure(self, target: str) -> dict:
        """What the record says of one target."""
        spec = self.specs[target]
        task = task_of(spec.column)
        parts = read_benchmark(self.benchmark, spec.column)
        test = parts["test"]
        truth = np.array(list(test.values()))
        seed, warnings = self._attempt(target, test)
        return {
            "unit": spec.unit,
            "task": task,
            "primary_metric": "accuracy" if task == "classification" else primary_metric(task),
            "status": seed["status"],
            "reason": seed["reason"],
            "n_train": len(parts["train"]),
            "n_val": len(parts["val"]),
            "n_test": len(test),
            "seeds": [seed],
            "baselines": {"mean": _mean_predictor(task, parts["train"], truth)},
            "leakage": {"same_id": len(test.keys() & parts["train"].keys())},
            "warnings": warnings,
            "provenance": benchmark_hashes(self.experiment.dataset, target)
            | {"predictions_sha256": sha256(self.released / released_file(spec.column))},
        }

    def _attempt(self, target: str, test: dict[str, float]) -> tuple[dict, list[str]]:
        """The seed's record of a target, and what must be known of its ids."""
        watch, warnings = Stopwatch(), []
        record = {"seed": SEED, "status": "ok", "reason": "", "metrics": {}, "evaluated": 0, "failed": len(test)}
        try:
            released = read_released(self.released, self.specs[target].column)
            prediction = join(test, released, self.experiment.ids_as_text)
            warnings = remarks(test, released, prediction)
            record |= self._score(target, test, prediction)
        except DataError as error:
            record |= {"status": "failed", "reason": str(error)}
        spent = watch.read()
        return record | {"seconds": spent["wall_seconds"], "peak_memory_mb": spent["peak_memory_mb"]}, warnings

    def _score(self, target: str, test: dict[str, float], prediction: np.ndarray) -> dict:
        spec = self.specs[target]
        path = predictions_path(self.folder, SEED, "" if target == self.experiment.target else target)
        ids, truth = np.array(list(test)), np.array(list(test.values()))
        task = task_of(spec.column)
        found = score(task, ids, truth, prediction, path, THRESHOLDS.get(spec.unit, ()))
        if task == "classification":  # classes were handed in, not probabilities: they have no ranking, so no AUC
            found["metrics"].pop("auc")
        return found


@cache
def benchmark_hashes(dataset: str, target: str) -> dict[str, str]:
    """Hashes of a benchmark's file, split, test ids and true test values, which a record of it must agree with.

    Raises DataError when the file is not here.
    """
    column, folder = cards.dataset(dataset).targets[target].column, sources.folder_of(dataset)
    parts = read_benchmark(folder, column)
    return {
        "data_sha256": sha256(folder / benchmark_file(column)),
        "split_sha256": split_sha256(*(list(parts[part]) for part in PARTS)),
        "test_ids_sha256": ids_sha256(parts["test"]),
        "test_targets_sha256": targets_sha256(parts["test"], list(parts["test"].values())),
    }


def task_of(column: str) -> str:
    """Task of a target, from the `column` of the benchmark's card."""
    return "classification" if column.startswith(CLASSES) else "regression"


def _mean_predictor(task: str, train: dict[str, float], truth: np.ndarray) -> dict[str, float]:
    """Metrics of predicting the mean of the training rows everywhere."""
    constant = np.full(len(truth), np.mean(list(train.values())))
    return (classification if task == "classification" else regression)(truth, constant)
