"""Lightning tasks: one target (regression, classification), or energies with forces."""

import lightning as L
import torch
from torch import nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import BinaryAUROC
from torchmetrics.regression import MeanAbsoluteError

from replimat.errors import ReplimatError
from replimat.models.forces import energy_and_forces
from replimat.training.settings import Training
from replimat.training.shares import average, share


class Diverged(ReplimatError):
    """The loss is no longer a finite number."""


def class_loss(log_probabilities: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    return nn.functional.nll_loss(log_probabilities, classes.long())


LOSSES = {
    "mse": nn.functional.mse_loss,
    "mae": nn.functional.l1_loss,
    "smooth_l1": nn.functional.smooth_l1_loss,
    "nll": class_loss,
    "cross_entropy": nn.functional.cross_entropy,
}


MONITORED = {"nll": ("val_auc", "max", BinaryAUROC), "cross_entropy": ("val_accuracy", "max", MeanMetric)}


class WeightedMean(Metric):
    """Mean of the losses of an epoch's batches, each weighted by its count, over all processes that train."""

    def __init__(self):
        super().__init__()
        for name in ("total", "count"):
            self.add_state(name, torch.zeros(()), dist_reduce_fx="sum")

    def update(self, value: torch.Tensor, count: int) -> None:
        self.total = self.total + value * count
        self.count = self.count + count

    def compute(self) -> torch.Tensor:
        return self.total / self.count


class Task(L.LightningModule):
    """What all tasks share: the optimiser and its schedule, and the watch over a diverging loss.

    monitor: the logged metric that picks the weights to keep, mode: "min" or "max"; logged: metrics for log.csv;
    resumes_within: whether an epoch that was broken off ends as a whole one, from a checkpoint within it.
    """

    monitor: str
    mode: str
    logged: tuple[str, ...]
    resumes_within = False

    def __init__(self, model: nn.Module, settings: Training, scale: float):
        super().__init__()
        self.model, self.settings, self.scale = model, settings, scale
        self.loss = LOSSES[settings.loss]
        self.losses = nn.ModuleDict({name: WeightedMean() for name in ("train_loss", "val_loss")})
        self.losses["train_loss"].persistent(True)  # in checkpoints within an epoch

    def log_loss(self, name: str, loss: torch.Tensor, count: int) -> None:
        """Log the mean of an epoch, weighted by the `count` of each batch."""
        self.losses[name].update(loss.detach(), count)
        self.log(name, self.losses[name], on_step=False, on_epoch=True)

    def on_train_epoch_start(self):  # of a whole epoch
        self.losses["train_loss"].reset()

    def on_train_epoch_end(self):
        loss = self.trainer.callback_metrics["train_loss"]
        if not torch.isfinite(loss):
            raise Diverged(
                f"The training loss became {float(loss)} in epoch {self.current_epoch}; the learning rate is "
                f"{self.settings.lr:g}."
            )

    def configure_optimizers(self):
        s, weights = self.settings, self.model.parameters()
        if s.optimiser == "sgd":
            optimiser = torch.optim.SGD(weights, s.lr, momentum=s.momentum, weight_decay=s.weight_decay)
        else:
            kind = torch.optim.AdamW if s.optimiser == "adamw" else torch.optim.Adam
            optimiser = kind(weights, s.lr, weight_decay=s.weight_decay)
        if s.schedule == "constant":
            return optimiser
        interval = "epoch" if s.schedule == "multistep" else "step"
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": self._schedule(optimiser), "interval": interval}}

    def _schedule(self, optimiser):
        s, schedulers = self.settings, torch.optim.lr_scheduler
        if s.schedule == "multistep":
            return schedulers.MultiStepLR(optimiser, [round(part * s.epochs) for part in s.milestones], s.gamma)
        if s.schedule == "exponential":
            return schedulers.LambdaLR(optimiser, lambda step: s.gamma ** (step / s.decay_steps))
        steps = self.trainer.estimated_stepping_batches
        return schedulers.OneCycleLR(optimiser, s.lr, total_steps=int(steps), pct_start=s.warm_up)


class SupervisedTask(Task):
    """Trains `model` on (inputs, target) batches and validates in the target's own unit.

    scale: the target's unit divided by the scaled unit, so that val_mae is physical. Monitors val_mae (regression,
    lower is better), val_auc (two classes) or val_accuracy (several; higher is better).
    """

    resumes_within = True

    def __init__(self, model: nn.Module, settings: Training, scale: float = 1.0):
        super().__init__(model, settings, scale)
        self.monitor, self.mode, quality = MONITORED.get(settings.loss, ("val_mae", "min", MeanAbsoluteError))
        self.logged = (self.monitor,)
        self.quality = quality()

    def training_step(self, batch, number):
        inputs, target = batch
        loss = self.loss(self.model(**inputs), target) * share(len(target), self.device)
        self.log_loss("train_loss", average(loss), self.trainer.train_dataloader.batch_sampler.rows_of(number))
        return loss

    def validation_step(self, batch, _):
        inputs, target = batch
        output = self.model(**inputs)
        self.log_loss("val_loss", self.loss(output, target), len(target))
        if self.settings.loss == "nll":
            self.quality.update(output[:, 1].exp(), target.long())
        elif self.settings.loss == "cross_entropy":
            self.quality.update((output.argmax(dim=1) == target).float())
        else:
            self.quality.update(output * self.scale, target * self.scale)

    def on_validation_epoch_end(self):
        self.log(self.monitor, self.quality.compute())
        self.quality.reset()


class PotentialTask(Task):
    """Trains `model` on energies and their gradient: (inputs, {"energy": [B], "forces": [N, 3]}) batches.

    loss = w_energy loss(E, E') + w_forces loss(F, F'), the latter a mean over the components of the forces; scale:
    eV per scaled unit, so that val_mae (eV) and val_forces_mae (eV/angstrom) are physical. Monitors val_loss.
    """

    monitor, mode, logged = "val_loss", "min", ("val_mae", "val_forces_mae")
    resumes_within = True

    def __init__(self, model: nn.Module, settings: Training, scale: float = 1.0):
        super().__init__(model, settings, scale)
        self.quality = nn.ModuleDict({"energy": MeanAbsoluteError(), "forces": MeanAbsoluteError()})

    def training_step(self, batch, number):
        inputs, target = batch
        found = energy_and_forces(self.model, inputs, create_graph=True)
        shares = {name: share(len(values), self.device) for name, values in target.items()}
        loss = self._loss(found, target, shares)
        self.log_loss("train_loss", average(loss), self.trainer.train_dataloader.batch_sampler.rows_of(number))
        return loss

    def validation_step(self, batch, _):
        inputs, target = batch
        found = energy_and_forces(self.model, inputs)
        self.log_loss("val_loss", self._loss(found, target, dict.fromkeys(found, 1.0)), len(target["energy"]))
        for name, value in found.items():
            self.quality[name].update((value * self.scale).flatten(), (target[name] * self.scale).flatten())

    def on_validation_epoch_end(self):
        for name, metric in zip(self.logged, self.quality.values(), strict=True):
            self.log(name, metric.compute())
            metric.reset()

    def _loss(self, found: dict, target: dict, shares: dict) -> torch.Tensor:
        weights = self.settings.weights
        return sum(weight * shares[name] * self.loss(found[name], target[name]) for name, weight in weights.items())
