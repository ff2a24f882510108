"""Mixtures of phases: which are there, and how much of each (Greasley and Hosein 2023), by four conventional learners
and by two ways that learn nothing.

Concretions: minerals of the body's concretions and of what is taken for them, mixed and measured in a simulated
laboratory; few of its patterns to learn from, then many more simulated without knowing the laboratory. RockJock: eight
weighed mixtures, really measured; learned from mixtures made of the measured patterns of pure minerals.
"""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from replimat import cards
from replimat.cards import ExperimentCard, ScaleSettings
from replimat.errors import DataError
from replimat.experiments.base import Learned, Predicted, Selection, Target
from replimat.experiments.bench import Bench
from replimat.representations.powder import PowderReflections
from replimat.representations.powder_pattern import ConstantWavelength, PeakShape, draw
from replimat.representations.simulation import ROWS_AT_ONCE, Conditions, simulate

if TYPE_CHECKING:  # scikit-learn is loaded where something is learned, not where a run is planned
    from replimat.models.multiphase import FullPatternFit, PurePatterns

INSTRUMENT = ConstantWavelength(1.5418, 5.0, 65.0, 3001)  # copper K alpha on the axis of RockJock
MINERALS = {  # entry of the AMCSD that patterns are simulated from; entry of the laboratory's sample
    "hydroxylapatite": ("1257", "9353"),
    "newberyite": ("9313", "9313"),  # the only one
    "calcite": ("98", "12867"),
    "aragonite": ("233", "6301"),
    "vaterite": ("9279", "9279"),  # the others are rival models of its disorder
    "quartz": ("12866", "6362"),
    "gypsum": ("11093", "4651"),
    "halite": ("3397", "11356"),
}
SIMULATED_FROM, SAMPLE = 0, 1
MOST = 4  # phases in one mixture
LEAST = 4.0  # weight %: the smallest amount in a mixture, as in those of RockJock
LIMIT = LEAST / 2  # weight % above which a phase that was quantified counts as identified
BIN = 5  # points: 0.1 degree

LABORATORY = Conditions(
    strain=(-1e-3, 1e-3),
    w=(0.005, 0.03),
    x=(0.0, 0.1),
    y=(0.02, 0.15),
    b_iso=(0.3, 1.5),
    march=(0.65, 1.0),
    shift=(-0.04, 0.04),
    height=(-5e-4, 5e-4),
    background=((0.02, 0.12), (-0.04, 0.04)),
    hump=(0.0, 0.1),
    noise=(0.004, 0.015),
)
SIMULATED = Conditions(  # wider: what the laboratory does is not known
    strain=(-1.5e-3, 1.5e-3),
    w=(0.003, 0.04),
    x=(0.0, 0.15),
    y=(0.01, 0.2),
    b_iso=(0.0, 2.0),
    march=(0.6, 1.0),
    shift=(-0.08, 0.08),
    background=((0.0, 0.2), (-0.08, 0.08)),
    hump=(0.0, 0.2),
    noise=(0.0, 0.02),
)
WIDTHS = ((0.005, 0.03), (0.01, 0.06), (0.02, 0.1), (0.03, 0.15))  # W and Y of the pure patterns tried in a fit
REACH = 6  # points: a fit tries shifts of up to 0.12 degree
MEASURED_REACH = 15  # points, 0.3 degree: measured mixtures and measured pure patterns lie farther apart

STANDARD = (10.0, 30.0)  # weight % of corundum in the mixtures that are learned from
MOVED = 3  # points: the largest shift of a measured pure pattern in a mixture, 0.06 degree
SPREAD = 0.1  # of the logarithm of its intensity: texture, and the error of its reference intensity ratio
COUNTS = (1000, 7000)  # of the highest point, as in the measured mixtures

TEST_SEED = 1_000_000  # the same test mixtures for every seed of a learner


class Mixtures(NamedTuple):
    """Patterns [n, P], highest point about 1, and weight fractions in % [n, K]."""

    pattern: np.ndarray
    fractions: np.ndarray

    @property
    def presence(self) -> np.ndarray:
        """1 where a phase is there [n, K]."""
        return (self.fractions > 0).astype(int)

    def and_also(self, others: "Mixtures") -> "Mixtures":
        return Mixtures(*(np.concatenate(both) for both in zip(self, others, strict=True)))


