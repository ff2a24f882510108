"""Train one model with one seed: resumable after a kill, deterministic on request, on CPU or CUDA."""

import logging
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint, TQDMProgressBar
from torch import Tensor, nn

from replimat import files
from replimat.errors import IntegrityError
from replimat.models.forces import energy_and_forces
from replimat.training.callbacks import AtomicCheckpointIO, EpochLog, PrintedProgress, SeedEveryStep
from replimat.training.graphs import Graphs, eval_loader, train_loader
from replimat.training.settings import Training
from replimat.training.task import PotentialTask, SupervisedTask, Task


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
    deterministic: bool = True,
    label: str = "",
    task: Callable[[nn.Module, Training, float], Task] | None = None,
) -> nn.Module:
    """Train `model` in place on rows["train"], choosing weights on rows["val"] (rows["train"] where a protocol keeps no
    validation rows); returns it in evaluation mode.

    A checkpoint of every epoch lies in folder/checkpoints until `finished` is called; a later call with the same
    `identity` (hash of everything that decides the result) continues from it and ends with the weights of an unbroken
    run. task: what is minimised and watched, PotentialTask or SupervisedTask by default. Raises Diverged if the loss
    stops being finite.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # no tips, no hardware inventory
    checkpoints = _checkpoints_of(folder, identity, settings)
    task = (task or (PotentialTask if settings.weights else SupervisedTask))(model, settings, scale)
    best = ModelCheckpoint(checkpoints, "best", monitor=task.monitor, mode=task.mode, enable_version_counter=False)
    last = ModelCheckpoint(checkpoints, "last", save_top_k=1, enable_version_counter=False)
    trainer = L.Trainer(
        max_epochs=settings.epochs,
        accelerator={"cuda": "gpu"}.get(device, device),
        devices=1,
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty(),
        num_sanity_val_steps=0,
        gradient_clip_val=settings.clip or None,
        deterministic="warn" if deterministic else False,
        inference_mode=not settings.weights,  # forces are gradients, in validation too
        callbacks=[*_callbacks(task, settings, folder, seed, label), best, last],
        plugins=[AtomicCheckpointIO()],
        default_root_dir=folder,
    )
    resume = checkpoints / "last.ckpt"
    try:
        with warnings.catch_warnings():
            _silence_known_warnings()
            trainer.fit(
                task,
                train_loader(graphs, rows["train"], settings.batch_size, seed),
                eval_loader(graphs, rows["val"] if len(rows["val"]) else rows["train"], settings.batch_size),
                ckpt_path=resume if resume.exists() else None,
                weights_only=True,
            )
        chosen = checkpoints / ("best.ckpt" if settings.keep == "best" else "last.ckpt")
        task.load_state_dict(torch.load(chosen, map_location="cpu", weights_only=True)["state_dict"])
    except UnpicklingError as error:
        raise IntegrityError(
            f"{checkpoints}: a checkpoint there holds more than numbers and could run foreign code; not loaded. "
            "Delete that folder and run again."
        ) from error
    return task.model.cpu().eval()


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


def pick_device(wanted: str) -> str:
    """ "cpu" or "cuda": what was asked for, or with "auto" what is there."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted


def _callbacks(task: Task, settings: Training, folder: Path, seed: int, label: str) -> list[L.Callback]:
    callbacks = [SeedEveryStep(seed), EpochLog(folder / "log.csv")]
    callbacks.append(TQDMProgressBar() if sys.stderr.isatty() else PrintedProgress(label))
    if settings.ema:
        callbacks.append(EMAWeightAveraging(decay=settings.ema))
    if settings.patience:
        callbacks.append(EarlyStopping(task.monitor, mode=task.mode, patience=settings.patience))
    return callbacks


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


def _silence_known_warnings() -> None:
    """Lightning's advice that does not apply: data is in memory already, and a resumed folder is not empty on
    purpose.
    """
    for text in (
        ".*does not have many workers.*",
        ".*Checkpoint directory.*exists and is not empty.*",
        ".*number of training batches.*smaller than the logging interval.*",
        ".*LeafSpec.*",
        ".*lr_scheduler.step.*before.*optimizer.step.*",  # of a GAN's generator, which steps less often
    ):
        warnings.filterwarnings("ignore", message=text)
