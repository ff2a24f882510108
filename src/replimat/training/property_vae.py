"""Lightning task of variational autoencoders that learn properties from the latent space, known for all items or some
(Ren et al., Matter 5, 314 (2022)).
"""

import torch
from torch import Tensor, nn

from replimat.models.variational import kl_divergence, reconstruction_errors
from replimat.training.settings import Training
from replimat.training.task import Task

SHRINK, PATIENCE, LEAST = 0.3, 4, 1e-6  # of the learning rate: factor, epochs without gain, and where it ends
DECAY, EPSILON = 0.9, 1e-7  # of RMSprop, as in Keras


class PropertyVAETask(Task):
    """Trains a `model` that returns (matrix, mean, log_variance, properties [B, P]) on (inputs, {"matrix": [B, ...],
    "properties": [B, P], NaN where unknown}) batches.

        loss = sum (X - X')^2 + w_kl mean over z and batch of 2 KL / 2 + w_properties sum (y - y')^2 + w_partial sum ...

    Sums go over the batch. weights of the settings: "kl", "properties" and, where the last `partial` properties have a
    weight of their own, "partial". RMSprop; its rate is set to a fraction of lr at the given fractions of the epochs
    (rates), and shrinks when the training loss does not fall. Monitors val_reconstruction_error, the mean root mean
    square difference of an item.
    """

    monitor, mode = "val_reconstruction_error", "min"
    logged = ("val_reconstruction_error", "val_property_error")

    def __init__(
        self,
        model: nn.Module,
        settings: Training,
        scale: float = 1.0,
        *,
        partial: int = 0,
        rates: tuple[tuple[float, float], ...] = (),
    ):
        super().__init__(model, settings, scale)
        wanted = {"kl", "properties"} | ({"partial"} if partial else set())
        if set(settings.weights) != wanted:
            raise ValueError(f"The loss needs the weights {', '.join(sorted(wanted))}; got {sorted(settings.weights)}.")
        self.partial = partial
        self.rates = {round(part * settings.epochs): factor for part, factor in rates}

    def training_step(self, batch, _):
        inputs, target = batch
        loss = self._loss(self.model(**inputs), target)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(target["matrix"]))
        return loss

    def validation_step(self, batch, _):
        inputs, target = batch
        found, size = self.model(**inputs), len(target["matrix"])
        self.log("val_loss", self._loss(found, target), batch_size=size)
        self.log(self.monitor, reconstruction_errors(found[0], target["matrix"]).mean(), batch_size=size)
        known = torch.isfinite(target["properties"])
        error = (found[3] - target["properties"])[known].abs().sum() / known.sum().clamp(min=1)
        self.log("val_property_error", error, batch_size=size)

    def on_train_epoch_start(self):
        if factor := self.rates.get(self.current_epoch):
            for group in self.optimizers().param_groups:
                group["lr"] = factor * self.settings.lr

    def configure_optimizers(self):
        optimiser = torch.optim.RMSprop(self.model.parameters(), self.settings.lr, alpha=DECAY, eps=EPSILON)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimiser, factor=SHRINK, patience=PATIENCE, threshold=1e-4, threshold_mode="abs", min_lr=LEAST
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": plateau, "monitor": "train_loss"}}

    def _loss(self, found, target: dict[str, Tensor]) -> Tensor:
        matrix, mean, log_variance, properties = found
        weights = self.settings.weights
        wrong = torch.nan_to_num(properties - target["properties"]).square().sum(dim=0)  # unknown ones weigh nothing
        whole = wrong.shape[0] - self.partial
        loss = (matrix - target["matrix"]).square().sum() + weights["properties"] * wrong[:whole].sum()
        loss = loss + weights["kl"] * (kl_divergence(mean, log_variance) / mean.shape[1]).mean()
        return loss + weights["partial"] * wrong[whole:].sum() if self.partial else loss