class Work(NamedTuple):
    """Phases [K], mixtures to learn from and to be tested on, names of the latter, and the fit that learns nothing."""

    phases: tuple[str, ...]
    train: Mixtures
    val: Mixtures
    test: Mixtures
    samples: list[str]
    fit: "FullPatternFit"


def build(card: ExperimentCard, settings: ScaleSettings, scale: str) -> Learned:
    """settings.model: mixtures, "concretions" or "rockjock"; learner; laboratory: how many of the training mixtures of
    concretions are the laboratory's.
    """
    measured = settings.model["mixtures"] == "rockjock"
    make = rockjock if measured else concretions
    return Learned(
        data=Selection(card.dataset, ("mineral",), 0, 0, 0, ids=tuple(dict.fromkeys(sum(MINERALS.values(), ())))),
        representation=PowderReflections(d_min=1.42, equivalents=True),
        targets={"fraction": Target("regression", "%"), "presence": Target("classification")},
        learn=lambda bench: learn(bench, make(bench, settings), settings.model["learner"]),
        extras=rockjock_arrays if measured else None,
        extras_from="rockjock" if measured else None,
    )


def learn(bench: Bench, work: Work, name: str) -> dict[str, Predicted]:
    """Predict the fraction of every phase in every test mixture, and which phases are there; a phase that is in every
    known mixture, such as an internal standard, is not asked for.
    """
    known = work.train.and_also(work.val)
    asked = known.presence.min(axis=0) == 0
    fractions, presence = _predict(work, name, asked, bench.seed)
    baselines = {"mean": known.fractions.mean(axis=0), "prevalence": known.presence.mean(axis=0)}
    baselines = {said: np.broadcast_to(values, fractions.shape) for said, values in baselines.items()}
    of_fractions, of_presence = ({said: baselines[said]} for said in baselines)
    if len(work.train.pattern) and name != "nearest_neighbours":
        alike = _most_alike(work.train, work.test.pattern)
        of_fractions["nearest_pattern"], of_presence["nearest_pattern"] = alike.fractions, alike.presence
    phases, samples, true = np.array(work.phases), np.array(work.samples), work.test.fractions
    bench.keep("mixtures", phases=phases, samples=samples, true=true, found=fractions)
    ids = np.array([[f"{sample}:{phase}" for phase in phases] for sample in samples])
    return {
        "fraction": _flat(ids, true, fractions, of_fractions, slice(None)),
        "presence": _flat(ids, work.test.presence, presence, of_presence, asked),
    }


def _flat(
    ids: np.ndarray, true: np.ndarray, found: np.ndarray, baselines: dict, asked: slice | np.ndarray
) -> Predicted:
    """One row for each of the phases `asked` for of each mixture; every array is [n, K]."""
    ids, true, found = (values[:, asked].ravel() for values in (ids, true, found))
    baselines = {name: values[:, asked].astype(float).ravel() for name, values in baselines.items()}
    return Predicted(ids, true.astype(float), found, baselines=baselines)


