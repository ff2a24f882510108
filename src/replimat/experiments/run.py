"""Run an experiment: train every seed, predict the test rows, score them, and write the record."""

import traceback
from pathlib import Path

import numpy as np
import torch

from replimat import cards, files
from replimat.errors import ExperimentError, ReplimatError, SourceError, StorageError
from replimat.evaluation.regression import regression
from replimat.experiments.base import AuthorWeights, Potential, prepared_key
from replimat.experiments.catalogue import Planned
from replimat.experiments.provenance import Stopwatch, hardware, physics_sha256
from replimat.experiments.recording import describe, finish, primary_metric, score
from replimat.experiments.reductions import full_protocol
from replimat.experiments.studying import measure, properties
from replimat.experiments.weights import NO_WEIGHTS, identity_of, keep_weights, stored_weights
from replimat.records import predictions_path
from replimat.representations import prepared
from replimat.representations.arrays import test_values
from replimat.sources import store
from replimat.training.devices import check_devices, pick_device
from replimat.training.fit import finished, predict, predict_with_forces, train
from replimat.training.graphs import Graphs, graphs_of, ragged_rows
from replimat.training.scaling import FittedScaling, element_counts, fit_scaling, standardised
from replimat.training.task import Diverged

EVAL_BATCH = 256
ERRORS = ("mae", "rmse")  # that a potential is also asked for on training rows, and on test rows without a twin
ATOMS_AT_ONCE = 1000  # whose forces are taken in one step: bounds memory where descriptors are large


