"""The judge is tested with planted errors: each must be caught by a named check that says what is wrong.

A run with real predictions passes every check; then one thing is spoiled at a time.
"""

from dataclasses import replace

import numpy as np
import pytest

from replimat.audit import Expected, check_run, check_together, faults
from replimat.records import Predictions, Run
from replimat.verdicts import judge
from runs import claim, measured_run, scores


def spoil(run: Run, **changes) -> Run:
    return Run(**(run.model_dump() | changes))


def spoil_seed(run: Run, **changes) -> Run:
    return spoil(run, seeds=[run.seeds[0].model_dump() | changes])


def first_rows(found: Predictions, n: int) -> Predictions:
    return Predictions(found.ids[:n], found.target[:n], found.prediction[:n])


def caught(run, predictions, expected) -> list[str]:
    return faults(check_run(run, predictions, expected))


def assert_only(found: list[str], *names: str, said: str = ""):
    """Exactly these checks failed, one says `said`, and the verdict is FAILED for that reason."""
    assert [fault.split(":")[0] for fault in found] == list(names)
    assert any(said in fault for fault in found), found


@pytest.mark.parametrize("classes", [False, True])
def test_an_honest_run_passes_every_check(classes):
    checks = check_run(*measured_run(classes=classes))
    assert faults(checks) == []
    assert {check.name for check in checks if check.ok} >= {
        "unit",
        "counts",
        "rows",
        "split",
        "targets",
        "range",
        "re-scored",
    }


@pytest.mark.parametrize("classes", [False, True])
def test_with_nothing_to_compare_with_nothing_is_claimed(classes):
    run, _, _ = measured_run(classes=classes)
    checks = check_run(run, {}, Expected())
    assert faults(checks) == []
    assert [check.name for check in checks if check.ok is None] == ["unit", "stale cache", "re-scored"]


def test_a_caught_error_becomes_the_verdict():
    run, predictions, expected = measured_run()
    verdict = judge(claim(), run, faults=caught(spoil(run, unit="eV"), predictions, expected))
    assert verdict.name == "FAILED"
    assert verdict.reason == "unit: the run is in eV, the dataset's card says eV/atom"


# ----------------------------------------------------------------- units


def test_unit_of_the_record():
    run, predictions, expected = measured_run()
    assert_only(caught(spoil(run, unit="meV/atom"), predictions, expected), "unit", said="meV/atom")


def test_metric_times_1000():
    run, predictions, expected = measured_run()
    metrics = run.seeds[0].metrics | {"mae": 1000 * run.seeds[0].metrics["mae"]}
    assert_only(caught(spoil_seed(run, metrics=metrics), predictions, expected), "re-scored", said="(units?)")


def test_everything_times_1000():
    """Targets, predictions and metrics agree with each other and all are in meV: only the card knows better."""
    run, predictions, expected = measured_run()
    milli = {0: Predictions(predictions[0].ids, 1000 * predictions[0].target, 1000 * predictions[0].prediction)}
    run = spoil_seed(run, metrics=scores(milli[0]))
    assert_only(caught(run, milli, expected), "targets", "range", "baseline unit", said="another unit?")


def test_baseline_times_1000():
    run, predictions, expected = measured_run()
    baselines = {"mean": {"mae": 1000 * run.baselines["mean"]["mae"]}}
    assert_only(caught(spoil(run, baselines=baselines), predictions, expected), "baseline unit", said="mean predictor")


# ----------------------------------------------------- swapped arguments


def test_swapped_arguments_of_a_metric():
    """MAE is symmetric and hides it; R2 is not."""
    run, predictions, expected = measured_run(noise=0.5)
    found = predictions[0]
    metrics = scores(Predictions(found.ids, found.prediction, found.target))
    assert metrics["mae"] == run.seeds[0].metrics["mae"]
    assert_only(
        caught(spoil_seed(run, metrics=metrics), predictions, expected), "re-scored", said="arguments were swapped"
    )


def test_swapped_columns():
    run, predictions, expected = measured_run(noise=0.5)
    found = Predictions(predictions[0].ids, predictions[0].prediction, predictions[0].target)
    run = spoil_seed(run, metrics=scores(found))
    assert_only(caught(run, {0: found}, expected), "targets", said="target and prediction are swapped")


def test_swapped_classes():
    run, predictions, expected = measured_run(classes=True)
    flipped = Predictions(predictions[0].ids, predictions[0].target, 1 - predictions[0].prediction)
    assert_only(caught(run, {0: flipped}, expected), "re-scored", said="auc")


