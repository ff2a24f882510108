"""What a run must agree with, from outside the run: the dataset's card, today's code and the prepared file."""

import json

import numpy as np

from replimat import cards
from replimat.audit import Expected
from replimat.errors import ReplimatError
from replimat.records import Run, ids_sha256, targets_sha256
from replimat.representations.arrays import test_values


def expected_of(run: Run) -> Expected:
    """As much as is known here. A committed record can be judged where neither data nor prepared file is."""
    return Expected(**_from_card(run), prepared_key=_key_now(run), **_from_prepared(run))


def _from_card(run: Run) -> dict:
    targets = cards.dataset(run.dataset).targets if run.dataset in cards.dataset_names() else {}
    if run.target not in targets:
        return {}
    return {"unit": targets[run.target].unit, "range": targets[run.target].range}


def _key_now(run: Run) -> str | None:
    """Key of the prepared file that cards and code would make now; None when the experiment is no longer there."""
    from replimat.experiments.base import Rescored, prepared_key
    from replimat.experiments.catalogue import plan_one

    try:
        experiment = plan_one(run.paper, run.experiment, run.scale).experiment
        return None if isinstance(experiment, Rescored) else prepared_key(experiment)
    except (ReplimatError, ImportError):
        return None


def _from_prepared(run: Run) -> dict:
    """Hashes of data, split and test set from the prepared file the run names, when it is still there; of released
    predictions from the benchmark they are held against.
    """
    if run.kind == "author_predictions":
        return _from_benchmark(run)
    from replimat.representations.prepared import HEADER, prepared_name

    key = run.provenance.get("prepared_key") or ""
    path = cards.project_root() / "prepared" / prepared_name(run.dataset, key)
    if not path.is_file():
        return {}
    from safetensors import safe_open

    with safe_open(path, framework="np") as stored:
        header = json.loads(stored.metadata()[HEADER])
        wanted = {f"target.{run.target}", f"atoms.{run.target}", "part", "offsets"} & set(stored.keys())
        arrays = {name: stored.get_tensor(name) for name in wanted}
    known = {name: header[name] for name in ("data_sha256", "split_sha256")}
    values = test_values(arrays, np.array(header["ids"]))
    if run.target not in values:  # made from the rows while learning: mixtures, reconstructions
        return known
    ids, target = values[run.target]
    return known | {"test_ids_sha256": ids_sha256(ids), "test_targets_sha256": targets_sha256(ids, target)}


def _from_benchmark(run: Run) -> dict:
    from replimat.experiments.rescoring import benchmark_hashes

    try:
        return benchmark_hashes(run.dataset, run.target)
    except ReplimatError:  # its files are not here, or the card no longer names it
        return {}
