"""The two baselines a model must beat: the mean of the training targets, and a random forest that sees composition.

A molecule's total energy is a sum over its atoms to within an electronvolt or so, which no forest of averages can
reproduce: on raw totals it would be a straw man. So for molecules the forest learns what least-squares element
references leave over.
"""

import numpy as np

from replimat.evaluation.classification import classification
from replimat.evaluation.regression import regression
from replimat.training.scaling import fit_scaling
from replimat.training.settings import Scaling

TREES = 100
SEED = 0


def baselines(
    composition: np.ndarray,
    target: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    molecule_atoms: np.ndarray | None = None,
) -> dict[str, dict]:
    """Metrics on the test rows of both baselines.

    composition: features [n, F]; target [n] (classes as 0 and 1); train, test: row numbers; molecule_atoms: atoms of
    each element [n, 119] where the structures are molecules. The mean predictor of a class is its frequency, the same
    for every row, so its AUC is one half.
    """
    two_classes = set(np.unique(target[train])) <= {0.0, 1.0}
    score = classification if two_classes else regression
    references = np.zeros(len(target))
    if molecule_atoms is not None and not two_classes:
        fitted = fit_scaling(Scaling("elements"), target[train], molecule_atoms[train])
        references = fitted.reference(molecule_atoms)
    forest = _forest(two_classes).fit(composition[train], (target - references)[train])
    predicted = forest.predict_proba(composition[test])[:, -1] if two_classes else forest.predict(composition[test])
    predicted = predicted + references[test]
    mean = np.full(len(test), target[train].mean())
    return {"mean": score(target[test], mean), "random_forest": score(target[test], predicted)}


def _forest(two_classes: bool):
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    settings = {"n_estimators": TREES, "max_features": 1 / 3, "random_state": SEED, "n_jobs": 1}
    if two_classes:
        return RandomForestClassifier(**settings)
    return RandomForestRegressor(**settings)
