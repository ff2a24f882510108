"""One training process per device of this machine: how Lightning is told to start them, what each does first, and how
they end.

They are started anew ("spawn") for every training and end with it, so that everything around a training, predictions
and records among it, happens once, in the process that the person started. A cluster's scheduler is told of one task:
that this task starts processes of its own is nothing to it.
"""

import logging
import os
import signal
import warnings

import lightning as L
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch.multiprocessing.spawn import ProcessException

from replimat.errors import ReplimatError, Stopped
from replimat.training.shares import ShareBatchNorms
from replimat.training.task import Diverged


def pick_device(wanted: str) -> str:
    """ "cpu" or "cuda": what was asked for, or with "auto" what is there.

    Raises ReplimatError when a GPU is asked for and torch finds none.
    """
    if wanted == "cpu":
        return wanted
    if torch.cuda.is_available():
        return "cuda"
    if wanted == "auto":
        return "cpu"
    build = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "for processors only (make VARIANT=gpu)"
    raise ReplimatError(
        f"--device cuda: torch finds no GPU. Its build is {build}; `nvidia-smi` says what the driver sees; "
        "a container has to be started with GPUs (--gpus all). Without one: --device cpu."
    )


def check_devices(device: str, devices: int) -> None:
    """Raises ReplimatError when there are fewer than `devices`, or less than one is wanted."""
    if devices < 1:
        raise ReplimatError(f"--devices {devices}: expected 1 or more.")
    if devices > 1 and device == "cuda" and (there := torch.cuda.device_count()) < devices:
        raise ReplimatError(f"--devices {devices}: this machine offers {there} GPU(s); ask for at most as many.")


def device_options(device: str, devices: int) -> tuple[dict, list]:
    """What Lightning's Trainer is told of the devices, and plugins for it.

    The environment is given, lest Lightning take the number of a cluster's tasks for that of the processes.
    """
    options = {"accelerator": {"cuda": "gpu"}.get(device, device), "devices": devices}
    if devices == 1:
        return options, [LightningEnvironment()]
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # of the processes: torch finds "unused" too cautious
    strategy = OneProcessEach(
        start_method=START,
        forward_sync_buffers=False,  # they are equal
        find_unused_parameters=True,  # the last layers of ALIGNN update edges that nobody reads
    )
    return options | {"strategy": strategy}, [LightningEnvironment(), ShareBatchNorms()]


START = "spawn"  # processes that share no state with this one: after it has used CUDA nothing else works


class OneProcessEach(DDPStrategy):
    """Lightning's strategy, that makes the process of a device quiet as soon as it gets there."""

    def __setstate__(self, state: dict) -> None:
        be_quiet()
        self.__dict__.update(state)


class EndAtOnce(L.Callback):
    """Let SIGTERM and SIGINT (sent when the starting process is gone) end the process of a device at once: Lightning's
    own handler would send messages between those of a step.
    """

    def on_train_start(self, trainer, module):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)


def end_processes(trainer: L.Trainer) -> None:
    """End what is left of the processes of a training that was broken off."""
    if trainer.strategy.launcher is not None:
        trainer.strategy.launcher.kill(signal.SIGKILL)
        for process in trainer.strategy.launcher.procs:
            process.join()


def cause(error: ProcessException) -> BaseException:
    """What ended the process of a device, as one would have raised it here."""
    said = str(error).strip().splitlines()[-1]  # of a traceback "module.Class: message", or what signal it was
    kind, _, message = said.partition(": ")
    if kind.endswith(f".{Diverged.__name__}"):
        return Diverged(message)
    if said.endswith("SIGTERM"):  # to all at once, as a scheduler does
        return Stopped("stopped by SIGTERM")
    return RuntimeError(f"A training process ended: {said}")


def be_quiet() -> None:
    """No tips, no hardware inventory, and none of Lightning's advice that does not apply: data is in memory already,
    and a resumed folder is not empty on purpose.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*Checkpoint directory.*exists and is not empty.*",
        ".*number of training batches.*smaller than the logging interval.*",
        ".*dataloader is not resumable.*",  # it is
        ".*LeafSpec.*",
        ".*`srun` command.*",
        ".*sync_dist=True.*",  # our metrics are those of all processes already
        ".*bucket view strides.*",
        ".*lr_scheduler.step.*before.*optimizer.step.*",  # of a GAN's generator, which steps less often
    ):
        warnings.filterwarnings("ignore", message=text)
