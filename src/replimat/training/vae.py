"""Lightning task of variational autoencoders: reconstruction and a weighted divergence from the standard normal."""

import torch
from torch import Tensor, nn

from replimat.models.variational import kl_divergence, reconstruction_errors
from replimat.training.settings import Training
from replimat.training.task import Task


class VAETask(Task):
    """Trains a `model` that returns (reconstruction, mean, log_variance) on (inputs, what is to be given back) batches.

    loss = w_reconstruction loss(reconstruction, target) + w_kl KL, the first a mean over the points of an item, the
    weights those of the settings. Monitors val_reconstruction_error, the mean of reconstruction_errors; the model
    decodes the mean of z in validation. Raises ValueError when the settings lack one of the weights.
    """

    monitor, mode, logged = "val_reconstruction_error", "min", ("val_reconstruction_error", "val_kl")

    def __init__(self, model: nn.Module, settings: Training, scale: float = 1.0):
        super().__init__(model, settings, scale)
        if set(settings.weights) != {"reconstruction", "kl"}:
            raise ValueError(f"A VAE needs the weights reconstruction and kl, got {sorted(settings.weights)}.")

    def training_step(self, batch, _):
        inputs, target = batch
        reconstruction, *latent = self.model(**inputs)
        loss = self._loss(reconstruction, target, kl_divergence(*latent))
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(target))
        return loss

    def validation_step(self, batch, _):
        inputs, target = batch
        reconstruction, *latent = self.model(**inputs)
        kl, size = kl_divergence(*latent), len(target)
        self.log("val_loss", self._loss(reconstruction, target, kl), batch_size=size)
        self.log(self.monitor, reconstruction_errors(reconstruction, target).mean(), batch_size=size)
        self.log("val_kl", kl.mean(), batch_size=size)

    def _loss(self, reconstruction: Tensor, target: Tensor, kl: Tensor) -> Tensor:
        weights = self.settings.weights
        return weights["reconstruction"] * self.loss(reconstruction, target) + weights["kl"] * torch.mean(kl)
