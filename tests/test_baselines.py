"""The baselines a model must beat must be hard to beat."""

import numpy as np
import pytest

from replimat.experiments.baselines import baselines

TRAIN, TEST = np.arange(150), np.arange(150, 200)


@pytest.fixture
def molecules():
    """Atoms of each element [200, 119] of random C, H, O molecules, and composition features."""
    atoms = np.zeros((200, 119))
    atoms[:, [1, 6, 8]] = np.random.default_rng(0).integers(1, 9, (200, 3))
    return atoms, atoms[:, [1, 6, 8]]


def test_the_mean_predictor_by_hand(molecules):
    target = np.arange(200.0)
    found = baselines(molecules[1], target, TRAIN, TEST)["mean"]
    assert found["mae"] == pytest.approx(np.abs(target[TEST] - 74.5).mean())


def test_sums_over_atoms_are_no_straw_man(molecules):
    """Total energies of -13, -1030 and -2040 eV per atom: references take them all, raw totals leave tens of eV."""
    atoms, composition = molecules
    energies = atoms[:, [1, 6, 8]] @ np.array([-13.6, -1030.0, -2040.0])
    assert baselines(composition, energies, TRAIN, TEST, atoms)["random_forest"]["mae"] < 1e-6
    assert baselines(composition, energies, TRAIN, TEST)["random_forest"]["mae"] > 10


def test_classes_of_molecules_and_crystals(molecules):
    atoms, composition = molecules
    classes = (atoms[:, 8] > 4).astype(float)
    for counts in (None, atoms):
        found = baselines(composition, classes, TRAIN, TEST, counts)
        assert found["mean"]["auc"] == 0.5
        assert found["random_forest"]["auc"] > 0.95
