"""Corriero et al. 2023 (CrystalMELA): the crystal system from a powder pattern, by trees and by a network.

Simulated patterns of minerals in tenfold cross-validation as in the paper, with folds of structures and with folds of
minerals: the same mineral is often in the database many times, and the difference is what that gives away. A second
kind of experiment learns from patterns simulated with noise, background, texture and shifts, and tests on measured
ones.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from replimat.cards import ExperimentCard, ScaleSettings
from replimat.datasets.patterns import SYSTEMS, load_patterns
from replimat.experiments.base import Learned, Predicted, Selection, Target
from replimat.experiments.bench import Bench
from replimat.representations.powder import PowderReflections
from replimat.representations.powder_pattern import ConstantWavelength, minimum_to_maximum
from replimat.representations.simulation import Conditions, Powders, simulate, simulate_all
from replimat.training.patterns import FixedPatterns, FromPowders, PowderRows
from replimat.training.settings import Training

WAVELENGTH = 1.5418  # angstrom, copper K alpha
START, STOP = 5.0, 90.0  # two theta, degree
SIMULATED, MEASURED = "crystal_system", "measured_crystal_system"
MEASURED_FROM = "rruff_patterns"
STRAIN = (-0.02, 0.02)
WIDTH = (0.01, 0.01)  # degree^2: a full width of 0.1 degree
IDEAL, STRAINED = Conditions(w=WIDTH), Conditions(w=WIDTH, strain=STRAIN)
REALISTIC = Conditions(
    strain=STRAIN,
    w=(0.001, 0.02),
    y=(0.0, 0.06),
    march=(0.4, 1.2),
    shift=(-0.05, 0.05),
    background=((0.0, 0.03),),
    hump=(0.0, 0.03),
    noise=(0.0, 0.01),
)
FAINTEST, FAINTEST_MEASURED = 0.01, 0.03  # of the highest point; bumps of a measured background reach 0.02
TEST, LEARNED = 0, 1  # seeds of the simulations; of further copies of the learned ones LEARNED + 1, ...
BIN = 0.2  # degree, of the patterns that the nearest neighbours are found in
NEIGHBOURS = 5


@dataclass(frozen=True)
class Diffraction:
    """How powders are measured. shown: conditions of all patterns, but for those of the steps of a network: varied;
    faintest: line that trees are shown, as a share of the highest point.
    """

    instrument: ConstantWavelength
    shown: Conditions
    varied: Conditions
    faintest: float

    def lines(self, pattern: Tensor) -> np.ndarray:
        """What trees see of patterns from 0 to 1 [n, F]."""
        from replimat.models.crystalmela import line_features

        return line_features(pattern.numpy(), self.instrument, self.faintest)

    def patterns(self, powders: Powders, rows: np.ndarray, seed: int) -> Tensor:
        """One pattern of each crystal, from 0 to 1 [n, P]; the same for the same rows and seed."""
        return minimum_to_maximum(simulate_all(powders, rows, self.instrument, self.shown, seed))

    def measure(self, powders: Powders, rows: Tensor, generator: torch.Generator | None) -> Tensor:
        """Patterns [B, P] for a network: varied in training, which has no generator of its own."""
        conditions = self.varied if generator is None else self.shown
        return simulate(powders, rows, self.instrument, conditions, generator)


class Shown:
    """Patterns of all n crystals to learn from, each set made once, however many models learn from it."""

    def __init__(self, powders: Powders, diffraction: Diffraction):
        self.powders, self.diffraction = powders, diffraction
        self.patterns, self.lines = cache(self._patterns), cache(self._lines)

    def _patterns(self, seed: int) -> Tensor:
        """One of each crystal, from 0 to 1 [n, P]."""
        return self.diffraction.patterns(self.powders, np.arange(len(self.powders)), seed)

    def _lines(self, seed: int) -> np.ndarray:
        """What trees see of these patterns [n, F]."""
        return self.diffraction.lines(self.patterns(seed))


def build(card: ExperimentCard, settings: ScaleSettings, scale: str) -> Learned:
    measured = card.target == MEASURED
    instrument = ConstantWavelength(WAVELENGTH, START, STOP, int(settings.model["points"]))
    nearest, farthest = instrument.d_range  # a little more: strain and shift move peaks onto the axis
    how = (REALISTIC, REALISTIC, FAINTEST_MEASURED) if measured else (IDEAL, STRAINED, FAINTEST)
    names = (MEASURED, SIMULATED) if measured else (SIMULATED,)
    return Learned(
        data=selection(card, settings),
        representation=PowderReflections(d_min=0.95 * nearest, d_max=1.05 * farthest, equivalents=measured),
        targets={name: Target("multiclass", classes=SYSTEMS) for name in names},
        learn=partial(learn, diffraction=Diffraction(instrument, *how), settings=settings),
        extras=measured_patterns if measured else None,
        extras_from=MEASURED_FROM if measured else None,
    )


def selection(card: ExperimentCard, settings: ScaleSettings) -> Selection:
    """Rows of the card; with folds, the n_test rows (0: all) of a cross-validation, whatever n_train is."""
    folds, apart = int(settings.model.get("folds", 0)), bool(settings.model["apart"])
    sizes = (0, 0) if folds else (settings.n_train, settings.n_val)
    return Selection(
        card.dataset, (SIMULATED, "mineral"), *sizes, settings.n_test, kin="mineral", apart=apart, folds=folds
    )


def training(settings: ScaleSettings) -> Training:
    """Of the network: cross entropy with AdamW and one cycle of the learning rate; the last weights are kept."""
    recipe = {"epochs": settings.epochs, "batch_size": settings.batch_size, "lr": settings.lr}
    return Training(
        **recipe, loss="cross_entropy", optimiser="adamw", weight_decay=0.01, schedule="onecycle", keep="last"
    )


# ------------------------------------------------------------------ measured patterns


def measured_patterns(folder: Path) -> dict[str, np.ndarray]:
    """Measured patterns for the prepared file: ids [m], crystal system [m], intensity [m, P] and its axis [P]."""
    found = load_patterns(folder.name)
    return {
        "measured.id": found.ids.astype(np.int64),
        "measured.system": found.labels[SIMULATED].astype(np.int64),
        "measured.axis": found.axis[0],  # one for all
        "measured.intensity": np.stack(found.intensity).astype(np.float32),
    }


def resampled(axis: np.ndarray, intensity: np.ndarray, instrument: ConstantWavelength) -> Tensor:
    """Intensities [m, P] on the instrument's axis, from 0 to 1 [m, P']: means over its steps, as far as recorded."""
    from scipy.integrate import cumulative_trapezoid

    total = cumulative_trapezoid(intensity, axis, initial=0)  # [m, P]
    middles = instrument.axis(dtype=torch.float64).numpy()
    edges = np.clip([middles - instrument.step / 2, middles + instrument.step / 2], axis[0], axis[-1])  # [2, P']
    low, high = (np.stack([np.interp(edge, axis, one) for one in total]) for edge in edges)
    return minimum_to_maximum(torch.as_tensor((high - low) / (edges[1] - edges[0])).float())


# ------------------------------------------------------------------ learning


@dataclass(frozen=True)
class Round:
    """Rows that one model learns from and is tested on; name tells it from the others."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    name: str = ""


