"""Mixtures of phases: the physics of a mixture, the fit and the lines by hand, the learners, and a whole experiment."""

from types import SimpleNamespace

import numpy as np
import pytest

from replimat import cards
from replimat.errors import DataError
from replimat.experiments import multiphase as experiment
from replimat.experiments.catalogue import plan_paper
from replimat.experiments.multiphase import (
    INSTRUMENT,
    LEAST,
    MINERALS,
    SIMULATED_FROM,
    Mixtures,
    Work,
    added,
    composed,
    concretions,
    learn,
    mixed,
    pure_patterns,
)
from replimat.models.multiphase import (
    FullPatternFit,
    PurePatterns,
    closed,
    features,
    fractions_of,
    identify,
    learner,
    presence_of,
    quantify,
    strongest_lines,
    sureness,
)
from replimat.representations.simulation import Conditions, Powders

LEARNERS = ("extra_trees", "nearest_neighbours", "pls", "support_vectors")
AXIS = np.arange(600.0)


def peaks(*places: float, width: float = 4.0) -> np.ndarray:
    return sum(np.exp(-0.5 * ((AXIS - place) / width) ** 2) for place in places)


# Two patterns of phase 0, one of phase 1; phase 1 scatters three times as much as the first of phase 0.
PURE = PurePatterns(np.stack([peaks(150, 310), 2 * peaks(155, 420), 3 * peaks(240, 500)]), np.array([0, 0, 1]))
LEVEL = np.ones((1, 600))


@pytest.fixture
def bench():
    """Crystals with reflections made up, under the ids of the minerals; every density is 2, that of quartz 4 g/cm3."""
    ids = list(dict.fromkeys(name for pair in MINERALS.values() for name in pair))
    phase = np.array([[name in pair for pair in MINERALS.values()].index(True) for name in ids])
    rng = np.random.default_rng(3)
    sizes = np.full(len(ids), 5)
    d = np.sort(rng.uniform(1.6, 9.0, (len(MINERALS), 5)), axis=1)[phase, ::-1]
    density = np.full(len(ids), 2.0)
    density[[ids.index(name) for name in MINERALS["quartz"]]] = 4.0
    arrays = {
        "d": d.ravel().astype(np.float32),
        "intensity": rng.uniform(1, 3, (len(MINERALS), 5))[phase].ravel().astype(np.float32),
        "reflection_offsets": np.concatenate([[0], sizes.cumsum()]),
        "density": density,
        "hkl": rng.integers(1, 4, (d.size, 3)).astype(np.int16),
        "cells": np.tile(9.0 * np.eye(3), (len(ids), 1, 1)),
    }
    kept = {}
    keep = lambda name, **arrays: kept.update({name: arrays})  # noqa: E731
    return SimpleNamespace(
        arrays=arrays, ids=np.array(ids), powders=Powders(arrays), device="cpu", seed=0, keep=keep, kept=kept
    )


# ------------------------------------------------------------------- the physics of a mixture


def test_a_mixture_is_the_sum_of_its_pure_patterns_by_weight(bench):
    found = mixed(bench, 6, SIMULATED_FROM, Conditions(w=(0.01, 0.01)), seed=1)  # Gaussian: no tails are cut off
    expected = found.fractions @ pure_patterns(bench, 0.01, 0.0).pattern
    assert found.pattern == pytest.approx(expected / expected.max(axis=1, keepdims=True), abs=2e-5)


def test_the_same_weight_of_a_denser_phase_shows_less(bench):
    before = pure_patterns(bench, 0.01, 0.06).pattern
    bench.arrays["density"] = bench.arrays["density"] * 2
    assert pure_patterns(bench, 0.01, 0.06).pattern == pytest.approx(before / 2, rel=1e-5)


def test_mixtures_are_the_same_again_and_differ_between_seeds(bench):
    one, again, other = (mixed(bench, 70, 1, experiment.LABORATORY, seed) for seed in (5, 5, 6))
    assert np.array_equal(one.pattern, again.pattern) and np.array_equal(one.fractions, again.fractions)
    assert not np.array_equal(one.fractions, other.fractions)
    assert one.pattern.shape == (70, INSTRUMENT.points)
    assert mixed(bench, 0, 1, experiment.LABORATORY, 5).pattern.shape == (0, INSTRUMENT.points)


def test_composed_fractions_are_weight_per_cent():
    found = composed(400, 8, 4, np.random.default_rng(0))
    assert found.sum(axis=1) == pytest.approx(100)
    assert found[found > 0].min() >= LEAST
    counts = (found > 0).sum(axis=1)
    assert set(counts) == {1, 2, 3, 4} and np.bincount(counts)[1:] == pytest.approx([100] * 4, abs=30)
    assert found.mean(axis=0) == pytest.approx([12.5] * 8, abs=5)


