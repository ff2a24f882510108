"""The judge: every rule by a case worked out by hand, their order, and the error rates it promises."""

import math

import numpy as np
import pytest

from replimat.cards import Margin
from replimat.margins import default_margin
from replimat.verdicts import half_width, judge
from runs import claim, run

FIVE = Margin(value=0.05, reason="made up: 5 %")
BASELINES = {"mean": {"mae": 0.8}, "random_forest": {"mae": 0.3}}


def verdict(values, margin=FIVE, claimed=None, **changes):
    return judge(claimed or claim(), run(values, **changes), margin)


# ------------------------------------------------------------ statistics


def test_half_width_by_hand():
    # t(0.95, 2) = 2.91999 and sqrt(1 + 1/3) = 1.154701, from tables
    assert half_width(0.01, 3) == pytest.approx(0.01 * 2.91999 * 1.154701, rel=1e-5)
    assert half_width(0.01, 3, level=0.975) == pytest.approx(0.01 * 4.30265 * 1.154701, rel=1e-5)


def test_interval_is_reported():
    found = verdict([0.099, 0.100, 0.101])  # mean 0.1, s = 0.001
    assert (found.ours, found.std, found.n_seeds) == (pytest.approx(0.1), pytest.approx(0.001), 3)
    assert found.high - found.ours == pytest.approx(0.001 * 2.91999 * 1.154701, rel=1e-5)
    assert found.ratio == pytest.approx(1.0)


def test_at_the_margin_it_says_reproduced_in_one_case_of_twenty():
    """A method that is truly 10 % worse, against a margin of 10 %: the test promises at most 5 % of such errors."""
    rng = np.random.default_rng(1)
    exact = claim(digits=12)
    margin = Margin(value=0.1, reason="")
    said = 0
    for _ in range(2000):
        reported, *ours = 1 + 0.02 * rng.standard_normal(4)
        exact = claim(value=reported, digits=12)
        ours = [0.1 + x for x in ours]
        said += judge(exact, run(ours), margin).name == "REPRODUCED"
    assert said / 2000 == pytest.approx(0.05, abs=0.02)


# ------------------------------------------------------------- each rule


def test_reproduced_when_the_interval_is_inside_the_margin():
    assert verdict([0.099, 0.100, 0.101]).name == "REPRODUCED"  # 0.1 -+ 0.0034 inside 0.0945 to 0.1055


def test_rounding_of_the_printed_digit_widens_the_margin():
    values = [0.0999, 0.1000, 0.1001]  # interval 0.1 -+ 0.00034
    tight = Margin(value=1e-6, reason="")
    assert verdict(values, tight, claim(digits=3)).name == "REPRODUCED"  # h = 0.0005
    assert verdict(values, tight, claim(digits=4)).name != "REPRODUCED"  # h = 0.00005


@pytest.mark.parametrize(
    ("direction", "values", "expected"),
    [
        ("lower", [0.149, 0.150, 0.151], "WORSE"),
        ("lower", [0.049, 0.050, 0.051], "BETTER"),
        ("higher", [0.149, 0.150, 0.151], "BETTER"),
        ("higher", [0.049, 0.050, 0.051], "WORSE"),
        ("none", [0.049, 0.050, 0.051], "WORSE"),
    ],
)
def test_better_and_worse_follow_the_direction(direction, values, expected):
    assert verdict(values, claimed=claim(direction=direction)).name == expected


def test_consistent_says_how_many_seeds_would_do():
    found = verdict([0.097, 0.100, 0.103])  # s = 0.003: interval -+ 0.0101, margin -+ 0.0055
    assert found.name == "CONSISTENT"
    n = found.seeds_needed
    assert f"{n} seeds would do" in found.reason
    room = 0.05 * 0.1 + 0.0005
    assert half_width(0.003, n) <= room < half_width(0.003, n - 1)


def test_consistent_admits_when_no_number_of_seeds_would_do():
    found = verdict([0.09, 0.10, 0.11])  # s = 0.01, but 1.645 s = 0.016 is the least the interval can be
    assert (found.name, found.seeds_needed) == ("CONSISTENT", None)
    assert "no number of seeds" in found.reason


def test_inconclusive_when_straddling_the_margin():
    found = verdict([0.1039, 0.1050, 0.1061])  # 0.105 -+ 0.0037 is narrower than the margin and crosses 0.1055
    assert found.name == "INCONCLUSIVE"


