"""Training on several devices: what two processes do together is what one does alone, whatever ends them.

Most tests fork their processes, which need not import torch again; one starts them as `replimat fit` does.
"""

import multiprocessing
import os
import shutil
import signal
import time
from datetime import timedelta
from itertools import chain
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from replimat import cli
from replimat.errors import ReplimatError, Stopped
from replimat.models.cgcnn import CGCNN
from replimat.models.schnet import SchNet
from replimat.training import devices, fit, graphs, shares
from replimat.training.settings import Training
from replimat.training.task import Diverged

ROUNDING = {"rtol": 1e-5, "atol": 1e-6}  # single precision, sums in another order, some twenty steps
TRAIN, VAL, BATCH, EPOCHS = 41, 13, 5, 4  # rows; batches of three and two rows, a last one of one row
ATOMS = torch.arange(54) % 3 + 2  # of each row: forces are no fixed number of rows
KINDS = ("energy", "forces", "classes")  # per row; per atom too; batch norm and a rank metric


def made_graphs(kind: str) -> graphs.Graphs:
    """Rows of two to four atoms, all bonded to each other, with a target that has to do with the distances."""
    torch.manual_seed(7)
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), ATOMS.cumsum(0)])
    pairs = [torch.combinations(torch.arange(int(n))).T for n in ATOMS]
    edges = torch.cat([torch.cat([one, one.flip(0)], dim=1) for one in pairs], dim=1)
    positions = torch.randn(int(offsets[-1]), 3)
    arrays = {
        "numbers": torch.randint(1, 90, (int(offsets[-1]),)),
        "offsets": offsets,
        "positions": positions,
        "edge_index": edges,
        "edge_offsets": torch.cat([torch.zeros(1, dtype=torch.long), (ATOMS * (ATOMS - 1)).cumsum(0)]),
        "neighbour_index": torch.randint(0, 2, (int(offsets[-1]), 4)),
        "distance": torch.rand(int(offsets[-1]), 4) * 6,
    }
    target = torch.stack([part.norm(dim=1).mean() for part in positions.split(ATOMS.tolist())])
    if kind == "classes":
        return graphs.CrystalGraphs(arrays, (target > target.median()).float())
    return graphs.CutoffGraphs(arrays, target, torch.randn_like(positions) if kind == "forces" else None)


def made_model(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind != "classes":
        return SchNet(features=8, filters=8, interactions=1, gaussians=8)
    model = CGCNN(torch.rand(101, 8), atom_fea=8, h_fea=8, n_conv=1, classes=2)
    model.dropout = nn.Identity()  # every process draws its own
    return model


def trained(folder: Path, kind: str, n: int, model: nn.Module | None = None, **settings) -> dict[str, torch.Tensor]:
    """Weights after a training on n devices; the settings have what a run can have beside."""
    recipe = {"epochs": EPOCHS, "batch_size": BATCH, "lr": 0.01, "schedule": "onecycle", "ema": 0.9, "clip": 1.0}
    if (
        kind == "classes"
    ):  # no batch that both do; Adam makes steps of rounding errors where a bias before a batch norm has no gradient
        recipe |= {"loss": "nll", "optimiser": "sgd", "batch_size": 7}
    recipe |= {"weights": {"energy": 0.1, "forces": 1.0}} if kind == "forces" else {}
    rows = {"train": torch.arange(TRAIN), "val": torch.arange(TRAIN, TRAIN + VAL)}
    options = {"seed": 3, "identity": "x", "device": "cpu", "devices": n, "label": "made up"}
    settings = Training(**recipe | settings)
    return fit.train(model or made_model(kind), made_graphs(kind), rows, settings, folder, **options).state_dict()


def alone(function, *arguments) -> multiprocessing.Process:
    """A process group of its own in which a function runs; its exit code is that of `replimat`."""

    def run():
        os.setsid()
        signal.signal(signal.SIGTERM, cli._stop)
        cli.app = lambda: function(*arguments)
        cli.main()

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, msg=lambda text, name=name: f"{name}: {text}", **ROUNDING)


def log_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "log.csv")


@pytest.fixture
def forked(monkeypatch):
    monkeypatch.setattr(devices, "START", "fork")


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_as_one(tmp_path, forked, kind):
    one, two = (trained(tmp_path / str(n), kind, n) for n in (1, 2))
    same(two, one)
    logs = [log_of(tmp_path / str(n)) for n in (1, 2)]
    assert [log.pop("devices").tolist() for log in logs] == [[1] * EPOCHS, [2] * EPOCHS]
    for name in logs[0].columns.drop("seconds"):  # losses and metrics of every epoch, over all rows
        assert logs[1][name].tolist() == pytest.approx(logs[0][name].tolist(), rel=1e-5), name


class Counted(SchNet):
    """Counts its steps; in the given one, everybody of its process group is killed and has no time to do anything."""

    def __init__(self, dies_in: int = 0):
        torch.manual_seed(0)
        super().__init__(features=8, filters=8, interactions=1, gaussians=8)
        self.steps, self.dies_in = 0, dies_in

    def forward(self, **inputs):
        self.steps += self.training
        if self.steps == self.dies_in:
            os.killpg(0, signal.SIGKILL)
        return super().forward(**inputs)