def test_added_patterns_hold_the_standard_and_have_counting_noise():
    pure = PurePatterns(100 + 1000 * PURE.pattern, PURE.phase)
    found = added(pure, 50, np.random.default_rng(0))
    low, high = experiment.STANDARD
    assert found.fractions.sum(axis=1) == pytest.approx(100)
    assert ((found.fractions[:, 1] >= low) & (found.fractions[:, 1] <= high)).all()
    assert found.pattern.max(axis=1) == pytest.approx(1) and (found.pattern >= 0).all()
    assert len(np.unique(np.diff(found.pattern[0]))) > 100  # not smooth


# ------------------------------------------------------------------- without learning, by hand


@pytest.mark.parametrize("counted", [False, True])
def test_the_fit_finds_weights_shift_and_background(counted):
    true = np.array([[30.0, 70.0], [100.0, 0.0]])
    shift = [4, -3]
    pattern = np.stack(
        [
            np.roll(10 * PURE.pattern[0] + 20 * PURE.pattern[1] + 70 * PURE.pattern[2] + 5, shift[0]),
            np.roll(100 * PURE.pattern[1] + 5, shift[1]),
        ]
    )
    fit = FullPatternFit([PURE], LEVEL, reach=6, counted=counted)
    assert fit.fractions(7 * pattern) == pytest.approx(true, abs=1e-6)  # only shares matter
    aligned = fit.aligned(pattern)
    assert aligned[1, 10:-10] == pytest.approx((100 * PURE.pattern[1] + 5)[10:-10])


def test_without_reach_a_shifted_mixture_fits_badly():
    pattern = np.roll(30 * PURE.pattern[0] + 70 * PURE.pattern[2], 6)[None]
    error = [np.abs(FullPatternFit([PURE], LEVEL, r).fractions(pattern) - [[30, 70]]).max() for r in (0, 6)]
    assert error[0] > 1 and error[1] < 1e-6


def test_the_fit_takes_the_set_with_the_right_widths():
    broad = PurePatterns(np.stack([peaks(150, 310, width=9), 3 * peaks(240, 500, width=9)]), np.array([0, 1]))
    narrow = PurePatterns(np.stack([peaks(150, 310), 3 * peaks(240, 500)]), np.array([0, 1]))
    pattern = np.stack([np.array([40, 60]) @ broad.pattern, np.array([40, 60]) @ narrow.pattern])
    assert FullPatternFit([narrow, broad], LEVEL, 2).fractions(pattern) == pytest.approx(np.array([[40, 60]] * 2))


def test_strongest_lines_by_hand():
    pure = PurePatterns(np.stack([peaks(150), 3 * peaks(450)]), np.array([0, 1]))
    mixture = 25 * pure.pattern[0] + 75 * pure.pattern[1] + 40
    assert strongest_lines(pure, mixture[None]) == pytest.approx(np.array([[25, 75]]))
    assert strongest_lines(pure, 10 * pure.pattern[:1]) == pytest.approx(np.array([[100, 0]]), abs=1e-6)


def test_closed_and_sureness_by_hand():
    assert closed(np.array([[1.0, 3.0], [-1.0, 2.0], [0.0, -1.0]])).tolist() == [[25, 75], [0, 100], [50, 50]]
    assert sureness(np.array([0.0, 2.0, 6.0]), 2.0).tolist() == [0, 0.5, 0.75]


def test_features_by_hand():
    pattern = np.array([[1.0, 3.0, 6.0, 6.0, 9.0]])
    assert features(pattern, 2) == pytest.approx(np.array([[0.0, 2.0]]))  # means 2 and 6, the lowest is 2


# ------------------------------------------------------------------- learners


def easy(n: int, seed: int) -> Mixtures:
    """Mixtures of up to three phases without overlap."""
    rng = np.random.default_rng(seed)
    fractions = composed(n, 3, 3, rng)
    curves = np.stack([peaks(100, 180), peaks(300, 350), peaks(480, 550)])
    return Mixtures(fractions @ curves / 100 + 0.003 * rng.standard_normal((n, 600)), fractions)


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_learns_both_tasks(name):
    train, val, test = easy(150, 0), easy(30, 1), easy(60, 2)
    x, v, t = (features(part.pattern, 5) for part in (train, val, test))
    made = learner(name, seed=0)
    found = fractions_of(quantify(made, (x, train.fractions), (v, val.fractions)), t)
    guess = np.abs(train.fractions.mean(axis=0) - test.fractions).mean()
    assert found.sum(axis=1) == pytest.approx(100) and np.abs(found - test.fractions).mean() < 0.35 * guess
    sure = presence_of(identify(made, (x, train.presence), (v, val.presence)), t)
    assert sure.min() >= 0 and sure.max() <= 1
    assert ((sure > 0.5) == test.presence).mean() > 0.9


