"""Conventional learners that name the phases of a mixture and estimate their weights from its powder pattern, after
Greasley and Hosein (J. Mater. Sci. 58 (2023), arXiv:2211.08591), and two ways without learning to hold them against.

The paper's learners, features and settings were not found. These four are of its kind, supervised and not deep, all
scikit-learn's; each reads the square root of the binned pattern above its background, which tames strong peaks and
evens out counting noise, and each has two forms: one says which phases are there, one how much of each there is.

The full-pattern fit sums the patterns S of pure phases (D. K. Smith et al., Powder Diffr. 2, 73 (1987)):

    y(x + shift) = sum_r c_r S_r(x) + sum_b a_b B_b(x),   c_r, a_b >= 0 by least squares
    weight of a phase = sum of c_r over its patterns r, all S being of one weight

with the shift, and of several sets of S the one, that fit best. The other way is the height of each phase's strongest
line (F. H. Chung, J. Appl. Cryst. 7, 519 (1974)).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import minimum_filter1d
from scipy.optimize import nnls
from sklearn.base import BaseEstimator, clone
from sklearn.cross_decomposition import PLSRegression
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.model_selection import ParameterGrid
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.svm import SVC, SVR

TREES = 100
NEAR = 30  # bins to either side of which the lowest is the background
MARGIN = 0.01  # of support vector regression: an error below 1 weight % costs nothing
LINE = 10  # points to either side of a line in which its highest one is looked for
AROUND = 75  # points to either side of a line of which the lowest is its background

Labelled = tuple[np.ndarray, np.ndarray]  # features [n, F], and what they are of [n, K]


@dataclass(frozen=True)
class Learner:
    """Both forms of a learner, and the values of its settings that are tried."""

    identifier: BaseEstimator
    quantifier: BaseEstimator
    grid: dict[str, list]

    def settings(self, n: int) -> list[dict]:
        """All combinations of settings that n training rows allow."""
        most = {"n_neighbors": n, "n_components": n - 1}
        allowed = {name: [v for v in tried if v <= most.get(name, v)] for name, tried in self.grid.items()}
        return list(ParameterGrid(allowed))


def learner(name: str, seed: int) -> Learner:
    """extra_trees, nearest_neighbours, pls or support_vectors. Raises ValueError for another name."""
    if name == "extra_trees":
        trees = {"n_estimators": TREES, "random_state": seed}
        return Learner(ExtraTreesClassifier(**trees), ExtraTreesRegressor(**trees), {"max_features": [0.1, 0.3]})
    if name == "nearest_neighbours":
        near = {"weights": "distance", "metric": "cosine"}
        return Learner(KNeighborsClassifier(**near), KNeighborsRegressor(**near), {"n_neighbors": [1, 2, 4, 8, 16]})
    if name == "pls":
        linear = PLSRegression(scale=False)
        return Learner(linear, linear, {"n_components": [4, 8, 12, 16, 24, 40]})
    if name == "support_vectors":
        one_each = OneVsRestClassifier(SVC()), MultiOutputRegressor(SVR(epsilon=MARGIN))
        return Learner(*one_each, {"estimator__C": [0.1, 1.0, 10.0]})
    raise ValueError(f"No learner {name!r}; there are extra_trees, nearest_neighbours, pls and support_vectors.")


def features(pattern: np.ndarray, width: int) -> np.ndarray:
    """Square root of the mean of every `width` points of patterns [n, P] above their background, [n, P // width].

    The background of a bin is the lowest one within NEAR bins; points that fill no bin are left out.
    """
    n, points = pattern.shape
    bins = pattern[:, : points // width * width].reshape(n, points // width, width).mean(axis=2)
    return np.sqrt(bins - minimum_filter1d(bins, 2 * NEAR + 1, axis=1))


# ------------------------------------------------------------------ what learns


def identify(made: Learner, train: Labelled, val: Labelled) -> BaseEstimator:
    """Fitted to presence, 0 or 1; of the settings tried, those whose sureness on `val` has the smallest squared error
    (Brier's score, which minds the order of phases by sureness and the threshold of one half alike).
    """

    def score(fitted):
        return -((presence_of(fitted, val[0]) - val[1]) ** 2).mean()

    return _best(made.identifier, made.settings(len(train[0])), train, score)


def quantify(made: Learner, train: Labelled, val: Labelled) -> BaseEstimator:
    """Fitted to weight fractions, %; of the settings tried, those with the lowest MAE on `val`."""

    def score(fitted):
        return -np.abs(fractions_of(fitted, val[0]) - val[1]).mean()

    return _best(made.quantifier, made.settings(len(train[0])), (train[0], train[1] / 100), score)


def _best(form: BaseEstimator, settings: list[dict], train: Labelled, score: Callable) -> BaseEstimator:
    return max((clone(form).set_params(**one).fit(*train) for one in settings), key=score)


def presence_of(fitted: BaseEstimator, x: np.ndarray) -> np.ndarray:
    """How sure a fitted identifier is that a phase is there, 0 to 1 [n, K]; above one half it says so."""
    if isinstance(fitted, PLSRegression):
        return fitted.predict(x).clip(0, 1)
    if isinstance(fitted, OneVsRestClassifier):
        return 1 / (1 + np.exp(-fitted.decision_function(x)))  # support vectors give no probability
    found = zip(fitted.predict_proba(x), fitted.classes_, strict=True)
    return np.stack([p @ (classes == 1) for p, classes in found], axis=1)  # one class alone may have been there


def fractions_of(fitted: BaseEstimator, x: np.ndarray) -> np.ndarray:
    """Weight fractions by a fitted quantifier, % [n, K]."""
    return closed(fitted.predict(x))


def closed(amounts: np.ndarray) -> np.ndarray:
    """Amounts [n, K] as fractions, %: none below 0, all together 100; all alike where no amount is above 0."""
    amounts = amounts.clip(min=0)
    amounts[amounts.sum(axis=1) == 0] = 1
    return 100 * amounts / amounts.sum(axis=1, keepdims=True)


def sureness(found: np.ndarray, limit: float) -> np.ndarray:
    """Weight fractions (%) as sureness that a phase is there: 0 where there is none, one half at `limit`, towards 1."""
    return found / (found + limit)


# ------------------------------------------------------------- what needs no learning


@dataclass(frozen=True)
class PurePatterns:
    """Patterns of pure phases on one axis, all as one weight of the phase shows in a mixture.

    pattern [R, P]; phase: number of the phase that each is of [R].
    """

    pattern: np.ndarray
    phase: np.ndarray


class FullPatternFit:
    """Non-negative least squares of the patterns of pure phases and smooth curves of the background.

    sets: of pure patterns, such as one for each peak width, of which the best is taken for each mixture; background
    [B, P]; reach: largest shift, in points, to either side; counted: the noise is that of counts, so squares are
    divided by the pattern once the shift is known.
    """

    def __init__(self, sets: Sequence[PurePatterns], background: np.ndarray, reach: int, counted: bool = False):
        self.sets, self.background, self.reach, self.counted = sets, background, reach, counted

    def fractions(self, pattern: np.ndarray) -> np.ndarray:
        """Weight fractions of mixtures [n, P], % [n, K]."""
        amounts, _ = self._fit(pattern)
        return closed(amounts)

    def aligned(self, pattern: np.ndarray) -> np.ndarray:
        """Mixtures [n, P] moved by whole points to where the pure patterns fit them best; ends are repeated."""
        _, shift = self._fit(pattern)
        place = np.arange(pattern.shape[1]) + shift[:, None]
        return np.take_along_axis(pattern, place.clip(0, pattern.shape[1] - 1), axis=1)

    def _fit(self, pattern: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Amounts in any unit [n, K] and shifts in points [n], of the best set."""
        fits = [self._fit_with(one, pattern) for one in self.sets]
        amounts, shift, misfit = (np.stack(found) for found in zip(*fits, strict=True))
        best = np.argmin(misfit, axis=0), np.arange(len(pattern))
        return amounts[best], shift[best]

    def _fit_with(self, pure: PurePatterns, pattern: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Amounts [n, K], best shifts and sums of squared residuals [n]."""
        points = pattern.shape[1] - 2 * self.reach  # those that every shift has
        curves = np.concatenate([pure.pattern, self.background])[:, self.reach : self.reach + points].T  # [P', R + B]
        height = np.abs(curves).max(axis=0)
        curves = curves / height
        q, r = np.linalg.qr(curves)
        found = np.zeros((len(pattern), curves.shape[1]))
        shift, misfit = np.zeros(len(pattern), dtype=int), np.full(len(pattern), np.inf)
        for start in range(2 * self.reach + 1):
            seen = pattern[:, start : start + points].astype(np.float64)
            right = seen @ q  # |y - A c|^2 = |Q' y - R c|^2 + |y|^2 - |Q' y|^2
            outside = (seen**2).sum(axis=1) - (right**2).sum(axis=1)
            for row, target in enumerate(right):
                amounts, left = nnls(r, target)
                if left**2 + outside[row] < misfit[row]:
                    found[row], shift[row], misfit[row] = amounts, start - self.reach, left**2 + outside[row]
        if self.counted:
            for row, moved in enumerate(shift):
                seen = pattern[row, self.reach + moved :][:points].astype(np.float64)
                found[row] = _weighted(curves, seen, 1 / np.maximum(seen, seen[seen > 0].min()))
        amounts = (found / height)[:, : len(pure.phase)]
        return amounts @ np.eye(pure.phase.max() + 1)[pure.phase], shift, misfit


def _weighted(curves: np.ndarray, seen: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Non-negative amounts of the curves [P, R] with the least weighted squares [R]."""
    root = np.sqrt(weight)
    return nnls(curves * root[:, None], seen * root)[0]


def strongest_lines(pure: PurePatterns, pattern: np.ndarray) -> np.ndarray:
    """Weight fractions of mixtures [n, P], % [n, K]: height of each phase's strongest line over its surroundings, in
    the mixture over that in the pure phase.
    """
    amounts = []
    for phase in range(pure.phase.max() + 1):
        curve = pure.pattern[pure.phase == phase].mean(axis=0, keepdims=True)
        line = int(curve.argmax())
        amounts.append(_line(pattern, line) / _line(curve, line))
    return closed(np.stack(amounts, axis=1))


def _line(pattern: np.ndarray, at: int) -> np.ndarray:
    """Height of a line at point `at` [n]."""
    near, around = (pattern[:, max(0, at - reach) : at + reach + 1] for reach in (LINE, AROUND))
    return near.max(axis=1) - around.min(axis=1)
