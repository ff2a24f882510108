"""Lightning task of quantities that are never zero, judged by their relative error."""

import torch
from torch import Tensor

from replimat.training.task import Task


class RelativeTask(Task):
    """Trains `model` on (inputs, target) batches by the settings' loss of prediction / target against 1.

    With loss "mae" that is the mean absolute percentage error over 100. Monitors val_mape, %.
    """

    monitor, mode, logged = "val_mape", "min", ("val_mape",)

    def training_step(self, batch, _):
        ratio, loss = self._ratio(batch)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(ratio))
        return loss

    def validation_step(self, batch, _):
        ratio, loss = self._ratio(batch)
        self.log("val_loss", loss, batch_size=len(ratio))
        self.log(self.monitor, 100 * (ratio - 1).abs().mean(), batch_size=len(ratio))

    def _ratio(self, batch: tuple[dict, Tensor]) -> tuple[Tensor, Tensor]:
        """Prediction over target of a batch, and its loss."""
        inputs, target = batch
        ratio = self.model(**inputs) / target
        return ratio, self.loss(ratio, torch.ones_like(ratio))
