"""Chitturi et al. 2021: lattice lengths from a powder pattern, one network for each crystal system.

Every crystal's pattern is simulated once; in training it is modified anew in each step. The same test patterns are
predicted with modifications and, where a card asks for it, as simulated. "ssrl-measured" learns the systems of the
paper's 15 measured patterns and predicts those.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from replimat.cards import ExperimentCard, ScaleSettings
from replimat.datasets.patterns import SYSTEMS, load_patterns
from replimat.evaluation.search_volume import searched_share
from replimat.experiments.base import Learned, Predicted, Selection, Target
from replimat.experiments.bench import Bench
from replimat.models.lattice_net import LatticeNet, by_symmetry, free_lengths
from replimat.representations.modifications import NONE, Modifications, modify
from replimat.representations.powder import PowderReflections
from replimat.representations.powder_pattern import ConstantWavelength
from replimat.representations.simulation import Conditions, simulate_all
from replimat.training.patterns import FixedPatterns, FromPowders, PowderRows
from replimat.training.settings import Training

INSTRUMENT = ConstantWavelength(1.54056, 0.0, 90.0, 9000)  # copper K alpha 1
SHARP = Conditions(w=(4e-4, 4e-4))  # degree^2: two points wide before they are broadened
FAINT = 1e-6  # of the highest point: tails below are cut, numbers near 1e-40 are slow on a processor
SIMULATED, TEST, SHOWN = range(3)  # seeds of what stays the same for every seed of a network
WEAK = 1e-3  # of the highest point of a measured pattern: below is background, as the authors have it
BIN = 50  # points of a pattern that a baseline takes together: 0.5 degree
TARGETS = {
    "lengths": Target("regression", "angstrom", relative=True),
    "plain_lengths": Target("regression", "angstrom", relative=True),
    "measured_lengths": Target("regression", "angstrom", relative=True),
    "search_volume": Target("search_volume"),
}

Guess = Callable[[Tensor], np.ndarray]  # patterns [n, P] -> lengths in angstrom, ascending [n, 3]


def build(card: ExperimentCard, settings: ScaleSettings, scale: str) -> Learned:
    """settings.model: pool, the network's first; modified: whether training patterns are; system, where the experiment
    is of one crystal system.
    """
    measured = card.target == "measured_lengths"
    system = settings.model.get("system")
    where = () if measured else (("crystal_system", SYSTEMS.index(system)),)
    required = ("crystal_system", "a", "b", "c", "alpha", "mineral")
    sizes = settings.n_train, settings.n_val, settings.n_test
    targets = {name: TARGETS[name] for name in card.claims_by_target}
    return Learned(
        data=Selection(card.dataset, required, *sizes, where=where, kin="mineral", apart=True),
        representation=PowderReflections(d_min=INSTRUMENT.d_range[0]),
        targets=targets,
        learn=partial(learn_measured if measured else learn, settings=settings, names=tuple(targets)),
        extras=measured_patterns if measured else None,
        extras_from="ssrl_patterns" if measured else None,
    )


def training(settings: ScaleSettings) -> Training:
    """Relative error, Adam and one cycle of the learning rate."""
    recipe = {"epochs": settings.epochs, "batch_size": settings.batch_size, "lr": settings.lr}
    return Training(**recipe, loss="mae", schedule="onecycle")


# ------------------------------------------------------------------ crystals and measured patterns


@dataclass(frozen=True)
class Crystals:
    """Crystals of one system. ids [n]; part: 0 train, 1 validation, 2 test [n]; lengths: angstrom, ascending [n, 3];
    pattern: as simulated, from 0 to 1, where networks are trained [n, P].
    """

    system: str
    ids: np.ndarray
    part: np.ndarray
    lengths: np.ndarray
    pattern: Tensor

    def rows(self, part: str) -> np.ndarray:
        return np.flatnonzero(self.part == ("train", "val", "test").index(part))

    def modified(self, part: str, how: Modifications, seed: int, impurities: str = "train") -> Tensor:
        """Patterns of a part, modified the same way for the same seed [m, P]; impurities: part they are taken from."""
        generator = torch.Generator(self.pattern.device).manual_seed(seed)
        pattern, others = (self.pattern[torch.as_tensor(self.rows(one))] for one in (part, impurities))
        return modify(pattern, others, how, generator)


def crystals(bench: Bench, system: str) -> Crystals:
    of = np.flatnonzero(bench.target("crystal_system") == SYSTEMS.index(system))
    pattern = simulate_all(bench.powders, of, INSTRUMENT, SHARP, SIMULATED)
    pattern = torch.where(pattern > FAINT, pattern, 0.0).to(bench.device)
    edges = np.stack([bench.target(name)[of] for name in "abc"], axis=1)
    if system == "trigonal":
        edges = hexagonal_axes(edges, bench.target("alpha")[of])
    return Crystals(system, bench.ids[of], bench.arrays["part"][of], np.sort(edges, axis=1), pattern)


def hexagonal_axes(edges: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Edges [n, 3] of trigonal cells, those on rhombohedral axes (all equal, alpha not 90 degree) on hexagonal ones."""
    half, rhombohedral = np.radians(alpha) / 2, (np.ptp(edges, axis=1) < 1e-3) & (np.abs(alpha - 90) > 1e-3)
    a, c = 2 * edges[:, 0] * np.sin(half), edges[:, 0] * np.sqrt(3 + 6 * np.cos(2 * half))
    return np.where(rhombohedral[:, None], np.stack([a, a, c], axis=1), edges)