# ---------------------------------------------------------- dropped rows


def test_dropped_rows():
    run, predictions, expected = measured_run()
    kept = Predictions(
        *(column[:-5] for column in (predictions[0].ids, predictions[0].target, predictions[0].prediction))
    )
    assert_only(caught(run, {0: kept}, expected), "rows", "re-scored", said="195 usable rows")


def test_dropped_rows_with_counts_to_match():
    run, predictions, expected = measured_run()
    kept = Predictions(
        *(column[:-5] for column in (predictions[0].ids, predictions[0].target, predictions[0].prediction))
    )
    short = spoil_seed(run, metrics=scores(kept), evaluated=195)
    assert_only(caught(short, {0: kept}, expected), "counts", said="195 evaluated + 0 failed is not n_test 200")
    shorter = spoil(short, n_test=195)
    assert_only(caught(shorter, {0: kept}, expected), "split", "targets", said="not the test rows")


def test_failed_rows_that_are_counted_are_no_fault():
    run, predictions, expected = measured_run()
    prediction = predictions[0].prediction.copy()
    prediction[:3] = np.nan
    found = Predictions(predictions[0].ids, predictions[0].target, prediction)
    usable = np.isfinite(prediction)
    metrics = scores(Predictions(found.ids[usable], found.target[usable], prediction[usable]))
    assert caught(spoil_seed(run, metrics=metrics, evaluated=197, failed=3), {0: found}, expected) == []
    uncounted = spoil_seed(run, metrics=metrics)
    assert_only(caught(uncounted, {0: found}, expected), "rows", said="197 usable rows")


def test_swapped_and_absent_counts():
    run, predictions, expected = measured_run()
    assert_only(caught(spoil_seed(run, evaluated=0, failed=200), predictions, expected), "rows", said="0 evaluated")
    assert_only(caught(spoil_seed(run, evaluated=None), predictions, expected), "counts", "rows", said="does not say")
    assert_only(
        caught(spoil_seed(run, failed=-1, evaluated=201), predictions, expected), "counts", "rows", said="-1 failed"
    )


def test_a_row_twice():
    run, predictions, expected = measured_run()
    ids = predictions[0].ids.copy()
    ids[1] = ids[0]
    assert_only(
        caught(run, {0: replace(predictions[0], ids=ids)}, expected), "rows", "split", "targets", said="more than once"
    )


# ------------------------------------------------ wrong split, stale cache


def test_wrong_split():
    run, predictions, expected = measured_run()
    other = replace(predictions[0], ids=np.char.add(predictions[0].ids, "-train"))
    assert_only(caught(run, {0: other}, expected), "split", "targets", said="not the test rows of the split")
    stale = spoil(run, provenance=run.provenance | {"split_sha256": "cd" * 32})
    assert_only(caught(stale, predictions, expected), "wrong split", said="cdcdcdcdcdcd")


@pytest.mark.parametrize("name", ["prepared_key", "data_sha256"])
def test_stale_cache(name):
    run, predictions, expected = measured_run()
    stale = spoil(run, provenance=run.provenance | {name: "cd" * 32})
    assert_only(caught(stale, predictions, expected), "stale cache", said="run the experiment again")
    nameless = spoil(run, provenance={key: value for key, value in run.provenance.items() if key != name})
    assert_only(caught(nameless, predictions, expected), "stale cache", said="None")


def test_targets_of_another_property():
    """Rows and counts are right, the values are another target's: a cache whose key lacks the target."""
    run, predictions, expected = measured_run()
    found = replace(predictions[0], target=predictions[0].target[::-1].copy())
    run = spoil_seed(run, metrics=scores(found))
    assert_only(caught(run, {0: found}, expected), "targets", said="not the dataset's")


def test_two_targets_with_the_same_values():
    run, predictions, _ = measured_run()
    other = spoil(run, experiment="mp-band-gap", target="band_gap")
    found = check_together([(run, predictions[0]), (other, predictions[0])])
    assert list(found) == [("mp-band-gap", "band_gap")]
    assert "mp-formation-energy (formation_energy)" in found["mp-band-gap", "band_gap"].message
    again = spoil(run, experiment="official-formation-energy")
    assert check_together([(run, predictions[0]), (again, predictions[0])]) == {}


def test_full_protocol_that_is_not():
    run, predictions, expected = measured_run()
    assert_only(
        caught(spoil(run, full_protocol=True), predictions, expected), "protocol", said="laptop scale on substitute"
    )
