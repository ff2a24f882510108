"""Physical studies of a run: kept one by one, resumed, and recorded when they fail."""

import json

import pytest

from replimat.errors import ExperimentError
from replimat.experiments.studying import measure, properties
from replimat.physics.found import Found


class Counter:
    """A calculator that only counts."""

    calls = 0


def density(calculator):
    calculator.calls += 3
    return Found({"density": 2.0, "gap": float("nan")}, {"density": "g/cm^3", "gap": "eV"}, {"x": [1, 2]})


def broken(calculator):
    raise ExperimentError("it melted\nand more")


def test_a_study_is_kept_and_not_done_again(tmp_path):
    calculator = Counter()
    first = measure({"density": density}, calculator, tmp_path, "a")
    again = measure({"density": density}, calculator, tmp_path, "a")
    assert calculator.calls == 3 and first == again
    assert json.loads((tmp_path / "density.json").read_text())["calls"] == 3
    measure({"density": density}, calculator, tmp_path, "another model")
    assert calculator.calls == 6


def test_a_study_that_fails_says_why_and_stops_no_other(tmp_path):
    found = measure({"broken": broken, "density": density}, Counter(), tmp_path, "a")
    assert found["broken"]["reason"] == "it melted" and found["broken"]["values"] == {}
    values, units = properties(found)
    assert values == {"density": 2.0, "gap": None}  # a value that is no number is none
    assert units["density"] == "g/cm^3"


def test_a_mistake_in_the_code_is_not_taken_for_a_finding(tmp_path):
    def mistaken(calculator):
        return calculator.no_such_thing

    with pytest.raises(AttributeError):
        measure({"mistaken": mistaken}, Counter(), tmp_path, "a")
    assert not list(tmp_path.iterdir())