def test_settings_are_those_that_so_few_rows_allow():
    assert [one["n_components"] for one in learner("pls", 0).settings(10)] == [4, 8]
    assert [one["n_neighbors"] for one in learner("nearest_neighbours", 0).settings(4)] == [1, 2, 4]
    with pytest.raises(ValueError, match="No learner 'oracle'"):
        learner("oracle", 0)


@pytest.mark.parametrize("name", ["extra_trees", "nearest_neighbours"])
def test_presence_of_a_phase_that_was_always_or_never_there(name):
    x = np.random.default_rng(0).random((12, 4))
    y = np.stack([np.ones(12), np.zeros(12), np.arange(12) % 2], axis=1).astype(int)
    sure = presence_of(learner(name, 0).identifier.fit(x, y), x)
    assert sure[:, 0].tolist() == [1] * 12 and sure[:, 1].tolist() == [0] * 12


# ------------------------------------------------------------------- the experiment


@pytest.mark.parametrize("name", [*LEARNERS, "full_pattern", "strongest_lines"])
def test_the_experiment_beats_the_mean(bench, name):
    settings = SimpleNamespace(n_train=90, n_val=16, n_test=20, model={"laboratory": 40})
    work = concretions(bench, settings)
    assert [len(part.pattern) for part in work[1:4]] == [90, 16, 20]
    found = learn(bench, work, name)
    fraction, presence = found["fraction"], found["presence"]
    assert len(set(fraction.ids)) == 20 * len(MINERALS) and fraction.ids[1] == "mixture 1:newberyite"
    assert fraction.target.reshape(20, -1).sum(axis=1) == pytest.approx(100)
    assert fraction.prediction.reshape(20, -1).sum(axis=1) == pytest.approx(100)
    assert np.array_equal(presence.target, fraction.target > 0)
    for said, values in fraction.baselines.items():
        if name in ("pls", "support_vectors", "full_pattern"):
            assert np.abs(fraction.prediction - fraction.target).mean() < np.abs(values - fraction.target).mean(), said
    assert bench.kept["mixtures"]["found"].shape == (20, len(MINERALS))


def test_a_phase_that_is_always_there_is_not_asked_for(bench):
    pure = PurePatterns(np.stack([peaks(100), peaks(250), peaks(400)]), np.arange(3))
    train = added(pure, 30, np.random.default_rng(0))
    test = Mixtures(train.pattern[:4], train.fractions[:4])
    work = Work(("clay", "quartz", "corundum"), train, train, test, list("abcd"), FullPatternFit([pure], LEVEL, 3))
    for name in ("nearest_neighbours", "full_pattern"):
        found = learn(bench, work, name)
        assert len(found["fraction"].ids) == 12
        assert found["presence"].ids[:3].tolist() == ["a:clay", "a:quartz", "b:clay"]


def test_the_card_plans_every_experiment():
    planned = plan_paper("multiphase", "laptop", "paper")
    assert {one.experiment.data.dataset for one in planned} == {"amcsd"}
    embedded = {one.name for one in plan_paper("multiphase", "laptop")}
    assert {one.name for one in planned} - embedded == {one.name for one in planned if "rockjock" in one.name}
    assert len({one.prepared for one in planned}) == 2  # one file for all concretions, one with what was measured
    assert 1 <= len(plan_paper("multiphase", "smoke")) <= 2
    assert not cards.claims("multiphase")


def test_measured_arrays_need_the_axis(monkeypatch, tmp_path):
    axis = np.linspace(5, 65, 3001)
    mixtures = SimpleNamespace(axis=[axis + 1], intensity=[axis], labels={"weights": np.ones((1, 7))})
    references = SimpleNamespace(
        axis=axis,
        phases=np.array(["Corundum", "Talc", "Quartz"]),
        intensities=np.stack([axis, axis, 2 * axis]),
        rir=np.array([1.0, 9.0, 3.0]),
    )
    monkeypatch.setattr("replimat.datasets.patterns.load_patterns", lambda name: mixtures)
    monkeypatch.setattr("replimat.datasets.rockjock.read_references", lambda folder, card: references)
    with pytest.raises(DataError, match="an axis is not 3001 points"):
        experiment.rockjock_arrays(tmp_path)
    mixtures.axis = [axis]
    found = experiment.rockjock_arrays(tmp_path)
    assert found["pure.phase"].tolist() == [6, 0]  # talc is in no mixture
    assert found["pure.pattern"].max(axis=1) == pytest.approx([1, 3])  # the reference intensity ratio


def test_the_figure_is_drawn_for_few_and_many_mixtures(tmp_path):
    from replimat.reporting.mixtures import draw

    run = SimpleNamespace(paper="multiphase", label="one")
    for n in (5, 40):
        true = composed(n, 3, 3, np.random.default_rng(n))
        arrays = {"phases": np.array(["a", "b", "c"]), "samples": np.arange(n), "true": true, "found": true[::-1]}
        draw(tmp_path / f"{n}.png", run, arrays)
        assert (tmp_path / f"{n}.png").stat().st_size > 5000