def _predict(work: Work, name: str, asked: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Fractions in % and sureness of presence of the test mixtures [n, K], both; a phase not asked for is there."""
    from replimat.models import multiphase as model

    if name in ("full_pattern", "strongest_lines"):
        if name == "full_pattern":
            found = work.fit.fractions(work.test.pattern)
        else:
            found = model.strongest_lines(work.fit.sets[len(work.fit.sets) // 2], work.test.pattern)
        return found, model.sureness(found, LIMIT)
    made = model.learner(name, seed)
    train, val, test = (model.features(part.pattern, BIN) for part in (work.train, work.val, work.test))
    quantifier = model.quantify(made, (train, work.train.fractions), (val, work.val.fractions))
    identifier = model.identify(made, (train, work.train.presence[:, asked]), (val, work.val.presence[:, asked]))
    presence = np.ones(work.test.fractions.shape)
    presence[:, asked] = model.presence_of(identifier, test)
    return model.fractions_of(quantifier, test), presence


def _most_alike(known: Mixtures, pattern: np.ndarray) -> Mixtures:
    """For each of the patterns [n, P] the known mixture whose pattern is most alike, by the cosine."""
    unit, others = (p / np.linalg.norm(p, axis=1, keepdims=True) for p in (pattern, known.pattern))
    nearest = (unit @ others.T).argmax(axis=1)
    return Mixtures(known.pattern[nearest], known.fractions[nearest])


def _background() -> np.ndarray:
    """Curves of the background, none below 0: level, slopes to either side, a hump at small angles [4, P]."""
    t = np.linspace(-1, 1, INSTRUMENT.points)
    return np.stack([np.ones_like(t), 1 + t, 1 - t, np.exp(-0.5 * ((t + 0.6) / 0.2) ** 2)])


def composed(n: int, phases: int, most: int, rng: np.random.Generator, least: float = LEAST) -> np.ndarray:
    """Weight fractions of n mixtures, % [n, phases]: 1 to `most` phases, all counts alike likely, each at least
    `least`, and the rest shared out evenly at random (a flat Dirichlet distribution).
    """
    fractions = np.zeros((n, phases))
    for mixture in fractions:
        there = rng.choice(phases, rng.integers(1, most + 1), replace=False)
        mixture[there] = least + (100 - least * len(there)) * rng.dirichlet(np.ones(len(there)))
    return fractions


# ------------------------------------------------------------ simulated laboratory


def concretions(bench: Bench, settings: ScaleSettings) -> Work:
    """Mixtures of MINERALS; what is learned from are first the laboratory's, then the simulated ones."""
    from replimat.models import multiphase as model

    few = min(int(settings.model["laboratory"]), settings.n_train)
    seed = 10 * bench.seed
    laboratory = mixed(bench, few, SAMPLE, LABORATORY, seed + 1)
    simulated = mixed(bench, settings.n_train - few, SIMULATED_FROM, SIMULATED, seed + 2)
    return Work(
        phases=tuple(MINERALS),
        train=laboratory.and_also(simulated),
        val=mixed(bench, settings.n_val, SAMPLE, LABORATORY, seed + 3),
        test=mixed(bench, settings.n_test, SAMPLE, LABORATORY, TEST_SEED),
        samples=[f"mixture {k + 1}" for k in range(settings.n_test)],
        fit=model.FullPatternFit([pure_patterns(bench, *width) for width in WIDTHS], _background(), REACH),
    )


def mixed(bench: Bench, n: int, entry: int, conditions: Conditions, seed: int) -> Mixtures:
    """n random mixtures and their patterns.

    The intensities of a phase in a mixture are |F|^2 / V^2 times its share of the volume, which is weight over density;
    all phases absorb alike (no microabsorption).
    """
    fractions = composed(n, len(MINERALS), MOST, np.random.default_rng(seed))
    rows, density = _rows(bench, entry), bench.arrays["density"]
    generator = torch.Generator(bench.device).manual_seed(seed)
    patterns = [np.zeros((0, INSTRUMENT.points), dtype=np.float32)]
    for part in np.split(fractions, range(ROWS_AT_ONCE, n, ROWS_AT_ONCE)) if n else ():
        mixture, phase = np.nonzero(part)
        volume = part[mixture, phase] / density[rows[phase]]
        mixture, crystal, volume = (torch.as_tensor(one) for one in (mixture, rows[phase], volume))
        made = simulate(bench.powders, crystal, INSTRUMENT, conditions, generator, weights=volume, pattern=mixture)
        patterns.append(made.cpu().numpy())
    return Mixtures(np.concatenate(patterns), fractions)


def pure_patterns(bench: Bench, w: float, y: float) -> "PurePatterns":
    """Patterns of one weight of each phase, at one peak width, undisturbed."""
    from replimat.models import multiphase as model

    rows = torch.as_tensor(_rows(bench, SIMULATED_FROM), device=bench.device)
    reflections, phase = bench.powders.picked(rows)
    d = bench.powders.d[reflections]
    density = torch.as_tensor(bench.arrays["density"], dtype=d.dtype, device=d.device)
    area = bench.powders.intensity[reflections] * INSTRUMENT.geometry(d) / density[rows][phase]
    fwhm, share = INSTRUMENT.widths(d, PeakShape(w=torch.full_like(d, w), y=torch.full_like(d, y)))
    pattern = draw(INSTRUMENT, INSTRUMENT.positions(d), area, fwhm, share, phase, len(rows))
    return model.PurePatterns(pattern.cpu().numpy().astype(np.float64), np.arange(len(rows)))


def _rows(bench: Bench, entry: int) -> np.ndarray:
    """Rows of the entries of all phases [K]."""
    row = {name: k for k, name in enumerate(bench.ids)}
    return np.array([row[entries[entry]] for entries in MINERALS.values()])


# --------------------------------------------------------------------- measured


def rockjock_arrays(folder: Path) -> dict[str, np.ndarray]:
    """The weighed mixtures and the pure patterns of their phases, all as one weight shows, for the prepared file.

    A pure pattern of height h and reference intensity ratio RIR is RIR / h of what the same weight of corundum shows.
    Raises DataError where the axes differ.
    """
    from replimat.datasets.patterns import load_patterns
    from replimat.datasets.rockjock import PHASES, read_references

    mixtures, references = load_patterns("rockjock"), read_references(folder, cards.dataset("rockjock"))
    for axis in (*mixtures.axis, references.axis):
        if len(axis) != INSTRUMENT.points or not np.allclose(axis, INSTRUMENT.axis(dtype=torch.float64), atol=1e-3):
            raise DataError(f"{folder}: an axis is not {INSTRUMENT.points} points from 5 to 65 degree.")
    phase = np.array([list(PHASES.values()).index(one) if one in PHASES.values() else -1 for one in references.phases])
    curves, rir = references.intensities[phase >= 0], references.rir[phase >= 0]
    return {
        "measured.pattern": np.stack(mixtures.intensity),
        "measured.fractions": mixtures.labels["weights"],
        "pure.pattern": curves * (rir / curves.max(axis=1))[:, None],
        "pure.phase": phase[phase >= 0],
    }


def rockjock(bench: Bench, settings: ScaleSettings) -> Work:
    """Mixtures made of measured pure patterns to learn from, the measured mixtures to be tested on."""
    from replimat.datasets.rockjock import PHASES
    from replimat.models import multiphase as model

    pure = model.PurePatterns(bench.arrays["pure.pattern"], bench.arrays["pure.phase"])
    fit = model.FullPatternFit([pure], _background(), MEASURED_REACH, counted=True)
    pattern = fit.aligned(bench.arrays["measured.pattern"])
    test = Mixtures(pattern / pattern.max(axis=1, keepdims=True), bench.arrays["measured.fractions"])
    return Work(
        phases=tuple(name.replace("_", " ") for name in PHASES),
        train=added(pure, settings.n_train, np.random.default_rng([bench.seed, 1])),
        val=added(pure, settings.n_val, np.random.default_rng([bench.seed, 2])),
        test=test,
        samples=[f"mixture {k + 1}" for k in range(len(pattern))],
        fit=fit,
    )


def added(pure: "PurePatterns", n: int, rng: np.random.Generator) -> Mixtures:
    """n random mixtures as sums of pure patterns, with counting noise; corundum, the last phase, is in each.

    Every phase is one of its patterns, moved a little and somewhat too strong or too weak.
    """
    minerals = pure.phase.max()
    standard = rng.uniform(*STANDARD, (n, 1))
    sample = composed(n, minerals, minerals, rng, LEAST / (1 - STANDARD[1] / 100))
    fractions = np.concatenate([sample * (1 - standard / 100), standard], axis=1)
    pattern = np.zeros((n, pure.pattern.shape[1]))
    for mixture, phase in zip(*np.nonzero(fractions), strict=True):
        curve = pure.pattern[rng.choice(np.flatnonzero(pure.phase == phase))]
        strength = fractions[mixture, phase] * np.exp(SPREAD * rng.standard_normal())
        pattern[mixture] += strength * np.roll(curve, rng.integers(-MOVED, MOVED + 1))
    counts = rng.uniform(*COUNTS, (n, 1)) / pattern.max(axis=1, keepdims=True, initial=1e-300)
    pattern = rng.poisson(pattern * counts).astype(np.float64)
    return Mixtures(pattern / pattern.max(axis=1, keepdims=True, initial=1), fractions)
