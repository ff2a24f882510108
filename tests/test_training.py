"""Training: the same weights after kill -9 as in an unbroken run, scaling that inverts, batches that are what they
say.
"""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from graph_models import crystal
from replimat.datasets.base import Structures
from replimat.errors import DataError
from replimat.representations.cutoff_graph import CutoffGraph
from replimat.training.graphs import EpochShuffle, graphs_of, ragged_rows
from replimat.training.scaling import element_counts, fit_scaling
from replimat.training.settings import Scaling

TRAIN = textwrap.dedent("""
    import os, signal, sys
    from pathlib import Path
    import torch
    from safetensors.torch import save_file
    from replimat.models.cgcnn import CGCNN
    from replimat.models.schnet import SchNet
    from replimat.training import task
    from replimat.training.fit import train
    from replimat.training.graphs import graphs_of
    from replimat.training.settings import Training

    folder, kind, kill_at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    torch.manual_seed(7)
    n, atoms, m = 60, 3, 4
    arrays = {"numbers": torch.randint(1, 90, (n * atoms,)), "offsets": torch.arange(n + 1) * atoms,
              "neighbour_index": torch.randint(0, atoms, (n * atoms, m)), "distance": torch.rand(n * atoms, m) * 6}
    target = arrays["distance"].view(n, -1).mean(1)
    target = (target > target.median()).float() if kind == "classification" else target
    graph, forces, weights, trained = "CrystalGraph", None, {}, task.SupervisedTask
    if kind == "potential":
        pairs = torch.tensor([[1, 2, 0, 2, 0, 1], [0, 0, 1, 1, 2, 2]])
        arrays |= {"positions": torch.randn(n * atoms, 3), "edge_index": pairs.repeat(1, n),
                   "edge_offsets": torch.arange(n + 1) * 6}
        graph, forces, trained = "CutoffGraph", torch.randn(n * atoms, 3), task.PotentialTask
        weights = {"energy": 0.1, "forces": 1.0}
    step = trained.training_step

    def killed(self, batch, number):
        if self.trainer.global_step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, batch, number)

    trained.training_step = killed
    torch.manual_seed(0)
    if kind == "potential":
        model = SchNet(features=8, filters=8, interactions=1, gaussians=8)
    else:
        model = CGCNN(torch.rand(101, 8), atom_fea=8, h_fea=8, n_conv=1, classes=2 if kind == "classification" else 0)
    settings = Training(epochs=6, batch_size=16, lr=0.01, loss="nll" if kind == "classification" else "mse",
                        schedule="onecycle", ema=0.9, weights=weights)
    rows = {"train": torch.arange(44), "val": torch.arange(44, 60)}
    model = train(model, graphs_of(graph, arrays, target, forces), rows, settings, folder, seed=3, identity="x")
    save_file(model.state_dict(), folder / "weights.safetensors")
""")


def run_training(folder: Path, kind: str, kill_at: int) -> int:
    words = [sys.executable, "-c", TRAIN, str(folder), kind, str(kill_at)]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.mark.parametrize("kind", ["regression", "classification", "potential"])  # classification: with dropout
def test_kill_9_ends_with_the_weights_of_an_unbroken_run(tmp_path, kind):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir(), broken.mkdir()
    assert run_training(whole, kind, -1) == 0
    assert run_training(broken, kind, 8) == -signal.SIGKILL  # three steps an epoch: in the middle of the third
    assert not (broken / "weights.safetensors").exists()
    assert run_training(broken, kind, 13) == -signal.SIGKILL  # and again in the fifth
    assert run_training(broken, kind, -1) == 0
    assert (whole / "weights.safetensors").read_bytes() == (broken / "weights.safetensors").read_bytes()
    columns = ["epoch", "train_loss", "val_loss", "lr"]
    pd.testing.assert_frame_equal(*[pd.read_csv(folder / "log.csv")[columns] for folder in (whole, broken)])


def test_shuffling_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        sampler = EpochShuffle(torch.arange(50), seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 4) == order(1, 4)
    assert order(1, 4) != order(1, 5) != order(2, 5)
    assert sorted(order(1, 4)) == list(range(50))


def test_ragged_rows_by_hand():
    positions, sizes = ragged_rows(torch.tensor([0, 2, 2, 5]), torch.tensor([2, 0, 1]))
    assert positions.tolist() == [2, 3, 4, 0, 1]
    assert sizes.tolist() == [3, 2, 0]


def test_a_batch_keeps_every_edge_of_its_graphs():
    several = [crystal(seed, atoms) for seed, atoms in ((1, 3), (2, 5), (3, 4))]
    packed = Structures.pack(several, periodic=True)
    arrays = {k: torch.from_numpy(v) for k, v in CutoffGraph(cutoff=4.0)(packed, progress=False).items()}
    batch = graphs_of("CutoffGraph", arrays, torch.zeros(3)).inputs(torch.tensor([2, 0]))
    j, i = batch["edge_index"]
    distance = torch.linalg.vector_norm(batch["pos"][j] + batch["offset"] - batch["pos"][i], dim=-1)
    assert distance.max() <= 4.0 + 1e-5
    assert torch.equal(batch["batch"][j], batch["batch"][i])
    expected = np.diff(arrays["edge_offsets"].numpy())[[2, 0]]
    assert torch.bincount(batch["batch"][i]).tolist() == expected.tolist()


@pytest.mark.parametrize(
    "settings", [Scaling(), Scaling(per_atom=True), Scaling("elements"), Scaling("elements", per_atom=True)]
)
def test_scaling_inverts_in_double_precision(settings):
    rng = np.random.default_rng(0)
    numbers, offsets = rng.integers(1, 9, 200), np.arange(0, 201, 5)
    counts = element_counts(numbers, offsets)
    energies = -1e4 + rng.normal(size=40)  # eV: single precision alone would lose the digits that matter
    fitted = fit_scaling(settings, energies, counts)
    np.testing.assert_allclose(fitted.inverse(fitted.forward(energies, counts), counts), energies, rtol=0, atol=1e-9)


def test_element_references_recover_atomic_energies():
    counts = element_counts(np.array([1, 1, 8, 6, 8, 8, 1, 6]), np.array([0, 3, 6, 8]))  # H2O, CO2, HC
    atomic = {1: -13.6, 6: -1030.0, 8: -2040.0}
    energies = np.array([2 * atomic[1] + atomic[8], atomic[6] + 2 * atomic[8], atomic[1] + atomic[6] + 1.0])
    fitted = fit_scaling(Scaling("elements"), energies, counts)
    assert fitted.reference(counts) == pytest.approx(energies)


def test_a_constant_target_is_refused():
    counts = element_counts(np.array([1, 1, 8, 6]), np.arange(5))
    with pytest.raises(DataError, match="does not vary"):
        fit_scaling(Scaling(), np.ones(4), counts)
