"""Faults of every kind, a few tries each (all of them: tests/faults.py), and every reader against flipped bits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.utils.data import Dataset

from damage import flip, poison, truncate
from faults import SEED, faults, try_fault
from grounds import Ground
from replimat import files, records
from replimat.datasets.loading import _restore
from replimat.errors import IntegrityError, ReplimatError
from replimat.experiments.weights import stored_weights
from replimat.representations import prepared
from replimat.training.fit import train
from replimat.training.settings import Training
from small_suite import FETCHED, RUNS

TRIED = {
    "kill -9 of snakemake and its jobs": 1,
    "kill -9 at a file operation of fetch": 4,
    "disk full: data/": 1,
    "file size limit: compare": 1,
    "read-only: data/": 1,
    "two fit of one experiment at once": 1,
    "two fetch at once": 2,
    "block of a computation with a flipped bit": 1,
    "data/ member truncated": 1,
}
HARMED = 60  # damaged copies of each file


@pytest.fixture(scope="module")
def ground(tmp_path_factory) -> Ground:
    return Ground(tmp_path_factory.mktemp("faults"))


@pytest.mark.pipeline
@pytest.mark.parametrize("name", TRIED)
def test_nothing_is_lost(ground, name):
    tally = try_fault(name, faults()[name][0], ground, TRIED[name], seed=1)
    if not tally.tries:
        pytest.skip(tally.said)
    assert tally.lost == 0 and tally.survived == TRIED[name], tally.said


class Line(Dataset):
    """Eight points of a line, as inputs and targets."""

    def __getitems__(self, rows):
        x = torch.tensor(rows, dtype=torch.float32)
        return {"input": x[:, None]}, x


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path):
    checkpoint, marker = tmp_path / "checkpoints" / "last.ckpt", tmp_path / "executed"
    files.write_text(checkpoint.with_name("identity"), "mine")
    torch.save({"state_dict": {}}, checkpoint)
    poison(checkpoint, marker)
    rows = {"train": torch.arange(6), "val": torch.arange(6, 8)}
    settings = Training(epochs=1, batch_size=2, lr=0.1)
    with pytest.raises(IntegrityError, match="could run foreign code"):
        train(nn.Linear(1, 1), Line(), rows, settings, tmp_path, seed=0, identity="mine", device="cpu")
    assert not marker.exists()
    torch.load(checkpoint, weights_only=False)  # the code in it does run where it is let
    assert marker.exists()


def read_prepared(path: Path) -> object:
    arrays, metadata = prepared.load(path)
    return {name: array.tobytes() for name, array in arrays.items()}, metadata


def read_weights(path: Path, identity: str) -> object:
    weights = stored_weights(path, identity)
    return weights and ({name: tensor.numpy().tobytes() for name, tensor in weights[0].items()}, weights[1])


def read_predictions(path: Path, sha256: str) -> object:
    found = records.read_predictions(path.parents[1], 0, sha256=sha256)
    return found.ids.tolist(), found.target.tobytes(), found.prediction.tobytes()


def read_record(path: Path) -> object:
    return records.read_run(path.parent).model_dump_json(include=set(records.Run.model_fields))


def read_dataset(path: Path) -> object:
    data = _restore(path)
    return data.content_sha256(), data.units, data.left_out, data.missing


def identity(path: Path) -> str:
    with safe_open(path, framework="numpy") as stored:
        return stored.metadata()["identity"]


@pytest.mark.pipeline
@pytest.mark.parametrize("harm", [truncate, flip])
@pytest.mark.parametrize(
    ("name", "read", "known"),
    [
        ("prepared/crystals-*.safetensors", read_prepared, None),
        ("prepared/datasets/crystals-*.npz", read_dataset, None),
        (f"{SEED}/model.safetensors", read_weights, identity),
        (f"{SEED}/predictions.parquet", read_predictions, files.sha256),
        (f"{RUNS}/{FETCHED}/run.json", read_record, None),
    ],
)
def test_a_damaged_file_is_named_or_not_used(ground, tmp_path, name, read, known, harm):
    """What a reader returns is what was written, or nothing, or an error for a person."""
    whole = next((ground.kept / "project").glob(name))
    arguments = [known(whole)] if known else []
    copy = tmp_path / "seed0" / whole.name
    copy.parent.mkdir()
    noticed, rng = 0, np.random.default_rng(0)
    for _ in range(HARMED):
        copy.write_bytes(whole.read_bytes())
        harm(copy, rng)
        try:
            found = read(copy, *arguments)
        except ReplimatError:
            found = None
        assert found is None or found == read(whole, *arguments)
        noticed += found is None
    assert noticed > HARMED / 2
