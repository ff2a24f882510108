"""Metrics on cases done by hand, against scikit-learn, and with arguments the wrong way round."""

import numpy as np
import pytest
from sklearn import metrics as sk

from replimat.errors import DataError
from replimat.evaluation.classification import classification
from replimat.evaluation.regression import regression
from replimat.evaluation.within_threshold import within_threshold


def test_regression_by_hand():  # errors +1, -1, +2, 0; targets around their mean 2.5: 1.5, 0.5, 0.5, 1.5
    found = regression([1, 2, 3, 4], [2, 1, 5, 4])
    assert found["mae"] == 1.0
    assert found["mse"] == 1.5
    assert found["rmse"] == pytest.approx(1.5**0.5)
    assert found["mad"] == 1.0
    assert found["mad_mae"] == 1.0
    assert found["r2"] == pytest.approx(1 - 6 / 5)


def test_regression_against_scikit_learn():
    rng = np.random.default_rng(0)
    y, p = rng.normal(size=200), rng.normal(size=200)
    found = regression(y, p)
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(y, p))
    assert found["r2"] == pytest.approx(sk.r2_score(y, p))


def test_swapped_arguments_change_r2():
    y, p = np.array([0.0, 1, 2, 3]), np.array([0.0, 0.5, 1, 1.5])
    assert regression(y, p)["r2"] != pytest.approx(regression(p, y)["r2"])


def test_a_missing_prediction_is_counted_not_hidden():
    found = regression([1.0, 2.0, 3.0], [1.0, np.nan, 3.5])
    assert (found["evaluated"], found["failed"]) == (2, 1)


def test_constant_target_has_no_r2():
    assert "r2" not in regression([1.0, 1.0], [1.0, 2.0])


@pytest.mark.parametrize(("target", "prediction"), [([], []), ([np.nan], [1.0]), ([1.0, 2.0], [1.0])])
def test_nothing_to_score_is_an_error(target, prediction):
    with pytest.raises(DataError):
        regression(target, prediction)


def test_classification_by_hand():  # of the four pairs of one positive and one negative, three are in order
    found = classification([0, 1, 0, 1], [0.1, 0.3, 0.4, 0.9])
    assert found["auc"] == 0.75
    assert found["accuracy"] == 0.75
    assert found["precision"] == 1.0
    assert found["recall"] == 0.5
    assert found["specificity"] == pytest.approx(2 * found["balanced_accuracy"] - 0.5)
    assert found["balanced_accuracy"] == 0.75


def test_classification_against_scikit_learn():
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 300)
    p = np.round(rng.random(300), 2)  # rounded: ties must count half
    found = classification(y, p)
    assert found["auc"] == pytest.approx(sk.roc_auc_score(y, p), abs=1e-6)
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(y, p > 0.5), abs=1e-6)
    assert found["f1"] == pytest.approx(sk.f1_score(y, p > 0.5), abs=1e-6)


@pytest.mark.parametrize("target", [[1, 1, 1], [0, 1, 2]])
def test_classes_must_be_two(target):
    with pytest.raises(DataError, match="Classes must be 0 and 1"):
        classification(target, [0.1, 0.5, 0.9])


def test_within_threshold_by_hand():  # errors 0.01, 0.02 (not below), 0.03, and one failed
    found = within_threshold([0, 0, 0, 0], [0.01, 0.02, -0.03, np.nan], 0.02)
    assert found["ewt_0.02"] == 0.25
    assert found["failed"] == 1
