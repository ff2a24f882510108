"""Physical properties of a fitted potential: every study of an experiment, each kept as soon as it is done."""

import json
import math
from pathlib import Path

import numpy as np

from replimat import files
from replimat.errors import ReplimatError
from replimat.experiments.base import Studies
from replimat.experiments.provenance import Stopwatch


def measure(studies: Studies, calculator, folder: Path, identity: str) -> dict[str, dict]:
    """What each study found, by name: {"values", "units", "curves", "reason", "seconds", "calls"}.

    A study done before for the same `identity` is read from `folder`. One that fails is recorded with the reason and
    does not stop the others. A number that is not finite is None.
    """
    return {name: _one(name, study, calculator, folder / f"{name}.json", identity) for name, study in studies.items()}


def properties(measured: dict[str, dict]) -> tuple[dict[str, float | None], dict[str, str]]:
    """Values and units of all studies together."""
    values, units = {}, {}
    for one in measured.values():
        values |= one["values"]
        units |= one["units"]
    return values, units


def _one(name: str, study, calculator, path: Path, identity: str) -> dict:
    if path.is_file() and (kept := json.loads(path.read_text(encoding="utf-8")))["identity"] == identity:
        return kept
    watch, calls = Stopwatch(), calculator.calls
    record = {"identity": identity, "values": {}, "units": {}, "curves": {}, "reason": ""}
    try:
        found = study(calculator)
        record |= {"values": _plain(found.values), "units": found.units, "curves": _plain(found.curves)}
    except (ReplimatError, RuntimeError, ValueError, ArithmeticError) as error:
        record["reason"] = str(error).splitlines()[0]
        print(f"{name}: not measured: {record['reason']}", flush=True)
    record |= {"seconds": watch.read()["wall_seconds"], "calls": calculator.calls - calls}
    files.write_json(path, record)
    return record


def _plain(value):
    """The same as JSON can hold it: lists for arrays, None for what is not finite."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(one) for one in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