def rounds(bench: Bench) -> Iterator[Round]:
    """One for every fold, without validation rows; or the one of the parts."""
    if "fold" not in bench.arrays:
        yield Round(*(bench.rows(part) for part in ("train", "val", "test")))
        return
    fold = bench.arrays["fold"]
    for k in np.unique(fold):
        yield Round(np.flatnonzero(fold != k), np.empty(0, dtype=int), np.flatnonzero(fold == k), f"fold{k}")


def learn(bench: Bench, diffraction: Diffraction, settings: ScaleSettings) -> dict[str, Predicted]:
    learner, system = LEARNERS[settings.model["learner"]], bench.target(SIMULATED).astype(int)
    shown = Shown(bench.powders, diffraction)
    measured = None
    if "measured.id" in bench.arrays:
        names = ("measured.axis", "measured.intensity")
        measured = resampled(*(bench.arrays[name] for name in names), diffraction.instrument)
    said: dict[str, list[dict[str, np.ndarray]]] = {SIMULATED: [], MEASURED: []}
    tested = []
    for one in rounds(bench):
        trivial = baselines(shown.patterns(LEARNED)[one.train], system[one.train], diffraction)
        models = {"model": learner(bench, one, shown, settings), **trivial}
        unseen = diffraction.patterns(bench.powders, one.test, TEST)
        said[SIMULATED].append({who: chances(unseen) for who, chances in models.items()})
        if measured is not None:
            said[MEASURED].append({who: chances(measured) for who, chances in models.items()})
        tested.append(one.test)
    rows = np.concatenate(tested)
    found = {SIMULATED: predicted(bench.ids[rows], system[rows], said[SIMULATED])}
    if measured is not None:
        ids = np.array([f"rruff-{k}" for k in bench.arrays["measured.id"]])
        found[MEASURED] = predicted(ids, bench.arrays["measured.system"], said[MEASURED])
    return found


