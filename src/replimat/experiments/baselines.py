"""The two baselines a model must beat: the mean of the training targets, and a random forest that sees composition
only.
"""

import numpy as np

from replimat.evaluation.classification import classification
from replimat.evaluation.regression import regression

TREES = 100
SEED = 0


def baselines(composition: np.ndarray, target: np.ndarray, train: np.ndarray, test: np.ndarray) -> dict[str, dict]:
    """Metrics on the test rows of both baselines.

    composition: features [n, F]; target [n] (classes as 0 and 1); train, test: row numbers. The mean predictor of a
    class is its frequency, the same for every row, so its AUC is one half.
    """
    two_classes = set(np.unique(target[train])) <= {0.0, 1.0}
    score = classification if two_classes else regression
    forest = _forest(two_classes).fit(composition[train], target[train])
    predicted = forest.predict_proba(composition[test])[:, -1] if two_classes else forest.predict(composition[test])
    mean = np.full(len(test), target[train].mean())
    return {"mean": score(target[test], mean), "random_forest": score(target[test], predicted)}


def _forest(two_classes: bool):
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    settings = {"n_estimators": TREES, "max_features": 1 / 3, "random_state": SEED, "n_jobs": 1}
    if two_classes:
        return RandomForestClassifier(**settings)
    return RandomForestRegressor(**settings)
