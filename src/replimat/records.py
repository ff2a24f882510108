"""Record of a run: what an experiment leaves in `runs/<scale>/<paper>/<experiment>/` and what the judge reads there.

`run.json` holds one Run. Beside it each seed has `seed<k>/predictions.parquet` (id, target, prediction;
p_class_<k> where several classes are told apart) and `seed<k>/log.csv` (epoch, seconds, train_loss, val_loss,
val_<metric>, lr, devices). A run that measures several targets (energy and forces, say) has its main one at the top
and the others in `parts`: what differs there from the top, with the predictions in
`seed<k>/predictions-<target>.parquet`. Where crystals or molecules are generated, the table of samples lies in
`seed<k>/samples.parquet` instead (its columns: replimat.evaluation.generation).

Two checksums are taken from the prepared data, before any model sees it, and kept in the provenance, so that the
predictions can be held against them afterwards: `test_ids_sha256` (which rows are the test set, in any order) and
`test_targets_sha256` (what their true values are, to float32).
"""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from replimat.cards import Origin, Scale
from replimat.errors import ExperimentError
from replimat.files import sha256 as file_sha256
from replimat.files import sha256_json
from replimat.units import convert

SEAL = "sha256"  # of the rest of a record
CLASS_COLUMN = "p_class_"  # columns of predictions.parquet with the probability of each class
# Kinds of runs in which nothing is trained, in words.
RELEASED = {"author_weights": "author's weights", "author_predictions": "author's predictions"}


class Record(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class SeedResult(Record):
    """One seed of a run. A metric that is None or NaN was attempted and has no value."""

    seed: int
    status: Literal["ok", "diverged", "failed"]
    reason: str = ""
    metrics: dict[str, float | None] = Field(default_factory=dict)
    evaluated: int | None = None
    failed: int | None = None
    seconds: float | None = None
    peak_memory_mb: float | None = None
    file_sha256: str = ""  # of its predictions or samples
    properties: dict[str, float | None] = Field(default_factory=dict)  # of a potential: physical, and its cost


class Run(Record):
    """One experiment at one scale, all its seeds. `unit` is the target's; metric_units names metrics in another."""

    paper: str
    experiment: str
    scale: Scale
    dataset: str
    data_origin: Origin
    target: str
    unit: str
    kind: Literal["trained", "author_weights", "author_predictions"] = "trained"
    task: str = "regression"
    rung: int = Field(ge=1, le=6)
    split: str = ""
    status: Literal["ok", "failed"]
    reason: str = ""
    primary_metric: str
    n_train: int | None = None
    n_val: int | None = None
    n_test: int | None = None
    full_protocol: bool = False
    deterministic: bool = False
    reductions: tuple[str, ...] = ()
    seeds: tuple[SeedResult, ...] = ()
    classes: tuple[str, ...] = ()  # their names, by number, where the task is to tell several apart
    baselines: dict[str, dict[str, float | None]] = Field(default_factory=dict)
    metric_units: dict[str, str] = Field(default_factory=dict)
    property_units: dict[str, str] = Field(default_factory=dict)
    leakage: dict[str, int | None] = Field(default_factory=dict)
    hardware: str = ""
    warnings: tuple[str, ...] = ()
    provenance: dict = Field(default_factory=dict)
    parts: dict[str, dict] = Field(default_factory=dict)
    is_part: bool = False  # taken out of a run whose main target is another one

    @property
    def label(self) -> str:
        """The experiment's name, with the target where that is not the main one."""
        return f"{self.experiment}-{self.target}" if self.is_part else self.experiment

    def part(self, target: str) -> "Run":
        """The record of one of its targets alone. Raises ExperimentError when the run does not measure it."""
        if target == self.target:
            return self
        if target not in self.parts:
            measured = ", ".join([self.target, *self.parts])
            raise ExperimentError(f"{self.paper}/{self.experiment} measures {measured}, not {target}.")
        own = self.parts[target]
        provenance = self.provenance | own.get("provenance", {})
        differs = own | {"target": target, "provenance": provenance, "is_part": True}
        return Run(**self.model_dump(exclude={"parts"}) | differs)

    def unit_of(self, metric: str) -> str:
        """The unit of a metric: the target's for errors, its square for a mean squared error, else a plain number."""
        if metric in self.metric_units:
            return self.metric_units[metric]
        if metric.endswith(("mae", "rmse", "mad")) and metric != "mad_mae":
            return self.unit
        if metric.endswith("mape"):
            return "%"
        if metric.endswith("mse"):
            return "1" if self.unit == "1" else f"{self.unit}^2"
        return "1"


@dataclass(frozen=True)
class Predictions:
    """What a seed predicted for the test set: ids [n], targets [n], predictions [n] in the run's unit; of classes, by
    number, also the probability of each [n, K].
    """

    ids: np.ndarray
    target: np.ndarray
    prediction: np.ndarray
    probabilities: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)


def run_folder(runs_dir: str | Path, scale: str, paper: str, experiment: str) -> Path:
    return Path(runs_dir) / scale / paper / experiment