STEPS = -(-TRAIN // BATCH)  # of an epoch


@pytest.mark.parametrize(("within", "redone"), [(timedelta(minutes=10), 2), (timedelta(0), 0)])
@pytest.mark.parametrize("first", [1, 2])
def test_kill_9_of_all_and_another_number_of_processes_goes_on(tmp_path, forked, monkeypatch, first, within, redone):
    """Three steps of the third epoch were begun; the first two are done anew, or no step at all."""
    monkeypatch.setattr(fit, "WITHIN_EPOCHS", within)
    process = alone(trained, tmp_path / "2", "forces", first, Counted(dies_in=2 * STEPS + 3))
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert len(log_of(tmp_path / "2")) == 2
    shutil.copytree(tmp_path / "2", tmp_path / "1")
    expected = trained(tmp_path / "whole", "forces", 1)
    for n in (1, 2):
        model = Counted()
        same(trained(tmp_path / str(n), "forces", n, model), expected)
        assert n > 1 or model.steps == 2 * STEPS - 2 + redone  # this process only watches over two
        log, whole = log_of(tmp_path / str(n)), log_of(tmp_path / "whole")
        assert log["devices"].tolist() == [first, first, n, n]
        assert log["train_loss"].tolist() == pytest.approx(whole["train_loss"].tolist(), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_within_an_epoch_one_process_goes_on_to_the_same_bytes(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(fit, "WITHIN_EPOCHS", timedelta(0))
    process = alone(stopped_in_step, STEPS + 3, tmp_path / "broken", kind)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    expected, found = trained(tmp_path / "whole", kind, 1), trained(tmp_path / "broken", kind, 1)
    assert all(torch.equal(found[name], values) for name, values in expected.items())
    logs = [log_of(tmp_path / name).drop(columns="seconds") for name in ("whole", "broken")]
    pd.testing.assert_frame_equal(*logs)


def stopped_in_step(number: int, folder: Path, kind: str) -> None:
    """A training that is killed before the given step."""
    model, steps = made_model(kind), iter(range(1, number))

    def count(*_):
        if model.training and next(steps, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    model.register_forward_pre_hook(count)
    trained(folder, kind, 1, model)


class Slow(SchNet):
    """A model whose training takes a minute."""

    def forward(self, **inputs):
        time.sleep(0.1)
        return super().forward(**inputs)


@pytest.mark.parametrize("n", [1, 2])
def test_sigterm_ends_all_processes_and_says_from_where_it_goes_on(tmp_path, capfd, n):
    process = alone(trained, tmp_path, "energy", n, Slow(features=8, filters=8, interactions=1, gaussians=8))
    while not (tmp_path / "checkpoints" / "last.ckpt").exists():
        assert process.is_alive()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    process.join(10)
    assert process.exitcode == 128 + signal.SIGTERM
    done = len(log_of(tmp_path))
    said = f"made up: stopped by SIGTERM; the same command continues from epoch {done + 1} of {EPOCHS}"
    assert said in capfd.readouterr().err.splitlines()
    assert emptied(process.pid)


def emptied(group: int) -> bool:
    """Whether nobody of a process group is left, some seconds from now at the latest."""
    for _ in range(50):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


class Broken(SchNet):
    """Its loss is not a number on one of two devices."""

    def forward(self, **inputs):
        rank, _ = shares.process()
        return super().forward(**inputs) * (float("nan") if rank else 1.0)


class Killed(SchNet):
    """One of its two processes is killed, as by a system that is out of memory."""

    def forward(self, **inputs):
        if shares.process()[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(**inputs)


@pytest.mark.parametrize(
    ("model", "error", "message"), [(Broken, Diverged, "became nan in epoch 0"), (Killed, RuntimeError, "SIGKILL")]
)
def test_what_ends_one_process_ends_all_and_is_said_once(tmp_path, forked, model, error, message):
    with pytest.raises(error, match=message):
        trained(tmp_path, "energy", 2, model(features=8, filters=8, interactions=1, gaussians=8))


def test_every_row_of_a_batch_is_dealt_once(monkeypatch):
    def batches(rank, processes):
        monkeypatch.setattr(shares, "process", lambda: (rank, processes))
        order = graphs.EpochShuffle(torch.arange(TRAIN), seed=1)
        return list(graphs.DealtBatches(order, BATCH)), list(graphs.WholeBatches(torch.arange(VAL), 2))

    whole, validation = batches(0, 1)
    parts = [batches(rank, 3) for rank in range(3)]
    for batch, *dealt in zip(whole, *(part[0] for part in parts), strict=True):
        assert sorted(chain(*dealt)) == sorted(batch) if len(batch) >= 3 else dealt == [batch] * 3
    assert sorted(chain(*(part[1] for part in parts))) == sorted(validation)


@pytest.mark.parametrize(("device", "n", "message"), [("cpu", 0, "expected 1 or more"), ("cuda", 9999, "offers")])
def test_devices_that_are_not_there_are_refused(device, n, message):
    with pytest.raises(ReplimatError, match=message):
        devices.check_devices(device, n)


@pytest.mark.parametrize(("cuda", "build"), [(None, "processors only"), ("13.0", "for CUDA 13.0")])
def test_a_gpu_that_is_not_there_is_refused(cuda, build, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.version.cuda", cuda)
    assert devices.pick_device("auto") == devices.pick_device("cpu") == "cpu"
    with pytest.raises(ReplimatError, match=f"--device cuda: .*{build}"):
        devices.pick_device("cuda")


def test_a_stopped_seed_is_no_failed_seed():
    assert not issubclass(Stopped, Exception)
