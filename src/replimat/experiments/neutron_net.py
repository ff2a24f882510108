"""Garcia-Cardona et al. 2019: the phase of a powder and its cell from one pattern; BaTiO3 against temperature.

A classifier names the phase, then a regressor of that phase gives its free cell parameters. Both learn from patterns
of simulated crystals, each measured anew in every step. No number, instrument or network of the paper was found: what
is done is theirs as far as it is known, how it is done is chosen here.

"structures" is by neutrons, of far swept cells, as the paper has it. "batio3-ramp" is the nearest measured test that
can be had: X-ray patterns, so it learns from X-ray patterns of cells near those of BaTiO3.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from replimat.cards import ExperimentCard, ScaleSettings
from replimat.datasets.batio3_phases import CELL, PHASES, SWEEPS, TRANSITIONS, cells_at, crystals, phase_at
from replimat.datasets.batio3_ramp import AXIS, WAVELENGTH
from replimat.datasets.patterns import load_patterns
from replimat.experiments.base import Learned, Predicted, Selection, Target
from replimat.experiments.bench import Bench
from replimat.models.neutron_net import PatternNetwork
from replimat.representations.powder import PowderReflections
from replimat.representations.powder_pattern import ConstantWavelength, Instrument, TimeOfFlight, highest_is_one
from replimat.representations.simulation import Conditions, Powders, simulate, simulate_all
from replimat.training.patterns import FixedPatterns, FromPowders, PowderRows
from replimat.training.settings import Training

FREE = {  # parameters of the pseudo-cubic cell that a phase leaves free; the others equal them or are 90 degrees
    "cubic": ("a",),
    "tetragonal": ("a", "c"),
    "orthorhombic": ("a", "b", "alpha"),
    "rhombohedral": ("a", "alpha"),
}
TIED = {  # where each of a, b, c, alpha, beta, gamma comes from; "" is 90 degrees
    "cubic": ("a", "a", "a", "", "", ""),
    "tetragonal": ("a", "a", "c", "", "", ""),
    "orthorhombic": ("a", "b", "b", "alpha", "", ""),
    "rhombohedral": ("a", "a", "a", "alpha", "alpha", "alpha"),
}
SECOND = {"tetragonal": 1, "orthorhombic": 2}  # how often the second length occurs in the cell
LENGTHS, ANGLES = CELL[:3], CELL[3:]
RAMP = np.arange(150.0, 446.0, 5.0)  # K, the temperatures of the measured ramp
TEST, RAMPED, SHOWN = range(3)  # seeds of the simulations that stay the same: test, ramp, baselines
BIN = 8  # points of a pattern that a baseline takes together


@dataclass(frozen=True)
class Measurement:
    """Which crystals are measured (name of a sweep), and how."""

    sweep: str
    radiation: str
    instrument: Instrument
    conditions: Conditions

    @property
    def representation(self) -> PowderReflections:
        nearest, farthest = self.instrument.d_range  # a little more: a shift moves peaks onto the axis
        return PowderReflections(self.radiation, d_min=0.98 * nearest, d_max=1.05 * farthest)

    def patterns(self, powders: Powders, rows: np.ndarray, seed: int) -> Tensor:
        """One pattern of each crystal [n, P], the same for the same seed."""
        return simulate_all(powders, rows, self.instrument, self.conditions, seed)


NEUTRONS = Measurement(
    sweep="wide",
    radiation="neutron",
    instrument=TimeOfFlight(difc=22585.0, d_start=0.75, d_stop=3.0, points=2304),
    conditions=Conditions(
        w=(0.8e-6, 3e-6),
        u=(0.0, 1e-6),
        y=(0.0, 5e-4),
        b_iso=(0.2, 1.0),
        background=((0.0, 0.1), (-0.05, 0.05)),
        noise=(0.002, 0.01),
    ),
)
WINDOW = slice(280, 2248)  # of the measured axis: 2 to 16 degrees
XRAYS = Measurement(
    sweep="narrow",
    radiation="xray",
    instrument=ConstantWavelength(WAVELENGTH, AXIS[WINDOW][0], AXIS[WINDOW][-1], len(AXIS[WINDOW]), polarised=False),
    conditions=Conditions(
        u=(0.0, 0.05),
        w=(3e-4, 12e-4),
        x=(0.0, 0.3),
        y=(0.0, 0.015),
        b_iso=(0.0, 1.0),
        height=(-0.2 / 1065.88, 0.2 / 1065.88),
        background=((0.0, 0.01), (-0.002, 0.002)),
        hump=(0.0, 0.01),
        noise=(2e-4, 2e-3),
    ),
)


def build(card: ExperimentCard, settings: ScaleSettings, scale: str) -> Learned:
    measured = card.target == "measured_phase"
    measurement, ramp = (XRAYS, "measured_phase") if measured else (NEUTRONS, "ramp_phase")
    targets = {
        "phase": Target("multiclass", classes=PHASES),
        ramp: Target("multiclass", classes=PHASES),
        "lengths": Target("regression", "angstrom", relative=True),
        "angles": Target("regression", "degree"),
    }
    sizes = settings.n_train, settings.n_val, settings.n_test
    swept = (("sweep", float(SWEEPS.index(measurement.sweep))),)
    return Learned(
        data=Selection(card.dataset, ("phase", *CELL), *sizes, where=swept),
        representation=measurement.representation,
        targets={card.target: targets[card.target]} | targets,
        learn=partial(learn, measurement=measurement, settings=settings, ramp=ramp),
        extras=measured_ramp if measured else simulated_ramp,
        extras_from="batio3_ramp" if measured else card.dataset,
    )


def training(settings: ScaleSettings) -> Training:
    """Of the classifier: cross entropy with AdamW and one cycle of the learning rate."""
    recipe = {"epochs": settings.epochs, "batch_size": settings.batch_size, "lr": settings.lr}
    return Training(**recipe, loss="cross_entropy", optimiser="adamw", weight_decay=1e-3, schedule="onecycle")


# ------------------------------------------------------------------ the ramp, for the prepared file


def measured_ramp(folder: Path) -> dict[str, np.ndarray]:
    """Measured intensities [60, 3488] and their temperatures in K [60]."""
    found = load_patterns(folder.name)
    return {"ramp.temperature": found.labels["temperature"], "ramp.pattern": np.stack(found.intensity)}


def simulated_ramp(folder: Path) -> dict[str, np.ndarray]:
    """Neutron reflections of BaTiO3 with the cells of the literature, and temperatures in K [60]."""
    structures = crystals(phase_at(RAMP), cells_at(RAMP), np.ones(len(RAMP)))
    arrays = NEUTRONS.representation(structures)
    return {"ramp.temperature": RAMP} | {f"ramp.{name}": values for name, values in arrays.items()}


def ramp_patterns(arrays: dict[str, np.ndarray], measurement: Measurement) -> Tensor:
    """Patterns of the ramp [60, P]: the measured ones, or simulated ones of its crystals."""
    if "ramp.pattern" in arrays:
        return highest_is_one(torch.as_tensor(arrays["ramp.pattern"][:, WINDOW]).float())
    names = ("d", "intensity", "reflection_offsets")
    powders = Powders({name: arrays[f"ramp.{name}"] for name in names})
    return measurement.patterns(powders, np.arange(len(powders)), RAMPED)


# ------------------------------------------------------------------ learning


def learn(bench: Bench, measurement: Measurement, settings: ScaleSettings, ramp: str) -> dict[str, Predicted]:
    """Predictions for simulated test patterns, and the phases along the ramp under the name `ramp`."""
    networks = Networks(bench, measurement, settings)
    phase, cells = bench.target("phase").astype(int), np.stack([bench.target(name) for name in CELL], axis=1)
    train, test = bench.rows("train"), bench.rows("test")
    simple = Simple(measurement.patterns(bench.powders, train, SHOWN), phase[train], cells[train])
    pattern = measurement.patterns(bench.powders, test, TEST)
    steps, temperature = ramp_patterns(bench.arrays, measurement), bench.arrays["ramp.temperature"]
    kind = "measured" if "ramp.pattern" in bench.arrays else "simulated"
    kelvin = np.array([f"{kind} {value:g} K" for value in temperature])
    keep_ramp(bench, networks, steps)
    return {
        "phase": classes(bench.ids[test], phase[test], pattern, networks, simple),
        ramp: classes(kelvin, phase_at(temperature), steps, networks, simple),
        "lengths": parameters(LENGTHS, bench.ids[test], phase[test], cells[test], pattern, networks, simple),
        "angles": parameters(ANGLES, bench.ids[test], phase[test], cells[test], pattern, networks, simple),
    }


class Networks:
    """A classifier and a regressor for each phase, trained."""

    def __init__(self, bench: Bench, measurement: Measurement, settings: ScaleSettings):
        self.bench, self.measurement = bench, measurement
        self.width = {name: int(settings.model[name]) for name in ("channels", "hidden")}
        self.classifier_training = training(settings)
        self.cell_training = replace(self.classifier_training, loss="mse", epochs=int(settings.model["cell_epochs"]))
        self.phase = bench.target("phase").astype(int)
        self.classifier = self._classifier()
        self.regressors = [self._regressor(number, name) for number, name in enumerate(PHASES)]

    def probabilities(self, pattern: Tensor) -> np.ndarray:
        """Of every phase [n, 4]."""
        logits = torch.as_tensor(self._outputs(self.classifier, pattern))
        return torch.softmax(logits, dim=1).numpy()

    def cells(self, pattern: Tensor, phase: np.ndarray) -> np.ndarray:
        """Cells by the regressors of the given phases [n]: lengths (angstrom) and angles (degree) [n, 6]."""
        found = np.empty((len(pattern), 6))
        for number, name in enumerate(PHASES):
            rows = phase == number
            if rows.any():
                network, mean, spread = self.regressors[number]
                free = undistorted(name, self._outputs(network, pattern[rows]) * spread + mean)
                found[rows] = whole_cell(name, free)
        return found

    def _classifier(self) -> nn.Module:
        data = PowderRows(torch.as_tensor(self.phase))
        return self._trained(len(PHASES), data, self.classifier_training, "", np.ones(len(self.phase), dtype=bool))

    def _regressor(self, number: int, name: str) -> tuple[nn.Module, np.ndarray, np.ndarray]:
        """Network of the free parameters of a phase as `distorted` has them, with their mean and spread over its
        training rows [K].
        """
        values = distorted(name, np.stack([self.bench.target(one) for one in FREE[name]], axis=1))
        train = self.bench.rows("train")
        own = values[train[self.phase[train] == number]]
        mean, spread = own.mean(axis=0), own.std(axis=0)
        data = PowderRows(torch.as_tensor((values - mean) / spread).float())
        network = self._trained(len(FREE[name]), data, self.cell_training, name, self.phase == number)
        return network, mean, spread

    def _trained(self, outputs: int, data: PowderRows, recipe: Training, name: str, chosen: np.ndarray) -> nn.Module:
        """A network trained on the chosen rows, its patterns measured anew in every step."""
        torch.manual_seed(self.bench.seed)
        at = self.measurement.instrument, self.measurement.conditions
        network = PatternNetwork(self.measurement.instrument.points, outputs, **self.width)
        model = FromPowders(network, lambda rows, generator: simulate(self.bench.powders, rows, *at, generator))
        train, val = (rows[chosen[rows]] for rows in (self.bench.rows("train"), self.bench.rows("val")))
        return self.bench.train(model, data, recipe, train_rows=train, val_rows=val, name=name).network

    def _outputs(self, network: nn.Module, pattern: Tensor) -> np.ndarray:
        return self.bench.predict(network, FixedPatterns(pattern, torch.zeros(len(pattern))), np.arange(len(pattern)))


def distorted(phase: str, free: np.ndarray) -> np.ndarray:
    """Free parameters [n, K], two lengths (angstrom) as their geometric mean over the cell (angstrom) and their ratio.

    Both lengths vary by far more than their ratio does, which a network would otherwise neglect.
    """
    if phase not in SECOND:
        return free
    ratio = free[:, 1] / free[:, 0]
    return np.column_stack([free[:, 0] * ratio ** (SECOND[phase] / 3), ratio, free[:, 2:]])


def undistorted(phase: str, learned: np.ndarray) -> np.ndarray:
    """Free parameters [n, K] from what `distorted` made of them."""
    if phase not in SECOND:
        return learned
    first = learned[:, 0] * learned[:, 1] ** (-SECOND[phase] / 3)
    return np.column_stack([first, first * learned[:, 1], learned[:, 2:]])


def whole_cell(phase: str, free: np.ndarray) -> np.ndarray:
    """a, b, c (angstrom), alpha, beta, gamma (degree) [n, 6] from the free parameters of a phase [n, K]."""
    columns = dict(zip(FREE[phase], free.T, strict=True)) | {"": np.full(len(free), 90.0)}
    return np.stack([columns[source] for source in TIED[phase]], axis=1)


# ------------------------------------------------------------------ what is simpler


class Simple:
    """The same answers without a network, from patterns binned to BIN points: the phase of the nearest training
    pattern, the cell by ridge regression; and without any pattern.
    """

    def __init__(self, pattern: Tensor, phase: np.ndarray, cells: np.ndarray):
        from sklearn.linear_model import RidgeCV
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        self.share = np.bincount(phase, minlength=len(PHASES)) / len(phase)
        seen = binned(pattern)
        self.neighbour = KNeighborsClassifier(1).fit(seen, phase)
        self.mean, self.ridge = {}, {}
        for number, name in enumerate(PHASES):
            rows = phase == number
            free = cells[rows][:, [CELL.index(one) for one in FREE[name]]]
            self.mean[name] = free.mean(axis=0)
            self.ridge[name] = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 5, 13))).fit(seen[rows], free)

    def probabilities(self, pattern: Tensor) -> dict[str, np.ndarray]:
        """Of every phase, by method [n, 4]."""
        nearest = self.neighbour.predict(binned(pattern))
        return {"nearest_pattern": np.eye(len(PHASES))[nearest], "majority": np.tile(self.share, (len(pattern), 1))}

    def cells(self, pattern: Tensor, phase: np.ndarray) -> dict[str, np.ndarray]:
        """Cells of patterns of the given phases [n], by method [n, 6]."""
        seen = binned(pattern)
        found = {method: np.empty((len(pattern), 6)) for method in ("mean", "pattern_ridge")}
        for number, name in enumerate(PHASES):
            rows = phase == number
            if rows.any():
                found["mean"][rows] = whole_cell(name, np.tile(self.mean[name], (rows.sum(), 1)))
                free = self.ridge[name].predict(seen[rows]).reshape(rows.sum(), -1)
                found["pattern_ridge"][rows] = whole_cell(name, free)
        return found


def binned(pattern: Tensor) -> np.ndarray:
    """Square roots of patterns [n, P], as the network takes them, averaged over BIN points [n, P // BIN]."""
    seen = torch.sqrt(pattern.clamp(min=0))
    return seen[:, : seen.shape[1] // BIN * BIN].unflatten(1, (-1, BIN)).mean(dim=2).numpy()


# ------------------------------------------------------------------ predictions


def classes(ids: np.ndarray, phase: np.ndarray, pattern: Tensor, networks: Networks, simple: Simple) -> Predicted:
    """Phases of patterns."""
    found = networks.probabilities(pattern)
    return Predicted(ids, phase.astype(float), found.argmax(axis=1), found, simple.probabilities(pattern))


def parameters(
    names: tuple[str, ...],
    ids: np.ndarray,
    phase: np.ndarray,
    cells: np.ndarray,
    pattern: Tensor,
    networks: Networks,
    simple: Simple,
) -> Predicted:
    """Free parameters of these names, each phase by its own regressor: what its symmetry fixes is not counted."""
    free = np.array([[name in FREE[one] for name in CELL] for one in PHASES])  # [4, 6]
    asked = free[phase] & np.isin(CELL, names)  # [n, 6]
    named = np.array([[f"{one}/{name}" for name in CELL] for one in ids])
    found = {method: values[asked] for method, values in simple.cells(pattern, phase).items()}
    return Predicted(named[asked], cells[asked], networks.cells(pattern, phase)[asked], baselines=found)


def keep_ramp(bench: Bench, networks: Networks, steps: Tensor) -> None:
    """Probabilities and cells (of the phase that is found) along the ramp, beside those of the literature."""
    temperature, found = bench.arrays["ramp.temperature"], networks.probabilities(steps)
    bench.keep(
        "ramp",
        temperature=temperature,
        probabilities=found,
        cells=networks.cells(steps, found.argmax(axis=1)),
        literature=cells_at(temperature),
        phase=phase_at(temperature),
        transitions=np.array(TRANSITIONS),
        names=np.array(PHASES),
        measured=np.array("ramp.pattern" in bench.arrays),
    )
