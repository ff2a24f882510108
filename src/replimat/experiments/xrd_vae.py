"""Banko et al. 2021: a variational autoencoder of simulated powder patterns, and what its error knows of the unknown.

It learns patterns of the known phases alone. Tested are new patterns of them, of the phases left out, and of mixtures
of two known phases: how well they are given back, which phase a neighbour in the latent space says, and whether the
error tells that a pattern is of another kind.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from replimat.cards import ExperimentCard, ScaleSettings
from replimat.experiments.base import Learned, Predicted, Selection, Target
from replimat.experiments.bench import Bench
from replimat.models.variational import reconstruction_errors
from replimat.representations.powder import PowderReflections
from replimat.representations.powder_pattern import ConstantWavelength
from replimat.representations.simulation import Conditions, Powders, simulate, simulate_all
from replimat.training.patterns import FixedPatterns
from replimat.training.settings import Training

START, STOP = 20.0, 89.94  # two theta, degree
WAVELENGTH, MONOCHROMATOR = 1.5418, 26.6  # angstrom, degree
STRAIN = 0.003
CONDITIONS = Conditions(
    strain=(-STRAIN, STRAIN),
    w=(0.2, 0.8),
    y=(0.0, 0.1),
    march=(0.3, 1.0),
    height=(-0.5 / 240, 0.5 / 240),
    background=((0.0, 0.05),),
    noise=(0.005, 0.005),
)
NEIGHBOURS = 5
KNOWN_ERRORS = 95  # percentile of the validation errors that a known pattern stays below
AT_ONCE = 256  # patterns that pass the network in one step of an evaluation
KINDS = ("known", "mixture", "unknown")
TRAIN, VAL, TEST, UNKNOWN, MIXTURES = range(5)  # a simulation each


@dataclass(frozen=True)
class Phases:
    """Ids of the crystals by name: those that are learned, and those left out. require: a target that all have."""

    known: dict[str, str]
    unknown: dict[str, str]
    require: str

    @property
    def ids(self) -> tuple[str, ...]:
        return (*self.known.values(), *self.unknown.values())


PHASES = {
    "oc20_bulks": Phases(
        known={
            "Al": "mp-134",
            "Ni": "mp-23",
            "Co": "mp-54",
            "NiAl": "mp-1487",
            "Ni3Al": "mp-2593",
            "Ni2Al3": "mp-1057",
            "NiAl3": "mp-622209",
            "Co2Al5": "mp-196",
        },
        unknown={"Co2Al9": "mp-16488", "Ni5Al3": "mp-16514"},
        require="energy_per_atom",
    ),
    "xca_cifs": Phases(
        known={
            "NiAl martensite": "NiCoAl-NiAl-Tetragonal-139",
            "Ni-Co": "NiCoAl-Co1.2Ni2.8-Cubic-225",  # its Ni is the solid solution of Fe-Ni-Si, with Ni3Al's lattice
            "Co": "NiCoAl-Co-Hexagonal-194",
            "NiAl": "NiCoAl-NiAl-Cubic-221",
            "Ni3Al": "NiCoAl-Ni3Al-Cubic-221",
            "Ni2Al3": "NiCoAl-Ni2Al3-Trigonal-164",
            "NiAl3": "NiCoAl-NiAl3-Orthorhombic-62",
            "Co2Al5": "NiCoAl-Co2Al5-Hexagonal-194",
        },
        unknown={"Co2Al9": "NiCoAl-Co2Al9-Monoclinic-14", "Ni5Al3": "NiCoAl-Ni5Al3-Orthorhombic-65"},
        require="space_group",
    ),
}


def build(card: ExperimentCard, settings: ScaleSettings, scale: str) -> Learned:
    phases = PHASES[card.dataset]
    instrument = ConstantWavelength(WAVELENGTH, START, STOP, int(settings.model["points"]), monochromator=MONOCHROMATOR)
    nearest, farthest = instrument.d_range  # a little more: strain and height move peaks onto the axis
    return Learned(
        data=Selection(card.dataset, (phases.require,), 0, 0, len(phases.ids), ids=phases.ids),
        representation=PowderReflections(d_min=0.98 * nearest, d_max=1.02 * farthest, equivalents=True),
        targets={
            "pattern": Target("reconstruction"),
            "unknown_pattern": Target("reconstruction"),
            "phase": Target("multiclass", classes=tuple(phases.known)),
            "novelty": Target("classification"),
            "mixture": Target("classification"),
        },
        learn=partial(learn, phases=phases, instrument=instrument, settings=settings, training=training(settings)),
    )


def training(settings: ScaleSettings) -> Training:
    """Mean squared error and weighted divergence with Adam, as in the group's code; one cycle of the learning rate."""
    return Training(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        lr=settings.lr,
        weights={"reconstruction": 1.0, "kl": settings.model["kl"]},
        schedule="onecycle",
    )


