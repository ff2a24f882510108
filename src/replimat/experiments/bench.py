"""What an experiment that learns from patterns works with: rows, reflections, training that resumes; for one seed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from replimat import files
from replimat.errors import ExperimentError
from replimat.experiments.provenance import Stopwatch
from replimat.experiments.weights import NO_WEIGHTS, keep_weights, stored_weights
from replimat.representations.simulation import Powders
from replimat.training.settings import Training


@dataclass(frozen=True)
class Bench:
    """One seed of an experiment. arrays: of the prepared file; ids of its rows [n]; folder: of this seed; identity:
    hash of everything that decides its weights; may_train: False where only stored weights may be used.
    """

    arrays: dict[str, np.ndarray]
    ids: np.ndarray
    folder: Path
    seed: int
    identity: str
    label: str
    device: str = "cpu"
    deterministic: bool = True
    may_train: bool = True

    def target(self, name: str) -> np.ndarray:
        """Values of a target of the dataset [n]."""
        return self.arrays[f"target.{name}"]

    def rows(self, part: str) -> np.ndarray:
        """Rows of a part: "train", "val" or "test"."""
        return np.flatnonzero(self.arrays["part"] == ("train", "val", "test").index(part))

    @cached_property
    def powders(self) -> Powders:
        """Reflections of all rows, on the device that is trained on."""
        return Powders(self.arrays, self.device)

    def train(
        self,
        model: nn.Module,
        data: Dataset,
        settings: Training,
        *,
        train_rows: np.ndarray | None = None,
        val_rows: np.ndarray | None = None,
        name: str = "",
        task: Callable[[nn.Module, Training, float], Any] | None = None,
    ) -> nn.Module:
        """Train a model in place, or load its weights if they are there, and return it in evaluation mode.

        data gives batches of (model inputs, targets); rows are numbers of its items, those of the parts by default;
        name tells several models of one seed apart; task: of Lightning, SupervisedTask by default. Killed at any
        moment, the same call continues. Raises ExperimentError if the weights are not there and nothing may be trained.
        """
        from replimat.training.fit import finished, train  # seconds of imports, which no plan needs
        from replimat.training.task import SupervisedTask

        folder = self.folder / name if name else self.folder
        stored, identity = folder / "model.safetensors", files.sha256_json([self.identity, name])
        if (weights := stored_weights(stored, identity)) is not None:
            finished(folder)  # a kill may have come in between
            model.load_state_dict(weights[0])
            return model.eval()
        if not self.may_train:
            raise ExperimentError(NO_WEIGHTS.format(stored))

        watch = Stopwatch()
        parts = {"train": train_rows, "val": val_rows}
        rows = {part: torch.as_tensor(self.rows(part) if given is None else given) for part, given in parts.items()}
        model = train(
            model,
            data,
            rows,
            settings,
            folder,
            seed=self.seed,
            identity=identity,
            device=self.device,
            deterministic=self.deterministic,
            label=f"{self.label} {name}".strip(),
            task=task or SupervisedTask,
        )
        keep_weights(stored, model, identity, watch.read()["wall_seconds"])
        finished(folder)
        return model

    def predict(self, model: nn.Module, data: Dataset, rows: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Raw outputs of a model for the given items of `data` in their order [n, ...]."""
        from replimat.training.fit import predict

        return predict(model, data, torch.as_tensor(rows), batch_size, self.device)

    def keep(self, name: str, **arrays: np.ndarray | Tensor) -> None:
        """Keep arrays that a figure is drawn from, as <name>.npz in the seed's folder."""
        with files.atomic(self.folder / f"{name}.npz") as temporary, open(temporary, "wb") as stream:
            np.savez_compressed(stream, **{key: np.asarray(value) for key, value in arrays.items()})
