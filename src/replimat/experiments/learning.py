"""Run an experiment that learns in its own way (base.Learned): every seed, scores, baselines, the record."""

import traceback

import numpy as np
import torch

from replimat import cards, files
from replimat.errors import ReplimatError, SourceError, StorageError
from replimat.evaluation.generation import shares
from replimat.evaluation.relative_errors import PRIMARY as RELATIVE
from replimat.evaluation.relative_errors import relative_errors
from replimat.experiments.base import Made, Predicted, Target, prepared_key
from replimat.experiments.bench import Bench
from replimat.experiments.catalogue import Planned
from replimat.experiments.provenance import Stopwatch, hardware
from replimat.experiments.recording import (
    describe,
    finish,
    measure,
    primary_metric,
    sample_metrics,
    score,
    score_samples,
)
from replimat.experiments.reductions import full_protocol
from replimat.experiments.weights import identity_of
from replimat.records import predictions_path, samples_path
from replimat.representations import prepared
from replimat.training.devices import pick_device
from replimat.training.task import Diverged


class Learning:
    """One experiment at one scale, in its folder: every seed, then run.json."""

    def __init__(self, planned: Planned, device: str = "auto", deterministic: bool = True, seeds: int = 0):
        self.planned, self.experiment = planned, planned.experiment
        self.device, self.deterministic = pick_device(device), deterministic
        self.folder = cards.project_root() / planned.folder
        path = cards.project_root() / planned.prepared
        self.arrays, self.metadata = prepared.load(path, prepared_key(self.experiment))
        self.seeds = list(range(seeds or planned.settings.seeds))
        self.n_test: dict[str, int] = {}
        self.baselines: dict[str, dict] = {}
        self.units: dict[str, dict[str, str]] = {}

    def fit(self, may_train: bool = True) -> dict:
        """Learn with every seed, score, write run.json and return it.

        A seed that diverges or fails is recorded as such and does not stop the others.
        """
        watch = Stopwatch()
        return self._record([self._attempt(seed, may_train) for seed in self.seeds], watch)

    def evaluate(self) -> dict:
        """Score again: networks from their stored weights; what has none, and is cheap, is fitted again."""
        return self.fit(may_train=False)

    def _attempt(self, seed: int, may_train: bool) -> dict[str, dict]:
        """The record of one seed for every target."""
        watch = Stopwatch()
        bench = self._bench(seed, may_train)
        said = {"seed": seed, "status": "ok", "reason": "", "properties": {}}
        found = {name: {"metrics": {}, "evaluated": 0, "failed": 0} for name in self.experiment.targets}
        torch.manual_seed(seed)  # the first weights of every network
        try:
            found = self._score(bench, self.experiment.learn(bench))
        except (StorageError, SourceError):  # of the machine or the data: the seed has not failed
            raise
        except Diverged as error:
            said |= {"status": "diverged", "reason": str(error)}
        except (ReplimatError, RuntimeError, ValueError) as error:
            if not may_train:
                raise
            files.write_text(bench.folder / "error.txt", traceback.format_exc())
            said |= {"status": "failed", "reason": str(error).splitlines()[0]}
        spent = watch.read()
        said |= {"seconds": spent["wall_seconds"], "peak_memory_mb": spent["peak_memory_mb"]}
        return {name: said | values for name, values in found.items()}

    def _bench(self, seed: int, may_train: bool) -> Bench:
        return Bench(
            arrays=self.arrays,
            ids=np.array(self.metadata["ids"]),
            folder=self.folder / f"seed{seed}",
            seed=seed,
            identity=identity_of(self.planned, seed),
            label=f"{self.planned.paper}/{self.planned.name} seed {seed}",
            device=self.device,
            deterministic=self.deterministic,
            may_train=may_train,
        )

    def _score(self, bench: Bench, predicted: dict[str, Predicted | Made]) -> dict[str, dict]:
        """Metrics by target; predictions and samples are written beside them."""
        found = {}
        for name in self.experiment.targets:
            part = "" if name == self.experiment.target else name
            score_one = self._score_made if isinstance(predicted[name], Made) else self._score_predicted
            found[name] = score_one(name, predicted[name], bench.seed, part)
        return found

    def _score_predicted(self, name: str, one: Predicted, seed: int, part: str) -> dict:
        target, path = self.experiment.targets[name], predictions_path(self.folder, seed, part)
        found = score(target.task, one.ids, one.target, one.prediction, path, probabilities=one.probabilities)
        found["metrics"] |= _relative(target, one.target, one.prediction)
        self.n_test[name] = len(one.ids)
        self.baselines[name] = {said: _trivial(target, one.target, values) for said, values in one.baselines.items()}
        return found

    def _score_made(self, name: str, one: Made, seed: int, part: str) -> dict:
        found = score_samples(one, samples_path(self.folder, seed, part))
        self.n_test[name] = found["evaluated"] + found["failed"]
        self.baselines[name] = {said: sample_metrics(table) for said, table in one.baselines.items()}
        self.units[name] = dict.fromkeys(shares(one.judged), "%") | self.experiment.targets[name].units
        return found

    # ---------------------------------------------------------- the record

    def _record(self, seeds: list[dict[str, dict]], watch: Stopwatch) -> dict:
        measured = {name: self._measured(name, [seed[name] for seed in seeds]) for name in self.experiment.targets}
        train, val, test = (int((self.arrays["part"] == k).sum()) for k in range(3))
        if number := self.experiment.data.folds:
            train = test * (number - 1) // number
        if self.experiment.data.ids:  # the rows are the crystals of simulated patterns
            train, val = self.planned.settings.n_train, self.planned.settings.n_val
        top = describe(self.planned, measured) | {
            "split": self.metadata["split"],
            "n_train": train,
            "n_val": val,
            "full_protocol": full_protocol(self.planned),
            "deterministic": False,
            "leakage": self.metadata["leakage"],
            "hardware": hardware(self.device),
            "warnings": self.metadata["warnings"],
        }
        made_from = {name: self.metadata[name] for name in ("data_sha256", "split_sha256")}
        return finish(
            self.folder, top, made_from | {"prepared_key": self.metadata["key"], "device": self.device}, watch
        )

    def _measured(self, name: str, seeds: list[dict]) -> dict:
        """What the record says of one target."""
        target = self.experiment.targets[name]
        hashes = {kind: self.metadata[kind].get(name) for kind in ("test_ids_sha256", "test_targets_sha256")}
        return {
            "unit": target.unit,
            "task": target.task,
            "primary_metric": target.primary or (RELATIVE if target.relative else primary_metric(target.task)),
            "metric_units": self.units.get(name, {}),
            "classes": list(target.classes),
            "n_test": self.n_test.get(name, 0),
            "seeds": seeds,
            "baselines": self.baselines.get(name, {}),
            "provenance": {kind: value for kind, value in hashes.items() if value},
        }


def _relative(target: Target, true: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    return relative_errors(true, prediction) if target.relative else {}


def _trivial(target: Target, true: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """Metrics of a baseline's predictions, of classes given as probabilities [m, K]."""
    if target.task == "multiclass":
        return measure(target.task, true, values.argmax(axis=1), values)
    return measure(target.task, true, values) | _relative(target, true, values)
