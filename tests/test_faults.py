"""Faults of every kind, a few tries each (all of them: tests/faults.py), and every reader against flipped bits."""

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from damage import flip, truncate
from faults import SEED, faults, try_fault
from grounds import Ground
from replimat import files, records
from replimat.datasets.loading import _restore
from replimat.errors import ReplimatError
from replimat.experiments.weights import stored_weights
from replimat.representations import prepared
from small_suite import FETCHED, RUNS

TRIED = {
    "kill -9 of snakemake and its jobs": 2,
    "kill -9 at a file operation of fetch": 4,
    "kill -9 at a file operation of compare": 1,
    "disk full: data/": 1,
    "file size limit: compare": 1,
    "read-only: data/": 1,
    "two fit of one experiment at once": 1,
    "two fetch at once": 2,
    "checkpoint with code in it": 1,
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