def measured_patterns(folder: Path) -> dict[str, np.ndarray]:
    """Measured patterns for the prepared file: on the axis of the simulated ones [m, P], crystal systems [m], refined
    lengths in angstrom [m, 3], and names as bytes [m, characters].
    """
    found = load_patterns(folder.name)
    pairs = zip(found.axis, found.intensity, found.wavelengths, strict=True)
    names = np.char.encode(found.ids, "ascii")
    return {
        "measured.pattern": np.stack([at_copper(*one) for one in pairs]).astype(np.float32),
        "measured.system": found.labels["crystal_system"],
        "measured.lengths": found.labels["lengths"],
        "measured.name": names.view(np.uint8).reshape(len(names), -1),
    }


def at_copper(axis: np.ndarray, intensity: np.ndarray, wavelength: float) -> np.ndarray:
    """A pattern at another wavelength, on our axis [9000]: what is weak is 0, and what was not recorded is as its first
    point, as the authors convert them.

    axis: 2 theta, degree [P]; wavelength: angstrom.
    """
    height = intensity / intensity.max()
    height = np.where(height < WEAK, 0.0, height)
    ours = INSTRUMENT.axis(dtype=torch.float64).numpy()
    wanted, recorded = (np.sin(np.radians(x) / 2) / w for x, w in ((ours, INSTRUMENT.wavelength), (axis, wavelength)))
    found = np.interp(wanted, recorded, height, left=height[0], right=height[0])  # by 1 / 2d
    return found / found.max()


# ------------------------------------------------------------------ learning


def learn(bench: Bench, settings: ScaleSettings, names: tuple[str, ...]) -> dict[str, Predicted]:
    of = crystals(bench, settings.model["system"])
    guesses = everyone(bench, of, settings)
    test = of.rows("test")
    shown = of.modified("test", Modifications(), TEST, impurities="test")
    found = {
        "lengths": predicted(of.ids[test], of.lengths[test], guesses, shown),
        "plain_lengths": predicted(
            of.ids[test], of.lengths[test], guesses, of.pattern[torch.as_tensor(test)], ":plain"
        ),
        "search_volume": searched(of, guesses, shown),
    }
    return {name: found[name] for name in names}


def learn_measured(bench: Bench, settings: ScaleSettings, names: tuple[str, ...]) -> dict[str, Predicted]:
    """The measured patterns of each crystal system by the network of that system."""
    pattern, system, refined, name = (
        bench.arrays[f"measured.{one}"] for one in ("pattern", "system", "lengths", "name")
    )
    pattern = torch.as_tensor(pattern)
    said: dict[str, np.ndarray] = {}
    for number in np.unique(system):
        rows = system == number
        guesses = everyone(bench, crystals(bench, SYSTEMS[number]), settings, SYSTEMS[number])
        for who, guess in guesses.items():
            said.setdefault(who, np.zeros_like(refined))[rows] = guess(pattern[torch.as_tensor(rows)])
    ids = np.ascontiguousarray(name).view(f"S{name.shape[1]}").ravel().astype(str)
    bench.keep("cells", names=ids, system=system, refined=refined, ours=said["model"])
    return dict.fromkeys(names, flat(ids, refined, said))


