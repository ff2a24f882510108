"""Train one model with one seed: resumable after a kill, deterministic on request, on CPU or CUDA."""

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from pickle import UnpicklingError

import lightning as L
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessException
from torch.utils.data import DataLoader

from replimat import files
from replimat.errors import IntegrityError, Stopped
from replimat.models.forces import energy_and_forces
from replimat.training.callbacks import (
    AtomicCheckpointIO,
    AveragedWeights,
    CheckpointWithin,
    EpochLog,
    PrintedProgress,
    SeedEveryStep,
)
from replimat.training.devices import EndAtOnce, be_quiet, cause, device_options, end_processes
from replimat.training.graphs import Graphs, eval_loader, train_loader
from replimat.training.settings import Training
from replimat.training.task import PotentialTask, SupervisedTask, Task

WITHIN_EPOCHS = timedelta(minutes=10)  # between checkpoints: what a kill may cost where epochs are longer


def train(
    model: nn.Module,
    graphs: Graphs,
    rows: dict[str, Tensor],
    settings: Training,
    folder: Path,
    *,
    seed: int,
    identity: str,
    scale: float = 1.0,
    device: str = "auto",
    devices: int = 1,
    deterministic: bool = True,
    label: str = "",
    task: Callable[[nn.Module, Training, float], Task] | None = None,
) -> nn.Module:
    """Train `model` in place on rows["train"], choosing weights on rows["val"] (rows["train"] where a protocol keeps no
    validation rows); returns it in evaluation mode.

    A checkpoint of every epoch, and of long ones every ten minutes, lies in folder/checkpoints until `finished` is
    called; a later call with the same `identity` (hash of everything that decides the result) continues from it and
    ends with the weights of an unbroken run. devices: how many GPUs, or CPU processes, share every batch; the result is
    that of one up to rounding, so that a run may continue on more or fewer. task: what is minimised and watched,
    PotentialTask or SupervisedTask by default; only these two can be shared. Raises Diverged if the loss stops being
    finite.
    """
    be_quiet()
    checkpoints = _checkpoints_of(folder, identity, settings)
    task = (task or (PotentialTask if settings.weights else SupervisedTask))(model, settings, scale)
    callbacks = [*_callbacks(task, settings, folder, seed, label), *_savers(task, checkpoints)]
    options, plugins = device_options(device, devices)
    if devices > 1:
        callbacks.insert(0, EndAtOnce())
    trainer = L.Trainer(
        max_epochs=settings.epochs,
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty(),
        num_sanity_val_steps=0,
        gradient_clip_val=settings.clip or None,
        deterministic="warn" if deterministic else False,
        inference_mode=not settings.weights,  # forces are gradients, in validation too
        use_distributed_sampler=False,  # our batches are dealt out already
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO(), *plugins],
        default_root_dir=folder,
        **options,
    )
    loaders = (
        train_loader(graphs, rows["train"], settings.batch_size, seed),
        eval_loader(graphs, rows["val"] if len(rows["val"]) else rows["train"], settings.batch_size),
    )
    try:
        _run(trainer, task, loaders, checkpoints / "last.ckpt")
        chosen = checkpoints / ("best.ckpt" if settings.keep == "best" else "last.ckpt")
        task.load_state_dict(torch.load(chosen, map_location="cpu", weights_only=True)["state_dict"])
    except Stopped as stopped:
        done = len(pd.read_csv(folder / "log.csv")) if (folder / "log.csv").exists() else 0
        said = f"the same command continues from epoch {done + 1} of {settings.epochs}"
        raise Stopped(f"{label}: stopped by {stopped.number.name}; {said}", stopped.number) from None
    except UnpicklingError as error:
        raise IntegrityError(
            f"{checkpoints}: a checkpoint there holds more than numbers and could run foreign code; not loaded. "
            "Delete that folder and run again."
        ) from error
    return task.model.cpu().eval()


def _run(trainer: L.Trainer, task: Task, loaders: tuple[DataLoader, DataLoader], resume: Path) -> None:
    """Train from the checkpoint `resume`, or from the beginning, until the last epoch."""
    try:
        trainer.fit(task, *loaders, ckpt_path=resume if resume.exists() else None, weights_only=True)
    except ProcessException as error:
        raise cause(error) from error
    finally:
        end_processes(trainer)


def finished(folder: Path) -> None:
    """Remove the checkpoints of a run whose final weights are written."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


@torch.inference_mode()
def predict(model: nn.Module, graphs: Graphs, rows: Tensor, batch_size: int, device: str = "cpu") -> np.ndarray:
    """Raw model outputs of the given rows in their order: [n], or class log-probabilities [n, C]."""
    model = model.to(device).eval()
    outputs = [model(**inputs).cpu() for inputs in _inputs(graphs, rows, batch_size, device)]
    return torch.cat(outputs).double().numpy()


def predict_with_forces(
    model: nn.Module, graphs: Graphs, rows: Tensor, batch_size: int, device: str = "cpu"
) -> dict[str, np.ndarray]:
    """Raw energies [n] and forces [atoms of the rows, 3] of the given rows in their order."""
    model = model.to(device).eval()
    found = [energy_and_forces(model, inputs) for inputs in _inputs(graphs, rows, batch_size, device)]
    return {name: torch.cat([batch[name].cpu() for batch in found]).double().numpy() for name in found[0]}


def _inputs(graphs: Graphs, rows: Tensor, batch_size: int, device: str) -> Iterator[dict]:
    """Model inputs of the given rows, batch by batch, on a device."""
    for inputs, _ in eval_loader(graphs, rows, batch_size):
        yield {name: value.to(device) if isinstance(value, Tensor) else value for name, value in inputs.items()}


def _callbacks(task: Task, settings: Training, folder: Path, seed: int, label: str) -> list[L.Callback]:
    callbacks = [SeedEveryStep(seed), EpochLog(folder / "log.csv")]
    callbacks.append(TQDMProgressBar() if sys.stderr.isatty() else PrintedProgress(label))
    if settings.ema:
        callbacks.append(AveragedWeights(settings.ema))
    if settings.patience:
        callbacks.append(EarlyStopping(task.monitor, mode=task.mode, patience=settings.patience))
    return callbacks


def _savers(task: Task, checkpoints: Path) -> list[L.Callback]:
    """What keeps the best epoch's weights, and the last epoch's, or the last minutes', to continue from."""
    where = {"dirpath": checkpoints, "enable_version_counter": False}
    best = ModelCheckpoint(**where, filename="best", monitor=task.monitor, mode=task.mode)
    last = ModelCheckpoint(**where, filename="last")
    within = CheckpointWithin(**where, filename="last", train_time_interval=WITHIN_EPOCHS)
    return [best, last, within] if task.resumes_within else [best, last]


def _checkpoints_of(folder: Path, identity: str, settings: Training) -> Path:
    """The checkpoint folder, emptied if its checkpoints belong to another experiment or one of them is damaged."""
    checkpoints = folder / "checkpoints"
    stamp = checkpoints / "identity"
    foreign = checkpoints.exists() and (not stamp.exists() or stamp.read_bytes() != identity.encode())
    damaged = [path.name for path in checkpoints.glob("*.ckpt") if files.damaged_zip(path)]
    if foreign or damaged:
        fault = f"{damaged[0]} is damaged" if damaged else "the checkpoints there belong to other settings"
        print(f"{folder}: {fault}; starting anew.", flush=True)
        shutil.rmtree(checkpoints)
    if not stamp.exists():
        files.write_text(stamp, identity)
        files.write_json(folder / "training.json", asdict(settings))
    return checkpoints