class Run:
    """One experiment at one scale, in its folder: every seed, then run.json."""

    def __init__(
        self, planned: Planned, device: str = "auto", deterministic: bool = True, seeds: int = 0, devices: int = 1
    ):
        self.planned, self.experiment = planned, planned.experiment
        self.device, self.deterministic = pick_device(device), deterministic
        check_devices(self.device, devices)
        self.devices = devices if getattr(self.experiment, "training", None) else 1  # of a training by gradient descent
        self.folder = cards.project_root() / planned.folder
        arrays, self.metadata = prepared.load(cards.project_root() / planned.prepared, prepared_key(self.experiment))
        self.arrays = {name: torch.from_numpy(array) for name, array in arrays.items()}
        self.counts = element_counts(arrays["numbers"].astype(np.int64), arrays["offsets"])  # [n, 119]
        self.atoms = self.counts.sum(axis=1)  # [n]
        per_atom = self.experiment.target == "energy_per_atom" and "forces" in self.experiment.data.per_atom
        self.share = self.atoms if per_atom else np.ones(len(self.atoms))  # of the model's output in the target  [n]
        self.target = arrays[f"target.{self.experiment.target}"] * self.share  # what the model gives  [n]
        self.precision = torch.float64 if getattr(self.experiment, "double", False) else torch.float32
        part = arrays["part"]
        self.rows = {
            name: torch.from_numpy(np.flatnonzero(part == k)) for k, name in enumerate(("train", "val", "test"))
        }
        self.targets = (self.experiment.target, *self.experiment.data.per_atom)  # measured here, the main one first
        values = test_values(arrays, np.array(self.metadata["ids"]))
        self.test = {name: values[name] for name in self.targets}  # target -> ids, true values
        self.classes = self.experiment.task == "classification"
        self.property_units: dict[str, str] = {}
        self.seeds = [0] if isinstance(self.experiment, AuthorWeights) else list(range(seeds or planned.settings.seeds))

    def fit(self) -> dict:
        """Train what is not trained yet, evaluate, write run.json and return it.

        A seed that diverges or fails is recorded as such and does not stop the others.
        """
        watch = Stopwatch()
        return self._record([self._attempt(seed) for seed in self.seeds], watch)

    def evaluate(self) -> dict:
        """Score the stored weights again, without training. Raises ExperimentError if there are none."""
        watch = Stopwatch()
        if isinstance(self.experiment, AuthorWeights):
            return self.fit()
        for seed in self.seeds:
            self._require_weights(seed)
        return self._record([self._attempt(seed) for seed in self.seeds], watch)

    def calculator(self, seed: int = 0):
        """A fitted potential as an ASE calculator (replimat.physics.calculator.ModelCalculator).

        Raises ExperimentError if the experiment fits no forces, or if this seed has no weights.
        """
        if "forces" not in self.targets:
            raise ExperimentError(f"{self.planned.paper}/{self.planned.name} predicts {self.targets[0]}, no forces.")
        if not isinstance(self.experiment, AuthorWeights):
            self._require_weights(seed)
        from replimat.physics.calculator import ModelCalculator

        model, scaling, _ = self._model(seed, self._seed_folder(seed))
        return ModelCalculator(model, scaling)

    # ------------------------------------------------------------ one seed

    def _attempt(self, seed: int) -> dict[str, dict]:
        """The record of one seed for every target."""
        folder, watch = self._seed_folder(seed), Stopwatch()
        said = {"seed": seed, "status": "ok", "reason": "", "properties": {}}
        found = {name: {"metrics": {}, "evaluated": 0, "failed": 0} for name in self.targets}
        try:
            model, scaling, seconds = self._model(seed, folder)
            found = self._score(seed, self._predict(model, scaling, self.rows["test"]))
            if "forces" in self.targets:
                self._score_training(model, scaling, found)
            said |= self._study(model, scaling, seed)
        except (StorageError, SourceError):  # of the machine or the data: the seed has not failed
            raise
        except Diverged as error:
            said |= {"status": "diverged", "reason": str(error)}
        except (ReplimatError, RuntimeError, ValueError) as error:
            files.write_text(folder / "error.txt", traceback.format_exc())
            said |= {"status": "failed", "reason": str(error).splitlines()[0]}
        spent = watch.read()
        seconds = seconds if said["status"] == "ok" else spent["wall_seconds"]
        said |= {"seconds": seconds, "peak_memory_mb": spent["peak_memory_mb"]}
        return {name: said | values for name, values in found.items()}

    def _model(self, seed: int, folder: Path) -> tuple[torch.nn.Module, FittedScaling, float]:
        """The model of a seed with its scaling, and the seconds its training took."""
        watch = Stopwatch()
        if isinstance(self.experiment, AuthorWeights):
            model, scaling = self.experiment.load(store.verified_folder(self.experiment.weights), self.arrays)
            return model.to(self.precision), scaling, watch.read()["wall_seconds"]
        torch.manual_seed(seed)
        model = self.experiment.model(self.arrays).to(self.precision)
        scaling, graphs = self._scaled()
        identity = identity_of(self.planned, seed)
        stored = folder / "model.safetensors"
        if (weights := stored_weights(stored, identity)) is not None:
            finished(folder)  # a kill may have come in between
            tensors, seconds = weights
            model.load_state_dict(tensors)
            return model.eval(), scaling, seconds
        if self.experiment.training:
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
                devices=self.devices,
                deterministic=self.deterministic,
                label=f"{self.planned.paper}/{self.planned.name} seed {seed}",
            )
        else:
            self.experiment.solve(model, graphs, self.rows["train"], seed)
        seconds = watch.read()["wall_seconds"]
        keep_weights(stored, model, identity, seconds)
        finished(folder)
        return model, scaling, seconds

    def _scaled(self) -> tuple[FittedScaling, Graphs]:
        """The scaling fitted on the training rows, and the graphs with scaled targets."""
        rows = self.rows["train"].numpy()
        if self.classes:
            scaling = standardised(0.0, 1.0)
        else:
            scaling = fit_scaling(self.experiment.scaling, self.target[rows], self.counts[rows])
        scaled = torch.from_numpy(scaling.forward(self.target, self.counts)).to(self.precision)
        forces = None
        if isinstance(self.experiment, Potential):  # references do not depend on positions: forces are only scaled
            forces = (self.arrays["atoms.forces"] / scaling.scale).to(self.precision)
        return scaling, graphs_of(self.metadata["representation"], self.arrays, scaled, forces)

    def _predict(self, model: torch.nn.Module, scaling: FittedScaling, rows: torch.Tensor) -> dict[str, np.ndarray]:
        """Predictions of the given rows by target, in the target's unit; for forces component by component."""
        like = torch.from_numpy(self.target).to(self.precision)
        graphs = graphs_of(self.metadata["representation"], self.arrays, like)
        if "forces" in self.targets:
            batch = int(np.clip(ATOMS_AT_ONCE // self.atoms.mean(), 1, EVAL_BATCH))
            found = predict_with_forces(model, graphs, rows, batch, self.device)
            energy = scaling.inverse(found["energy"], self.counts[rows]) / self.share[rows]
            return {self.experiment.target: energy, "forces": (found["forces"] * scaling.scale).ravel()}
        output = predict(model, graphs, rows, EVAL_BATCH, self.device)
        prediction = np.exp(output[:, 1]) if self.classes else scaling.inverse(output, self.counts[rows])
        return {self.experiment.target: prediction}

    def _score(self, seed: int, predictions: dict[str, np.ndarray]) -> dict[str, dict]:
        """Metrics by target; the predictions are written beside them."""
        found = {}
        for name in self.targets:
            path = predictions_path(self.folder, seed, "" if name == self.experiment.target else name)
            thresholds = self.experiment.thresholds
            found[name] = score(self.experiment.task, *self.test[name], predictions[name], path, thresholds)
            if self.metadata["twins"] and "forces" in self.targets:
                found[name]["metrics"] |= self._score_unseen(name, predictions[name])
        return found

    def _score_unseen(self, name: str, prediction: np.ndarray) -> dict[str, float]:
        """Errors of the test rows without a twin in training, `unseen_mae` and `unseen_rmse`."""
        ids, true = self.test[name]
        rows = np.char.partition(ids.astype(str), ":")[:, 0]  # components of forces are called <id>:<atom>:<axis>
        unseen = ~np.isin(rows, self.metadata["twins"])
        if not unseen.any():
            return {}
        scores = regression(true[unseen], prediction[unseen])
        return {f"unseen_{metric}": scores[metric] for metric in ERRORS}

    def _score_training(self, model: torch.nn.Module, scaling: FittedScaling, found: dict[str, dict]) -> None:
        """Add errors of the training rows, `train_mae` and `train_rmse`, to the metrics of every target."""
        rows = self.rows["train"]
        atoms, _ = ragged_rows(self.arrays["offsets"].long(), rows)
        true = {self.experiment.target: self.target[rows] / self.share[rows]}
        true["forces"] = self.arrays["atoms.forces"][atoms].numpy().ravel()
        for name, prediction in self._predict(model, scaling, rows).items():
            scores = regression(true[name], prediction)
            found[name]["metrics"] |= {f"train_{metric}": scores[metric] for metric in ERRORS}

    def _require_weights(self, seed: int) -> None:
        stored = self._seed_folder(seed) / "model.safetensors"
        if stored_weights(stored, identity_of(self.planned, seed)) is None:
            raise ExperimentError(NO_WEIGHTS.format(stored))

    def _study(self, model: torch.nn.Module, scaling: FittedScaling, seed: int) -> dict:
        """Physical properties that the experiment asks for, as a seed's record has them; of the first seed alone, for
        they cost more than the fit.
        """
        studies = getattr(self.experiment, "studies", {})
        if not studies or seed != self.seeds[0]:
            return {}
        from replimat.physics.calculator import ModelCalculator

        calculator, folder = ModelCalculator(model.cpu(), scaling), self._seed_folder(seed) / "physics"
        identity = files.sha256_json([identity_of(self.planned, seed), physics_sha256()])
        values, self.property_units = properties(measure(studies, calculator, folder, identity))
        return {"properties": values}

    def _seed_folder(self, seed: int) -> Path:
        return self.folder / f"seed{seed}"

    # ---------------------------------------------------------- the record

    def _record(self, seeds: list[dict[str, dict]], watch: Stopwatch) -> dict:
        measured = {name: self._measured(name, [seed[name] for seed in seeds]) for name in self.targets}
        trained = not isinstance(self.experiment, AuthorWeights)
        top = describe(self.planned, measured) | {
            "split": self.metadata["split"],
            "n_train": len(self.rows["train"]) if trained else 0,
            "n_val": len(self.rows["val"]) if trained else 0,
            "full_protocol": full_protocol(self.planned),
            "deterministic": not trained,
            "leakage": self.metadata["leakage"],
            "hardware": hardware(self.device, self.devices),
            "property_units": self.property_units,
            "warnings": self.metadata["warnings"],
        }
        made_from = {name: self.metadata[name] for name in ("data_sha256", "split_sha256")}
        made_with = {"prepared_key": self.metadata["key"], "device": self.device, "devices": self.devices}
        return finish(self.folder, top, made_from | made_with, watch)

    def _measured(self, target: str, seeds: list[dict]) -> dict:
        """What the record says of one target."""
        return {
            "unit": self.metadata["units"][target],
            "task": self.experiment.task,
            "primary_metric": primary_metric(self.experiment.task),
            "n_test": len(self.test[target][0]),
            "seeds": seeds,
            "baselines": self.metadata["baselines"][target],
            "provenance": {name: self.metadata[name][target] for name in ("test_ids_sha256", "test_targets_sha256")},
        }