def everyone(bench: Bench, of: Crystals, settings: ScaleSettings, name: str = "") -> dict[str, Guess]:
    """The network, "model", and its baselines, all of them having seen the training rows of the crystals."""
    how = Modifications() if settings.model["modified"] else NONE
    return {"model": partial(read, bench, fitted(bench, of, how, settings, name), of.system), **baselines(of, how)}


def fitted(bench: Bench, of: Crystals, how: Modifications, settings: ScaleSettings, name: str) -> LatticeNet:
    """A network trained on the crystals; it starts from the mean lengths and their spread."""
    from replimat.training.relative import RelativeTask

    train, val = of.rows("train"), of.rows("val")
    known = torch.as_tensor(of.lengths[train])
    network = LatticeNet(pool=int(settings.model["pool"]), centre=known.mean(dim=0), spread=known.std(dim=0))
    others = of.pattern[torch.as_tensor(train)]
    model = FromPowders(network, lambda rows, generator: modify(of.pattern[rows], others, how, generator))
    data = PowderRows(torch.as_tensor(of.lengths).float())
    bench.train(model, data, training(settings), train_rows=train, val_rows=val, name=name, task=RelativeTask)
    return network


def read(bench: Bench, network: LatticeNet, system: str, pattern: Tensor) -> np.ndarray:
    """Lengths [n, 3] that a network reads from patterns [n, P], with the symmetry of the system."""
    data = FixedPatterns(pattern, torch.zeros(len(pattern)))
    return by_symmetry(bench.predict(network, data, np.arange(len(pattern))), system)


def baselines(of: Crystals, how: Modifications) -> dict[str, Guess]:
    """The mean lengths of the training rows; those of the training pattern that is most alike, by the cosine; ridge
    regression of their logarithms, within their range. The latter two see square roots of binned patterns.
    """
    from sklearn.linear_model import RidgeCV

    lengths = of.lengths[of.rows("train")]
    seen = binned(of.modified("train", how, SHOWN))
    ridge, low, high = RidgeCV(np.logspace(-3, 3, 13)).fit(seen, np.log(lengths)), lengths.min(), lengths.max()
    unit = seen / np.linalg.norm(seen, axis=1, keepdims=True)
    guesses = {
        "mean": lambda pattern: np.tile(lengths.mean(axis=0), (len(pattern), 1)),
        "nearest_pattern": lambda pattern: lengths[(binned(pattern) @ unit.T).argmax(axis=1)],
        "ridge": lambda pattern: np.exp(ridge.predict(binned(pattern)).clip(np.log(low), np.log(high))),
    }
    return {name: _symmetric(guess, of.system) for name, guess in guesses.items()}


def _symmetric(guess: Guess, system: str) -> Guess:
    return lambda pattern: by_symmetry(guess(pattern), system)


def binned(pattern: Tensor) -> np.ndarray:
    """Square roots of patterns [n, P], summed over bins [n, P / BIN]."""
    return pattern.clamp(min=0).sqrt().unflatten(1, (-1, BIN)).sum(dim=2).cpu().double().numpy()


# ------------------------------------------------------------------ what is scored


def predicted(
    ids: np.ndarray, true: np.ndarray, guesses: dict[str, Guess], pattern: Tensor, kind: str = ""
) -> Predicted:
    return flat(np.char.add(ids, kind), true, {name: guess(pattern) for name, guess in guesses.items()})


def flat(ids: np.ndarray, true: np.ndarray, said: dict[str, np.ndarray]) -> Predicted:
    """Three rows for each cell [3 n]: "<id>:0" is the shortest length."""
    values = {name: lengths.ravel() for name, lengths in said.items()}
    names = np.array([f"{name}:{k}" for name in ids for k in range(3)])
    return Predicted(names, true.ravel(), values.pop("model"), baselines=values)


def searched(of: Crystals, guesses: dict[str, Guess], shown: Tensor) -> Predicted:
    """Share of the volume of all cells that is to be searched for each test cell; without a prediction it is 1.

    The space is that of the lengths a cell of the system is free in, from the smallest to the largest of the training
    cells. Searched is the box around the prediction, as wide to either side as the mean relative error.
    """
    test = of.rows("test")
    free = partial(free_lengths, system=of.system)
    known, true = free(of.lengths[of.rows("train")]), free(of.lengths[test])
    low, high = known.min(axis=0), known.max(axis=0)
    share = {name: searched_share(true, free(guess(shown)), low, high) for name, guess in guesses.items()}
    return Predicted(of.ids[test], np.ones(len(test)), share.pop("model"), baselines=share)