def learn(
    bench: Bench, phases: Phases, instrument: ConstantWavelength, settings: ScaleSettings, training: Training
) -> dict[str, Predicted]:
    from replimat.models.xrd_vae import PatternVAE
    from replimat.training.vae import VAETask

    shown = simulated(bench.powders, len(phases.known), len(phases.unknown), instrument, settings)
    learned = torch.cat([shown[TRAIN].pattern, shown[VAL].pattern])
    n = len(shown[TRAIN].pattern)
    model = PatternVAE(instrument.points, latent=int(settings.model["latent"]))
    data = FixedPatterns(learned, learned)
    parts = {"train_rows": np.arange(n), "val_rows": np.arange(n, len(learned))}
    bench.train(model, data, training, task=VAETask, **parts)
    autoencoders = {"vae": Coded(model.to(bench.device), bench.device), **trivial(shown[TRAIN].pattern, model.latent)}
    views = {name: [one(part.pattern) for part in shown] for name, one in autoencoders.items()}
    keep(bench, shown, views["vae"], (*phases.known, *phases.unknown))
    return predicted(shown, views)


# ------------------------------------------------------------------ patterns


@dataclass(frozen=True)
class Shown:
    """Patterns [n, P], the phase of each by number [n] (of a mixture -1) and the share of its first phase [n]."""

    pattern: Tensor
    phase: np.ndarray
    share: np.ndarray


