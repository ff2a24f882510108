"""The baselines a model must beat: the mean of the training targets, and a random forest that sees composition.

A molecule's total energy is a sum over its atoms to within an electronvolt or so, which no forest of averages can
reproduce: on raw totals it would be a straw man. So for molecules the forest learns what least-squares element
references leave over. Along a trajectory of one molecule the composition says nothing: there the second baseline is a
ridge regression on inverse distances. For frames of crystals it is the best pair potential.
"""

import numpy as np

from replimat.datasets.base import Structures, atoms_of
from replimat.evaluation.classification import classification
from replimat.evaluation.regression import regression
from replimat.training.scaling import fit_scaling
from replimat.training.settings import Scaling

TREES = 100
SEED = 0
PAIR_FUNCTIONS = 12  # Gaussians of the pair potential; with more its errors no longer fall
PAIR_REACH = (1.5, 5.5)  # angstrom: centres of the first and the last; the latter is the cutoff


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


def potential_baselines(
    structures: Structures, arrays: dict[str, np.ndarray], target: str, train: np.ndarray, test: np.ndarray
) -> dict[str, dict]:
    """Metrics of energies and forces on the test rows: {"energy": {...}, "forces": {...}}.

    arrays: of the prepared file, a CutoffGraph with target.<target> [n] and atoms.forces [N, 3].
    "mean": the mean training energy, and no force. "pair_ridge", where all structures are one molecule: energies
    linear in the inverse distances of all pairs, fitted by ridge regression, with its exact gradient as forces.
    "pair_potential", in crystals: see `_pair_potential`.
    """
    energy, forces = arrays[f"target.{target}"], arrays["atoms.forces"]
    still = forces[atoms_of(structures.offsets, test)].ravel()
    found = {
        "energy": {"mean": regression(energy[test], np.full(len(test), energy[train].mean()))},
        "forces": {"mean": regression(still, np.zeros(len(still)))},
    }
    if structures.periodic and target == "energy_per_atom":
        predicted, pull = _pair_potential(arrays, energy, forces, train, test)
        found["energy"]["pair_potential"] = regression(energy[test], predicted)
        found["forces"]["pair_potential"] = regression(still, pull.ravel())
    first = structures[0][0]
    if not structures.periodic and all(np.array_equal(structures[s][0], first) for s in range(len(structures))):
        positions = structures.positions.reshape(len(structures), len(first), 3)
        predicted, pull = _pair_ridge(positions[train], energy[train], positions[test])
        found["energy"]["pair_ridge"] = regression(energy[test], predicted)
        found["forces"]["pair_ridge"] = regression(still, pull.ravel())
    return found


def _pair_ridge(x: np.ndarray, energy: np.ndarray, x_test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energies [m] and forces [m, A, 3] of x_test [m, A, 3] from a ridge regression on inverse pair distances."""
    from sklearn.linear_model import RidgeCV

    i, j = np.triu_indices(x.shape[1], k=1)  # pairs [P]
    inverse = lambda at: 1 / np.linalg.norm(at[:, i] - at[:, j], axis=-1)  # noqa: E731  [n, P], 1/angstrom
    mean, std = inverse(x).mean(axis=0), inverse(x).std(axis=0)
    ridge = RidgeCV(alphas=np.logspace(-6, 3, 10)).fit((inverse(x) - mean) / std, energy)
    slope = ridge.coef_ / std  # dE/d(1/r) of each pair [P]
    pull = (slope * inverse(x_test) ** 3)[..., None] * (x_test[:, i] - x_test[:, j])  # force on i [m, P, 3]
    forces = np.zeros_like(x_test)
    np.add.at(forces, (slice(None), i), pull)
    np.add.at(forces, (slice(None), j), -pull)
    return ridge.predict((inverse(x_test) - mean) / std), forces


def _pair_potential(
    arrays: dict[str, np.ndarray], energy: np.ndarray, forces: np.ndarray, train: np.ndarray, test: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Energies per atom [m] and forces [M, 3] of the test rows from the pair potential best on the training rows.

    The energy of an atom is a constant and half a sum over its neighbours of PAIR_FUNCTIONS Gaussians of the distance
    that vanish smoothly at the cutoff. Energies and forces are fitted together by least squares, each in its spread.
    """
    designs = [_pair_design(arrays, row) for row in range(len(energy))]  # [1, K], [3 A, K] of every frame
    atoms = np.split(forces, arrays["offsets"][1:-1])
    weights = 1 / energy[train].std(), 1 / np.concatenate([atoms[row] for row in train]).std()
    matrix = np.concatenate([weight * designs[row][kind] for row in train for kind, weight in enumerate(weights)])
    right = np.concatenate(
        [part.ravel() for row in train for part in (weights[0] * energy[[row]], weights[1] * atoms[row])]
    )
    coefficients = np.linalg.lstsq(matrix, right, rcond=None)[0]
    pull = np.concatenate([designs[row][1] @ coefficients for row in test])
    return np.array([(designs[row][0] @ coefficients)[0] for row in test]), pull.reshape(-1, 3)


def _pair_design(arrays: dict[str, np.ndarray], row: int) -> tuple[np.ndarray, np.ndarray]:
    """What each coefficient adds to the energy per atom [1, K] and to the forces [3 A, K] of one frame."""
    edges = slice(*arrays["edge_offsets"][row : row + 2])
    x = arrays["positions"][slice(*arrays["offsets"][row : row + 2])]
    j, i = arrays["edge_index"][:, edges]
    vec = x[j] + arrays["shift"][edges] @ arrays["cells"][row] - x[i]  # [E, 3]
    r = np.linalg.norm(vec, axis=1)  # [E]
    cutoff = PAIR_REACH[1]
    centres = np.linspace(*PAIR_REACH, PAIR_FUNCTIONS)
    width = centres[1] - centres[0]
    inside = (r < cutoff)[:, None]
    gauss = np.exp(-0.5 * ((r[:, None] - centres) / width) ** 2)  # [E, K]
    end, slope = (1 - (r / cutoff) ** 2) ** 2, -4 * r / cutoff**2 * (1 - (r / cutoff) ** 2)
    value = gauss * end[:, None] * inside
    change = gauss * (slope[:, None] - end[:, None] * (r[:, None] - centres) / width**2) * inside  # dvalue/dr
    force = np.zeros((len(x), 3, PAIR_FUNCTIONS))
    np.add.at(force, i, (vec / r[:, None])[:, :, None] * change[:, None, :])
    energy = np.concatenate([[1.0], 0.5 * value.sum(axis=0) / len(x)])
    return energy[None], np.concatenate([np.zeros((len(x), 3, 1)), force], axis=2).reshape(3 * len(x), -1)
