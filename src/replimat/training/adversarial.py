"""Lightning task of a Wasserstein GAN with gradient penalty (Gulrajani et al. 2017, arXiv:1704.00028)."""

import torch
from torch import Tensor

from replimat.training.settings import Training
from replimat.training.task import Task


class AdversarialTask(Task):
    """Trains a pair of networks against each other.

    Which weights are the best no loss says. They are the "last", or, where the model itself can tell how good what it
    makes is (quality() -> scalar, the higher the better, from noise of its own), the "best" of all epochs.

    model: one module with critic_loss(**inputs) and generator_loss(**inputs) -> scalars, and with critic_parameters()
    and generator_parameters() -> iterables of parameters, or of Adam's groups of them. Every step is one of the critic,
    every critic_steps-th step then one of the generator. lr of the settings is the critic's, generator_lr its factor;
    "exponential": both are multiplied by gamma every decay_steps steps. Logs both losses.
    """

    monitor, mode, logged = "val_critic_loss", "min", ("val_critic_loss", "train_generator_loss")
    noise = 1_000_003  # seed of the samples whose quality is watched: the same in every epoch

    def __init__(
        self,
        model,
        settings: Training,
        scale: float = 1.0,
        *,
        critic_steps: int = 5,
        betas: tuple[float, float] = (0.5, 0.999),
        generator_lr: float = 1.0,
    ):
        super().__init__(model, settings, scale)
        if settings.schedule not in ("constant", "exponential"):
            raise ValueError(f"A GAN is trained with a constant or exponential rate, not {settings.schedule!r}.")
        if settings.clip:
            raise ValueError("The gradients of a GAN are not clipped here.")
        if settings.keep == "best":
            if not hasattr(model, "quality"):
                raise ValueError('A GAN keeps its "last" weights, or its model must say its own quality.')
            self.monitor, self.mode, self.logged = "val_quality", "max", (*self.logged, "val_quality")
        self.automatic_optimization = False
        self.critic_steps, self.betas, self.generator_lr = critic_steps, betas, generator_lr
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))  # kept in checkpoints: a resumed run counts on

    def training_step(self, batch, _):
        inputs, size = batch[0], len(batch[1])
        critic, generator = self.optimizers()
        loss = self.model.critic_loss(**inputs)
        self._step(critic, loss)
        self.log("train_loss", loss.detach(), on_step=False, on_epoch=True, batch_size=size)
        self.steps += 1
        if self.steps % self.critic_steps == 0:
            for weight in self._critic_weights():
                weight.requires_grad_(False)
            loss = self.model.generator_loss(**inputs)
            self._step(generator, loss)
            for weight in self._critic_weights():
                weight.requires_grad_(True)
            self.log("train_generator_loss", loss.detach(), on_step=False, on_epoch=True, batch_size=size)
        if self.settings.schedule == "exponential":
            for scheduler in self.lr_schedulers():
                scheduler.step()

    def validation_step(self, batch, index):
        if self.monitor == "val_quality" and index == 0:
            with torch.random.fork_rng():
                torch.manual_seed(self.noise)
                self.log(self.monitor, self.model.quality(), batch_size=1)
        with torch.inference_mode(False), torch.enable_grad():  # the gradient penalty is a gradient here too
            inputs = {name: value.clone() for name, value in batch[0].items()}
            loss = self.model.critic_loss(**inputs)
        self.log("val_critic_loss", loss.detach(), batch_size=len(batch[1]))
        self.log("val_loss", loss.detach(), batch_size=len(batch[1]))

    def configure_optimizers(self):
        s, adam = self.settings, torch.optim.Adam
        critic = adam(self.model.critic_parameters(), s.lr, self.betas)
        generator = adam(self.model.generator_parameters(), s.lr * self.generator_lr, self.betas)
        if s.schedule == "constant":
            return [critic, generator]
        return [critic, generator], [self._schedule(critic), self._schedule(generator)]

    def _step(self, optimiser, loss: Tensor) -> None:
        optimiser.zero_grad()
        self.manual_backward(loss)
        optimiser.step()

    def _critic_weights(self):
        """The generator's step needs no gradients of them; found through the optimiser, whatever its groups."""
        critic = self.optimizers()[0]
        return [weight for group in critic.param_groups for weight in group["params"]]