def simulated(
    powders: Powders, known: int, unknown: int, instrument: ConstantWavelength, settings: ScaleSettings
) -> list[Shown]:
    """Patterns to train, validate and test on, of unknown phases and of mixtures; as many of every phase. The same for
    every seed of a run.
    """
    sizes = {TRAIN: settings.n_train, VAL: settings.n_val, TEST: settings.n_test}
    parts = []
    for part, n in sizes.items():
        rows = np.resize(np.arange(known), n)
        parts.append(Shown(simulate_all(powders, rows, instrument, CONDITIONS, part), rows, np.ones(n)))
    rows = known + np.resize(np.arange(unknown), settings.n_test * unknown // known)
    parts.append(Shown(simulate_all(powders, rows, instrument, CONDITIONS, UNKNOWN), rows, np.ones(len(rows))))
    return [*parts, mixed(powders, known, instrument, settings.n_test)]


def mixed(powders: Powders, known: int, instrument: ConstantWavelength, n: int) -> Shown:
    """n mixtures of two different known phases under common conditions; share: of what the axis records, even."""
    device = powders.d.device
    generator = torch.Generator(device).manual_seed(MIXTURES)
    first = torch.randint(known, (n,), generator=generator, device=device)
    second = (first + torch.randint(1, known, (n,), generator=generator, device=device)) % known
    share = torch.rand(n, generator=generator, device=device)
    pairs, shares = torch.stack([first, second], dim=1), torch.stack([share, 1 - share], dim=1)
    weights = shares / strengths(powders, instrument)[pairs]
    made = []
    for part in torch.arange(n, device=device).split(AT_ONCE):
        of = torch.arange(len(part), device=device).repeat_interleave(2)
        both = {"weights": weights[part].flatten(), "pattern": of}
        made.append(simulate(powders, pairs[part].flatten(), instrument, CONDITIONS, generator, **both).cpu())
    return Shown(torch.cat(made), np.full(n, -1), share.cpu().numpy())


def strengths(powders: Powders, instrument: ConstantWavelength) -> Tensor:
    """What each crystal diffracts onto the axis, summed over its reflections, any unit [n]."""
    at = instrument.positions(powders.d)
    area = powders.intensity * instrument.geometry(powders.d)
    area = torch.where((at >= instrument.start) & (at <= instrument.stop), area, 0.0)
    chosen, owner = powders.picked(torch.arange(len(powders), device=at.device))
    return area.new_zeros(len(powders)).index_add(0, owner, area[chosen])


# ------------------------------------------------------------------ autoencoders


@dataclass(frozen=True)
class View:
    """What an autoencoder makes of n patterns: latent coordinates [n, L] and the error of each [n]."""

    latent: np.ndarray
    error: np.ndarray


class Coded:
    """A trained network on its device."""

    def __init__(self, model: nn.Module, device: str):
        self.model, self.device = model.eval(), device

    @torch.inference_mode()
    def __call__(self, pattern: Tensor) -> View:
        latent, error = [], []
        for part in pattern.split(AT_ONCE):
            part = part.to(self.device)
            found = self.model(part)
            latent.append(found.mean.cpu())
            error.append(reconstruction_errors(found.reconstruction, part).cpu())
        return View(torch.cat(latent).double().numpy(), torch.cat(error).double().numpy())


def trivial(training_patterns: Tensor, latent: int) -> dict[str, object]:
    """The mean pattern, and the principal components of as many dimensions."""
    from sklearn.decomposition import PCA

    components = PCA(latent, random_state=0).fit(training_patterns.numpy())
    mean = training_patterns.mean(dim=0)

    def project(pattern: Tensor) -> View:
        coordinates = components.transform(pattern.numpy())
        again = torch.as_tensor(components.inverse_transform(coordinates))
        return View(coordinates, reconstruction_errors(again, pattern).numpy())

    def ignore(pattern: Tensor) -> View:
        error = reconstruction_errors(mean.expand_as(pattern), pattern)
        return View(np.zeros((len(pattern), latent)), error.numpy())

    return {"principal_components": project, "mean": ignore}


# ------------------------------------------------------------------ predictions


def predicted(shown: list[Shown], views: dict[str, list[View]]) -> dict[str, Predicted]:
    """What the first autoencoder predicts, the others being its baselines."""
    name, *others = views
    return {
        "pattern": reconstructed(shown, views, TEST),
        "unknown_pattern": reconstructed(shown, {name: views[name]}, UNKNOWN),  # neither small nor large is good
        "phase": phase(shown, views[name], {other: views[other] for other in others}),
        "novelty": told_apart(shown, views, UNKNOWN),
        "mixture": told_apart(shown, views, MIXTURES),
    }


def reconstructed(shown: list[Shown], views: dict[str, list[View]], part: int) -> Predicted:
    """Errors of a part."""
    own, *others = ((name, view[part].error) for name, view in views.items())
    return Predicted(ids(shown, part), np.zeros(len(own[1])), own[1], baselines=dict(others))


def phase(shown: list[Shown], own: list[View], others: dict[str, list[View]]) -> Predicted:
    """Phases of the test patterns, from the training patterns nearest in the latent space."""
    from sklearn.neighbors import KNeighborsClassifier

    def chances(view: list[View]) -> np.ndarray:
        neighbours = KNeighborsClassifier(NEIGHBOURS).fit(view[TRAIN].latent, shown[TRAIN].phase)
        return neighbours.predict_proba(view[TEST].latent)

    found = chances(own)
    baselines = {name: chances(view) for name, view in others.items() if name != "mean"}  # a mean has no latent space
    frequent = np.zeros_like(found)
    frequent[:, np.bincount(shown[TRAIN].phase).argmax()] = 1.0
    true = shown[TEST].phase.astype(float)
    return Predicted(ids(shown, TEST), true, found.argmax(axis=1), found, baselines | {"majority": frequent})


def told_apart(shown: list[Shown], views: dict[str, list[View]], part: int) -> Predicted:
    """Whether a pattern belongs to `part` and is no new one of a known phase, from its error."""
    own, *others = ((name, score(view, part)) for name, view in views.items())
    names = np.concatenate([ids(shown, TEST), ids(shown, part)])
    true = np.repeat([0.0, 1.0], [len(shown[TEST].phase), len(shown[part].phase)])
    return Predicted(names, true, own[1], baselines=dict(others))


def score(view: list[View], part: int) -> np.ndarray:
    """error / (error + threshold) of the test patterns and then those of a part: one half at the threshold."""
    error = np.concatenate([view[TEST].error, view[part].error])
    return error / (error + threshold(view))


def threshold(view: list[View]) -> float:
    """The error that few patterns of the known phases exceed, from validation patterns."""
    return float(np.percentile(view[VAL].error, KNOWN_ERRORS))


def ids(shown: list[Shown], part: int) -> np.ndarray:
    name = KINDS[{TEST: 0, MIXTURES: 1, UNKNOWN: 2}[part]]
    return np.array([f"{name}-{k}" for k in range(len(shown[part].phase))])


def keep(bench: Bench, shown: list[Shown], views: list[View], names: tuple[str, ...]) -> None:
    """Arrays of the figures: test patterns, mixtures and unknown phases one after the other."""
    parts = (TEST, MIXTURES, UNKNOWN)
    kind = np.repeat(np.arange(3), [len(shown[part].phase) for part in parts])
    of = {"kind": kind, "phase": np.concatenate([shown[part].phase for part in parts]), "names": np.array(names)}
    bench.keep("latent", latent=np.concatenate([views[part].latent for part in parts]), **of)
    error, share = (np.concatenate(one) for one in zip(*((views[p].error, shown[p].share) for p in parts), strict=True))
    bench.keep("novelty", error=error, share=share, threshold=np.array(threshold(views)), **of)
