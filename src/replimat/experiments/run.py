"""Run an experiment: train every seed, predict the test rows, score them, and write the record."""

import traceback
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from replimat import cards, files
from replimat.errors import ExperimentError, ReplimatError
from replimat.evaluation.classification import PRIMARY as CLASSIFICATION_METRIC
from replimat.evaluation.classification import classification
from replimat.evaluation.regression import PRIMARY as REGRESSION_METRIC
from replimat.evaluation.regression import regression
from replimat.evaluation.within_threshold import within_threshold
from replimat.experiments.base import AuthorWeights, prepared_key
from replimat.experiments.catalogue import Planned
from replimat.experiments.provenance import Stopwatch, code_commit, code_sha256, environment, hardware
from replimat.experiments.reductions import full_protocol, reductions
from replimat.representations import prepared
from replimat.sources import store
from replimat.training.fit import finished, pick_device, predict, train
from replimat.training.graphs import Graphs, graphs_of
from replimat.training.scaling import FittedScaling, element_counts, fit_scaling, standardised
from replimat.training.task import Diverged

EVAL_BATCH = 256


class Run:
    """One experiment at one scale, in its folder: every seed, then run.json."""

    def __init__(self, planned: Planned, device: str = "auto", deterministic: bool = True, seeds: int = 0):
        self.planned, self.experiment = planned, planned.experiment
        self.device, self.deterministic = pick_device(device), deterministic
        self.folder = cards.project_root() / planned.folder
        arrays, self.metadata = prepared.load(cards.project_root() / planned.prepared, prepared_key(self.experiment))
        self.arrays = {name: torch.from_numpy(array) for name, array in arrays.items()}
        self.target = arrays[f"target.{self.experiment.target}"]  # [n], the target's unit
        self.counts = element_counts(arrays["numbers"].astype(np.int64), arrays["offsets"])  # [n, 119]
        part = arrays["part"]
        self.rows = {
            name: torch.from_numpy(np.flatnonzero(part == k)) for k, name in enumerate(("train", "val", "test"))
        }
        self.classes = self.experiment.task == "classification"
        self.seeds = [0] if isinstance(self.experiment, AuthorWeights) else list(range(seeds or planned.settings.seeds))

    def fit(self) -> dict:
        """Train what is not trained yet, evaluate, write run.json and return it.

        A seed that diverges or fails is recorded as such and does not stop the others.
        """
        watch = Stopwatch()
        seeds = [self._attempt(seed) for seed in self.seeds]
        return self._record(seeds, watch)

    def evaluate(self) -> dict:
        """Score the stored weights again, without training. Raises ExperimentError if there are none."""
        watch = Stopwatch()
        if isinstance(self.experiment, AuthorWeights):
            return self.fit()
        for seed in self.seeds:
            stored = self._seed_folder(seed) / "model.safetensors"
            if _seconds_trained(stored, self._identity(seed)) is None:
                raise ExperimentError(
                    f"{stored}: no weights of these settings and this code there; run `replimat fit` first."
                )
        return self._record([self._attempt(seed) for seed in self.seeds], watch)

    # ------------------------------------------------------------ one seed

    def _attempt(self, seed: int) -> dict:
        folder, watch = self._seed_folder(seed), Stopwatch()
        record = {"seed": seed, "status": "ok", "reason": "", "metrics": {}, "evaluated": 0, "failed": 0}
        try:
            model, scaling, seconds = self._model(seed, folder)
            metrics = self._score(model, scaling, folder)
            record |= {"evaluated": metrics.pop("evaluated"), "failed": metrics.pop("failed"), "metrics": metrics}
        except Diverged as error:
            record |= {"status": "diverged", "reason": str(error)}
        except (ReplimatError, RuntimeError, ValueError) as error:
            files.write_text(folder / "error.txt", traceback.format_exc())
            record |= {"status": "failed", "reason": str(error).splitlines()[0]}
        spent = watch.read()
        seconds = seconds if record["status"] == "ok" else spent["wall_seconds"]
        return record | {"seconds": seconds, "peak_memory_mb": spent["peak_memory_mb"]}

    def _model(self, seed: int, folder: Path) -> tuple[torch.nn.Module, FittedScaling, float]:
        """The model of a seed with its scaling, and the seconds its training took."""
        watch = Stopwatch()
        if isinstance(self.experiment, AuthorWeights):
            model, scaling = self.experiment.load(store.data_folder() / self.experiment.weights, self.arrays)
            return model, scaling, watch.read()["wall_seconds"]
        torch.manual_seed(seed)
        model = self.experiment.model(self.arrays)
        scaling, graphs = self._scaled()
        identity = self._identity(seed)
        stored = folder / "model.safetensors"
        if (seconds := _seconds_trained(stored, identity)) is not None:
            model.load_state_dict(load_file(stored))
            return model.eval(), scaling, seconds
        model = train(
            model,
            graphs,
            self.rows,
            self.experiment.training,
            folder,
            seed=seed,
            identity=identity,
            scale=scaling.scale,
            device=self.device,
            deterministic=self.deterministic,
            label=f"{self.planned.paper}/{self.planned.name} seed {seed}",
        )
        seconds = watch.read()["wall_seconds"]
        with files.atomic(stored) as temporary:
            save_file(model.state_dict(), temporary, metadata={"identity": identity, "seconds": str(seconds)})
        finished(folder)
        return model, scaling, seconds

    def _scaled(self) -> tuple[FittedScaling, Graphs]:
        """The scaling fitted on the training rows, and the graphs with scaled targets."""
        rows = self.rows["train"].numpy()
        if self.classes:
            scaling = standardised(0.0, 1.0)
        else:
            scaling = fit_scaling(self.experiment.scaling, self.target[rows], self.counts[rows])
        scaled = torch.from_numpy(scaling.forward(self.target, self.counts)).float()
        return scaling, graphs_of(self.metadata["representation"], self.arrays, scaled)

    def _score(self, model: torch.nn.Module, scaling: FittedScaling, folder: Path) -> dict:
        """Predict the test rows, write predictions.parquet, return the metrics."""
        rows = self.rows["test"]
        graphs = graphs_of(self.metadata["representation"], self.arrays, torch.from_numpy(self.target))
        output = predict(model, graphs, rows, EVAL_BATCH, self.device)
        prediction = np.exp(output[:, 1]) if self.classes else scaling.inverse(output, self.counts[rows])
        target, ids = self.target[rows], [self.metadata["ids"][row] for row in rows]
        with files.atomic(folder / "predictions.parquet") as temporary:
            pd.DataFrame({"id": ids, "target": target, "prediction": prediction}).to_parquet(temporary, index=False)
        if self.classes:
            return classification(target, prediction)
        metrics = regression(target, prediction)
        for threshold in self.experiment.thresholds:
            metrics |= within_threshold(target, prediction, threshold)
        return metrics

    def _identity(self, seed: int) -> str:
        """Hash of everything that decides the weights of a seed: finished or half-trained weights of another are not
        taken.
        """
        settings = self.planned.settings.model_dump(include={"n_train", "n_val", "n_test", "model"})
        training = asdict(self.experiment.training) | asdict(self.experiment.scaling)
        code = code_sha256(self.planned.paper)
        return files.sha256_json(
            [prepared_key(self.experiment), self.experiment.target, settings, training, code, seed]
        )

    def _seed_folder(self, seed: int) -> Path:
        return self.folder / f"seed{seed}"

    # ---------------------------------------------------------- the record

    def _record(self, seeds: list[dict], watch: Stopwatch) -> dict:
        planned, experiment = self.planned, self.experiment
        good = [seed for seed in seeds if seed["status"] == "ok"]
        spent = watch.read()
        record = {
            "paper": planned.paper,
            "experiment": planned.name,
            "scale": planned.scale,
            "dataset": experiment.data.dataset,
            "data_origin": planned.card.origin,
            "target": experiment.target,
            "unit": self.metadata["units"][experiment.target],
            "kind": experiment.kind,
            "task": experiment.task,
            "rung": experiment.rung,
            "split": "rebuilt",
            "status": "ok" if good else "failed",
            "reason": "" if good else "; ".join(f"seed {seed['seed']}: {seed['reason']}" for seed in seeds),
            "primary_metric": CLASSIFICATION_METRIC if self.classes else REGRESSION_METRIC,
            "n_train": 0 if isinstance(experiment, AuthorWeights) else len(self.rows["train"]),
            "n_val": 0 if isinstance(experiment, AuthorWeights) else len(self.rows["val"]),
            "n_test": len(self.rows["test"]),
            "full_protocol": full_protocol(planned),
            "deterministic": isinstance(experiment, AuthorWeights),
            "reductions": reductions(planned),
            "seeds": seeds,
            "baselines": self.metadata["baselines"][experiment.target],
            "leakage": self.metadata["leakage"],
            "hardware": hardware(self.device),
            "warnings": self.metadata["warnings"],
            "provenance": {
                "data_sha256": self.metadata["data_sha256"],
                "split_sha256": self.metadata["split_sha256"],
                "test_ids_sha256": self.metadata["test_ids_sha256"],
                "test_targets_sha256": self.metadata["test_targets_sha256"][experiment.target],
                "prepared_key": self.metadata["key"],
                "code_commit": code_commit(),
                "device": self.device,
                **environment(),
                **spent,
            },
        }
        files.write_json(self.folder / "run.json", record)
        files.write_json(self.folder / "provenance.json", record["provenance"])
        return record


def _seconds_trained(path: Path, identity: str) -> float | None:
    """Seconds the training of finished weights took; None if there are none of this identity."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
    except SafetensorError as error:
        raise ExperimentError(f"{path}: damaged ({error}); delete it and run `replimat fit` again.") from error
    return float(metadata["seconds"]) if metadata.get("identity") == identity else None
