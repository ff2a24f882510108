"""Physical properties of a fitted potential: every study of an experiment, each kept as soon as it is done."""

import json
import math
from pathlib import Path

from replimat import files
from replimat.errors import ReplimatError
from replimat.experiments.base import Studies
from replimat.experiments.provenance import Stopwatch


def measure(studies: Studies, calculator, folder: Path, identity: str) -> dict[str, dict]:
    """What each study found, by name: {"values", "units", "curves", "reason", "seconds", "calls"}.

    A study done before for the same `identity` is read from `folder`. One that fails is recorded with the reason and
    does not stop the others.
    """
    return {name: _one(name, study, calculator, folder / f"{name}.json", identity) for name, study in studies.items()}


def properties(measured: dict[str, dict]) -> tuple[dict[str, float | None], dict[str, str]]:
    """Values and units of all studies together; a value that is not finite is None."""
    values, units = {}, {}
    for one in measured.values():
        units |= one["units"]
        for name, value in one["values"].items():
            values[name] = value if value is not None and math.isfinite(value) else None
    return values, units


def _one(name: str, study, calculator, path: Path, identity: str) -> dict:
    if path.is_file() and (kept := json.loads(path.read_text(encoding="utf-8")))["identity"] == identity:
        return kept
    watch, calls = Stopwatch(), calculator.calls
    record = {"identity": identity, "values": {}, "units": {}, "curves": {}, "reason": ""}
    try:
        found = study(calculator)
        record |= {"values": found.values, "units": found.units, "curves": found.curves}
    except (ReplimatError, RuntimeError, ValueError, ArithmeticError) as error:
        record["reason"] = str(error).splitlines()[0]
        print(f"{name}: not measured: {record['reason']}", flush=True)
    record |= {"seconds": watch.read()["wall_seconds"], "calls": calculator.calls - calls}
    files.write_json(path, record)
    return record