def read_run(folder: str | Path) -> Run | None:
    """The record in a run's folder, or None when there is none. Raises ExperimentError when it is malformed."""
    path = Path(folder) / "run.json"
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        run = Run(**content)
        _require_whole(content)
        return run
    except (ValidationError, TypeError, ValueError) as error:
        fault = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        where = ".".join(str(part) for part in fault["loc"]) or "record"
        raise ExperimentError(f"{path}: {where}: {fault['msg']}. Run the experiment again to replace it.") from error


def sealed(record: dict) -> dict:
    """A record with the sha256 of its content, by which `read_run` knows that it is still what was written."""
    return record | {SEAL: sha256_json(record)}


def _require_whole(record: dict) -> None:
    """Raise ValueError unless a record is as it was sealed; one without a seal was made by hand."""
    content = {name: value for name, value in record.items() if name != SEAL}
    if SEAL in record and record[SEAL] != sha256_json(content):
        raise ValueError("its content was changed after it was written")


def _require_unchanged(path: Path, sha256: str) -> None:
    """Raise ExperimentError if a file beside a record is not the one that was written with it."""
    if sha256 and file_sha256(path) != sha256:
        raise ExperimentError(f"{path}: changed after it was written. Run the experiment again to replace it.")


def predictions_path(folder: str | Path, seed: int, part: str = "") -> Path:
    """Where the predictions of a seed lie; part: a target other than the run's main one."""
    return Path(folder) / f"seed{seed}" / (f"predictions-{part}.parquet" if part else "predictions.parquet")


def read_predictions(folder: str | Path, seed: int, part: str = "", sha256: str = "") -> Predictions | None:
    """Predictions of one seed, or None when there is no file; sha256: what its record says of the file, if it does.

    Raises ExperimentError when the file cannot be used.
    """
    path = predictions_path(folder, seed, part)
    if not path.is_file():
        return None
    _require_unchanged(path, sha256)
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
        ids, target, prediction = (table[name].to_numpy() for name in ("id", "target", "prediction"))
        classes = [table[name].to_numpy() for name in table.column_names if name.startswith(CLASS_COLUMN)]
        probabilities = np.stack(classes, axis=1).astype(np.float64) if classes else None
        return Predictions(ids.astype(str), target.astype(np.float64), prediction.astype(np.float64), probabilities)
    except (pyarrow.ArrowException, OSError, KeyError, ValueError) as error:
        raise ExperimentError(
            f"{path}: expected columns id, target, prediction: {' '.join(str(error).split())}"
        ) from error


def samples_path(folder: str | Path, seed: int, part: str = "") -> Path:
    """Where the table of what a seed generated lies; part: a target other than the run's main one."""
    return Path(folder) / f"seed{seed}" / (f"samples-{part}.parquet" if part else "samples.parquet")


def read_samples(folder: str | Path, seed: int, part: str = "", sha256: str = "") -> dict[str, np.ndarray] | None:
    """Columns of the table of samples of one seed, or None when there is no file: id, of and failed are text, all
    others numbers; sha256: what its record says of the file, if it does. Raises ExperimentError when it cannot be used.
    """
    path = samples_path(folder, seed, part)
    if not path.is_file():
        return None
    _require_unchanged(path, sha256)
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
        text = {name: table[name].to_numpy().astype(str) for name in ("id", "of", "failed")}
        rest = [name for name in table.column_names if name not in text]
        return text | {name: table[name].to_numpy().astype(np.float64) for name in rest}
    except (pyarrow.ArrowException, OSError, KeyError, ValueError) as error:
        raise ExperimentError(
            f"{path}: expected columns id, of, failed and numbers: {' '.join(str(error).split())}"
        ) from error


def ids_sha256(ids: Iterable) -> str:
    """sha256 of a set of row ids, whatever their order."""
    return hashlib.sha256("\n".join(sorted(map(str, ids))).encode()).hexdigest()


def targets_sha256(ids: Iterable, targets: Iterable[float]) -> str:
    """sha256 of target values by row id, to float32, whatever the order of the rows."""
    ids = np.asarray([str(name) for name in ids])
    values = np.asarray(targets, dtype=np.float32).ravel()
    if len(ids) != len(values):
        raise ExperimentError(f"{len(ids)} ids for {len(values)} targets: expected one value per id.")
    order = np.argsort(ids, kind="stable")
    return hashlib.sha256("\n".join(ids[order]).encode() + values[order].tobytes()).hexdigest()


def finite(value: float | None) -> bool:
    """Whether a metric has a value."""
    return value is not None and math.isfinite(value)


def conversion(source: str, target: str) -> float:
    """Factor from one unit to another; a trailing ^2 on both stands for the square. Raises DataError."""
    if source == target:
        return 1.0
    if source.endswith("^2") and target.endswith("^2"):
        return convert(1.0, source[:-2], target[:-2]) ** 2
    return convert(1.0, source, target)


def number(value: float | None) -> str:
    """A value to four significant digits, without an exponent where a person would write none."""
    if value is None:
        return ""
    if value == 0 or 1e-4 <= abs(value) < 1e4:
        return f"{value:.4g}"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.3e}"


def shown(unit: str) -> str:
    """A unit as it stands in running text: nothing for a plain number."""
    return "" if unit == "1" else unit