@pytest.mark.parametrize("values", [[0.1], [0.1, 0.1]])
def test_fewer_than_three_seeds_are_indicative(values):
    assert verdict(values).name == "INDICATIVE"


def test_exact_and_its_rounding():
    weights = {"kind": "author_weights", "deterministic": True, "full_protocol": False}
    for value, expected in [
        (0.1004, "EXACT"),
        (0.1005, "EXACT"),
        (0.0995, "EXACT"),
        (0.1006, "WORSE"),
        (0.0994, "BETTER"),
    ]:
        found = verdict([value], **weights)
        assert found.name == expected, value
        assert found.std is None
    assert "0.10060 where the paper prints 0.100" in verdict([0.1006], **weights).reason


def test_author_weights_on_other_crystals_are_reduced_even_when_equal():
    found = verdict([0.1], kind="author_weights", deterministic=True, data_origin="substitute", full_protocol=False)
    assert found.name == "REDUCED"
    assert found.reason == "other crystals than the paper's; they may have been in the training set"


@pytest.mark.parametrize(("changes", "said"), [({"split": "rebuilt"}, "test rows"), ({"n_test": 99}, "99 test rows")])
def test_author_weights_on_other_rows_are_reduced(changes, said):
    found = verdict([0.1], kind="author_weights", deterministic=True, full_protocol=False, **changes)
    assert found.name == "REDUCED"
    assert said in found.reason


def test_reduced_names_every_departure_once():
    changes = {"scale": "laptop", "data_origin": "substitute", "full_protocol": False}
    found = verdict([0.1, 0.1, 0.1], reductions=["substitute data (mp_flla)", "epochs 16 instead of 1000"], **changes)
    assert found.name == "REDUCED"
    assert found.reason == "substitute data (mp_flla); laptop scale; epochs 16 instead of 1000"
    assert found.ratio == pytest.approx(1.0)


def test_full_protocol_on_other_data_is_not_believed():
    assert verdict([0.1, 0.1, 0.1], data_origin="substitute", full_protocol=True).name == "REDUCED"


def test_not_better_than_a_baseline_fails_and_says_which():
    found = verdict([0.35], scale="laptop", full_protocol=False, baselines=BASELINES)
    assert found.name == "FAILED"
    assert found.reason == "not better than the random forest on composition: mae 0.35 against 0.3 eV/atom"
    higher = judge(
        claim(metric="auc", unit="1", direction="higher"), run([0.5], "auc", baselines={"mean": {"auc": 0.5}})
    )
    assert higher.name == "FAILED"
    assert "mean predictor" in higher.reason


def test_baselines_are_not_asked_at_smoke_scale():
    assert verdict([0.9], scale="smoke", full_protocol=False, baselines=BASELINES).name == "REDUCED"


def test_crash_and_planted_fault_fail():
    assert judge(claim(), run([], status="failed", reason="out of memory")).reason == "out of memory"
    assert judge(claim(), run(), faults=["rows: 3 are missing"]).name == "FAILED"


def test_a_share_of_one_class_is_not_held_against_predicting_that_class_everywhere():
    seed = {"seed": 0, "status": "ok", "metrics": {"specificity": 0.94, "auc": 0.96}}
    baselines = {"mean": {"specificity": 1.0, "auc": 0.5}, "random_forest": {"specificity": 0.9, "auc": 0.91}}
    fields = {"scale": "laptop", "primary_metric": "auc", "task": "classification", "unit": "1", "full_protocol": False}
    claimed = claim(metric="specificity", unit="%", value=90.6, digits=1, direction="higher")
    assert judge(claimed, run(seeds=[seed], baselines=baselines, **fields)).name == "REDUCED"
    baselines["random_forest"]["auc"] = 0.97
    found = judge(claimed, run(seeds=[seed], baselines=baselines, **fields))
    assert found.name == "FAILED" and "auc 0.96 against 0.97" in found.reason


def test_not_attempted_carries_its_reason():
    assert judge(claim(), None, absent="needs a GPU").reason == "needs a GPU"
    missing = judge(claim(metric="validation_mae"), run())
    assert missing.name == "NOT ATTEMPTED"
    assert "validation_mae" in missing.reason


# --------------------------------------------------------- seeds that fail


def test_diverged_seeds_are_counted_first():
    found = verdict([0.099, None, 0.100, 0.101, 0.100])
    assert found.name == "REPRODUCED"
    assert found.n_seeds == 4
    assert found.reason.startswith("1 of 5 seeds without a number: seed 1 diverged (loss is NaN at epoch 3)")