def predicted(ids: np.ndarray, true: np.ndarray, said: list[dict[str, np.ndarray]]) -> Predicted:
    """Of all rounds together: probabilities [m, K] by who says them, "model" and its baselines."""
    together = {who: np.concatenate([one[who] for one in said]) for who in said[0]}
    chances = together.pop("model")
    return Predicted(ids, true.astype(float), chances.argmax(axis=1).astype(float), chances, together)


Chances = Callable[[Tensor], np.ndarray]  # patterns from 0 to 1 [m, P] -> probability of every crystal system [m, K]


def trees(bench: Bench, one: Round, shown: Shown, settings: ScaleSettings, extremely: bool) -> Chances:
    """A forest that learns from the lines of `copies` patterns of each crystal."""
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

    copies = range(LEARNED, LEARNED + int(settings.model["copies"]))
    lines = np.concatenate([shown.lines(copy)[one.train] for copy in copies])
    system = np.tile(bench.target(SIMULATED)[one.train].astype(int), len(copies))
    kind = ExtraTreesClassifier if extremely else RandomForestClassifier
    forest = kind(int(settings.model["trees"]), random_state=bench.seed, n_jobs=1).fit(lines, system)
    return lambda pattern: every_system(forest.predict_proba(shown.diffraction.lines(pattern)), forest.classes_)


def network(bench: Bench, one: Round, shown: Shown, settings: ScaleSettings) -> Chances:
    """A network that sees every crystal under other conditions in each step."""
    from replimat.models.crystalmela import PatternCNN

    torch.manual_seed(bench.seed)  # the first weights do not depend on which folds were trained before a kill
    diffraction = shown.diffraction
    model = PatternCNN(diffraction.instrument.points, len(SYSTEMS))
    behind = FromPowders(model, partial(diffraction.measure, bench.powders))
    data = PowderRows(torch.as_tensor(bench.target(SIMULATED)).long())
    bench.train(behind, data, training(settings), train_rows=one.train, val_rows=one.val, name=one.name)

    def chances(pattern: Tensor) -> np.ndarray:
        unseen = FixedPatterns(pattern, torch.zeros(len(pattern)))
        logits = bench.predict(model, unseen, np.arange(len(pattern)), batch_size=256)
        return torch.softmax(torch.as_tensor(logits), dim=1).numpy()

    return chances


LEARNERS = {
    "random_forest": partial(trees, extremely=False),
    "extra_trees": partial(trees, extremely=True),
    "cnn": network,
}


def every_system(chances: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Probability of all crystal systems [m, K] from that of those `present` [k] in training [m, k]."""
    full = np.zeros((len(chances), len(SYSTEMS)))
    full[:, present] = chances
    return full


def baselines(pattern: Tensor, system: np.ndarray, diffraction: Diffraction) -> dict[str, Chances]:
    """How frequent each system is; and the nearest of the learned patterns [n, P], binned."""
    from sklearn.neighbors import KNeighborsClassifier

    shares = np.bincount(system, minlength=len(SYSTEMS)) / len(system)
    points = round(BIN / diffraction.instrument.step)
    binned = lambda p: torch.nn.functional.max_pool1d(p[:, None], points).squeeze(1).sqrt().numpy()  # noqa: E731
    nearest = KNeighborsClassifier(NEIGHBOURS, weights="distance").fit(binned(pattern), system)
    return {
        "majority": lambda p: np.tile(shares, (len(p), 1)),
        "nearest_patterns": lambda p: every_system(nearest.predict_proba(binned(p)), nearest.classes_),
    }
