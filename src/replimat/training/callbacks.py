"""What happens around the epochs: seeds, the log, and checkpoints that are whole or absent."""

import io
import time

import lightning as L
import pandas as pd
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from replimat import files


class SeedEveryStep(L.Callback):
    """Seed the random numbers of a step (dropout, noise) by run seed and step, so that resuming repeats them; for each
    of several processes others.

    By step and not by epoch: a resumed epoch builds its data iterator at another moment, which draws a random number
    too.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        torch.manual_seed(self.seed * 1_000_003 + trainer.global_step + (trainer.global_rank << 40))


class AveragedWeights(EMAWeightAveraging):
    """The exponential average of the weights, as a callback that can be sent to the process of another device."""

    def __init__(self, decay: float):
        super().__init__(decay=decay)
        self.decay = decay

    def __reduce__(self):
        return AveragedWeights, (self.decay,)


class EpochLog(L.Callback):
    """log.csv: one row per epoch, with the devices it was trained on; kept in the checkpoint, so that a resumed run
    continues its own log.
    """

    def __init__(self, path):
        self.path, self.rows, self.started = path, [], time.perf_counter()

    def on_train_epoch_end(self, trainer, module):
        measured = trainer.callback_metrics
        row = {"epoch": trainer.current_epoch, "seconds": round(time.perf_counter() - self.started, 3)}
        row |= {name: float(measured[name]) for name in ("train_loss", "val_loss", *module.logged) if name in measured}
        row |= {"lr": trainer.optimizers[0].param_groups[0]["lr"], "devices": trainer.world_size}
        self.rows.append(row)
        if trainer.is_global_zero:
            self._write()

    def _write(self):
        with files.atomic(self.path) as temporary:
            pd.DataFrame(self.rows).to_csv(temporary, index=False)

    def state_dict(self):
        return {"rows": self.rows}

    def load_state_dict(self, state):
        self.rows = list(state["rows"])
        self.started -= self.rows[-1]["seconds"] if self.rows else 0.0


class PrintedProgress(L.Callback):
    """A line now and then, for logs that are not a terminal."""

    def __init__(self, label: str, lines: int = 5):
        self.label, self.lines = label, lines

    def on_train_epoch_end(self, trainer, module):
        done, total = trainer.current_epoch + 1, trainer.max_epochs
        if trainer.is_global_zero and (done == total or done % max(1, total // self.lines) == 0):
            measured = trainer.callback_metrics
            quality = "".join(f", {name} {measured[name]:.4g}" for name in module.logged if name in measured)
            print(f"{self.label}: epoch {done}/{total}, train loss {measured['train_loss']:.4g}{quality}", flush=True)


class CheckpointWithin(ModelCheckpoint):
    """A checkpoint now and then within an epoch, from which it goes on with the next batch."""

    def on_train_start(self, trainer, module):
        super().on_train_start(trainer, module)
        done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        trainer.train_dataloader.batch_sampler.first = done % trainer.num_training_batches

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if batch_idx + 1 < trainer.num_training_batches:  # the last step belongs to the checkpoint of the epoch
            super().on_train_batch_end(trainer, module, outputs, batch, batch_idx)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints written to a temporary file, flushed and renamed: kill -9 leaves the previous one intact."""

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        content = io.BytesIO()  # torch does not say why a file could not be written; Python does
        torch.save(checkpoint, content)
        with files.atomic(path) as temporary:
            temporary.write_bytes(content.getbuffer())
