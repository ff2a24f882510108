"""Distributions of properties and success rates: by hand, planted errors, CDVAE's own code."""

import numpy as np
import pytest

from cdvae_author import author, crystals, joined, one, rock_salt
from replimat.datasets.base import Structures
from replimat.errors import DataError
from replimat.evaluation.distributions import (
    PRINTED_THRESHOLDS,
    density,
    emd,
    n_elements,
    overlap,
    pair_distances,
    success_rate,
    thresholds,
)


def test_density_of_rock_salt():
    assert density(rock_salt(edge=5.6402))[0] == pytest.approx(2.163, abs=0.003)  # g/cm^3, halite
    assert density(rock_salt(edge=2 * 5.6402))[0] == pytest.approx(2.163 / 8, abs=0.001)
    broken = joined(one("Na", [0, 0, 0], np.zeros((3, 3))), one("Na", [np.nan, 0, 0], np.eye(3)), rock_salt())
    assert np.isfinite(density(broken)).tolist() == [False, False, True]


def test_elements_are_counted_once():
    assert n_elements(
        joined(rock_salt(), one("O Ti O", np.zeros((3, 3)), np.eye(3)), rock_salt("Na " * 8))
    ).tolist() == [2, 2, 1]


def test_distance_of_distributions():
    assert emd([0, 1, 2], [5, 6, 7]) == pytest.approx(5)  # all move by 5
    assert emd([0.0, 1.0], [0.0, 0.0, 1.0, 1.0]) == 0  # sizes may differ
    a, b = np.random.default_rng(0).normal(size=(2, 50))
    assert emd(a, b) == emd(b, a) > 0
    assert emd([1, np.nan, 2, np.inf], [1, 2]) == 0
    assert np.isnan(emd([np.nan], [1]))


def test_overlap_of_histograms():
    a = np.random.default_rng(0).normal(size=500)
    assert overlap(a, a) == pytest.approx(1) and overlap(a, a + 100) == 0
    assert overlap([0, 0, 1, 1], [1, 1, 2, 2], bins=np.array([-0.5, 0.5, 1.5, 2.5])) == 0.5
    assert overlap([0, 0, 1, 1], [1, 1], bins=np.array([-0.5, 0.5, 1.5])) == 0.5  # of shares, not of counts
    assert overlap([0, 0, 9, 9], [0, 0], bins=np.array([-0.5, 0.5])) == 0.5  # half lies outside
    assert np.isnan(overlap([], [1.0]))


def test_pair_distances_of_a_molecule():
    water = (np.array([8, 1, 1]), np.array([[0, 0, 0], [0.96, 0, 0], [0, 0.96, 0]]), np.zeros((3, 3)))
    molecules = Structures.pack([water, (np.array([1]), np.zeros((1, 3)), np.zeros((3, 3)))], periodic=False)
    assert np.sort(pair_distances(molecules)) == pytest.approx([0.96, 0.96, 0.96 * 2**0.5])
    assert pair_distances(molecules, 1) == pytest.approx([0.96 * 2**0.5])
    assert pair_distances(molecules, 1, 8) == pytest.approx([0.96, 0.96]) == pair_distances(molecules, 8, 1)
    assert len(pair_distances(molecules, 6)) == 0


def test_success_is_of_the_best_valid_decode():
    values = np.array([[5.0, 1.0], [1.0, 5.0], [3.0, 3.0], [np.nan, 9.0]])
    valid = np.array([[True, True], [False, True], [True, True], [True, True]])
    assert success_rate(values, valid, 2.0) == 25.0  # the second's good decode is not valid
    assert success_rate(values, valid, 3.0) == 50.0  # reaching is enough
    assert success_rate(values, valid, 5.0, lower=False) == 75.0
    assert success_rate(values, np.zeros_like(valid), 9.0) == 0
    assert success_rate(values.T, valid.T, 2.0) == 50.0  # [decodes, starts] is another number
    with pytest.raises(DataError, match="starts, decodes"):
        success_rate(values, valid[:2], 1.0)
    with pytest.raises(DataError):
        success_rate(values[0], valid[0], 1.0)


def test_thresholds_are_percentiles_of_the_training_set():
    train = np.append(np.arange(101.0), np.nan)
    assert thresholds(train) == (5, 10, 15)
    assert thresholds(train, lower=False) == (95, 90, 85)
    assert all(list(values) == sorted(values) for values in PRINTED_THRESHOLDS.values())


def test_author_code_agrees():
    true, made, theirs = crystals("true"), crystals("made"), author()
    chosen = made.take(np.flatnonzero(theirs["valid"]))
    assert emd(density(chosen), density(true)) == pytest.approx(theirs["emd"][0], rel=1e-6)
    assert emd(n_elements(chosen), n_elements(true)) == pytest.approx(theirs["emd"][1])
    order = np.arange(48).reshape(4, 12).T  # theirs runs over the starts first
    values, valid = density(made)[order], theirs["valid"][order]
    rates = [success_rate(values, valid, threshold) for threshold in theirs["search_thresholds"]]
    assert np.array(rates) / 100 == pytest.approx(theirs["search_rates"])