def test_half_the_seeds_diverged_is_a_failure():
    assert verdict([0.1, None]).name == "FAILED"
    assert verdict([0.1, None, None]).name == "FAILED"


@pytest.mark.parametrize("nothing", [math.nan, math.inf])
def test_a_metric_that_is_no_number_is_a_lost_seed(nothing):
    found = verdict([0.1, 0.1, 0.1, nothing])
    assert found.n_seeds == 3
    assert "seed 3: mae is not a number" in found.reason
    assert verdict([nothing]).name == "FAILED"


# ------------------------------------------------------------------ units


def test_units_are_converted_to_the_claims():
    found = judge(claim(value=100, digits=0, unit="meV/atom"), run([0.099, 0.100, 0.101]), FIVE)
    assert (found.name, found.unit, found.ours) == ("REPRODUCED", "meV/atom", pytest.approx(100))


def test_a_mean_squared_error_converts_by_the_square():
    squared = claim(metric="mse", unit="meV/atom^2", value=10_000, digits=0)
    assert judge(squared, run([0.01], "mse")).ours == pytest.approx(10_000)


def test_percent_and_fraction():
    share = claim(metric="accuracy", unit="%", value=95.0, digits=1, direction="higher")
    assert judge(share, run([0.95], "accuracy", unit="eV")).ours == pytest.approx(95)


def test_units_of_another_family_fail():
    found = judge(claim(unit="eV"), run([0.1]))
    assert found.name == "FAILED"
    assert found.reason.startswith("unit: Cannot convert eV/atom to eV")


def test_baselines_are_converted_too():
    found = judge(claim(value=100, unit="meV/atom"), run([0.2], baselines=BASELINES), FIVE)
    assert found.baselines == {"mean": pytest.approx(800), "random_forest": pytest.approx(300)}


# -------------------------------------------------- claims of other kinds


def test_a_printed_bound_is_open_on_one_side():
    bound = claim(metric="auc", unit="1", value=0.9, digits=1, direction="higher", qualifier=">")
    assert judge(bound, run([0.97, 0.971, 0.972], "auc"), FIVE).name == "REPRODUCED"
    assert judge(bound, run([0.5, 0.501, 0.502], "auc"), FIVE).name == "WORSE"


def test_words_instead_of_a_number():
    words = claim(value=None)
    assert judge(words, run()).name == "INCONCLUSIVE"
    assert judge(words, run(scale="laptop", full_protocol=False)).name == "REDUCED"
    alone = judge(None, run())
    assert (alone.name, alone.reason, alone.ratio) == ("REDUCED", "no reported number to compare with", None)


@pytest.mark.parametrize(
    ("changes", "counted"), [({}, True), ({"seen": "recalled"}, False), ({"role": "baseline"}, False)]
)
def test_only_own_claims_read_verbatim_count(changes, counted):
    assert judge(claim(**changes), run()).counted is counted
    assert judge(claim(**changes), None).counted is counted


# ----------------------------------------------------------------- margins


def test_margins_come_with_a_reason():
    assert verdict([0.1] * 3).eps_reason == "made up: 5 %"
    eps, reason = default_margin(claim(), run())
    assert eps == 0.077
    assert "formation energy" in reason
    assert default_margin(claim(), run(target="fermi_energy"))[1].startswith("no spread known")


def test_margin_of_a_score_is_its_sampling_error():
    score = claim(metric="auc", unit="1", value=0.95, n_test=1000)
    eps, reason = default_margin(score, run([0.95], "auc", n_test=1000))
    assert eps == pytest.approx(1.96 * math.sqrt(2 * 0.95 * 0.05 / 1000) / 0.95)
    assert "1000" in reason
    assert default_margin(score, run([0.95], "auc", n_test=10))[0] == 0.077  # ten rows would allow anything


def test_order_of_the_rules():
    """A case that every later rule would also take goes to the earlier one."""
    broken = {"scale": "laptop", "full_protocol": False, "baselines": {"mean": {"mae": 0.01}}}
    assert verdict([0.1], status="failed", reason="crash", **broken).reason == "crash"
    assert "mean predictor" in verdict([0.1], **broken).reason  # before REDUCED and INDICATIVE
    assert verdict([0.1], scale="laptop", full_protocol=False).name == "REDUCED"  # before INDICATIVE
