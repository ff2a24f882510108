"""Ren et al. 2022: crystals as invertible matrices, an autoencoder that orders them by their properties, and designs
from around the training crystals nearest to a target.

A design counts as a success when its composition is not among the known crystals, its atoms keep their distance, and
its properties lie within the target's window as the CGCNN authors' released weights predict them for the crystal as it
is made. The authors relaxed their designs and computed the properties with DFT.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from replimat.cards import ExperimentCard, ScaleSettings
from replimat.datasets.base import Structures
from replimat.evaluation.generation import MADE, judged
from replimat.experiments.base import Learned, Made, Predicted, Selection, Target
from replimat.experiments.bench import Bench
from replimat.experiments.judging import UNITS, judge_crystals, valid_crystals
from replimat.experiments.random_structures import random_crystals
from replimat.experiments.shared import element_features
from replimat.representations.conversion import packed, unpacked
from replimat.representations.ftcp import FTCP, OrderedCrystals, RowScale, cell_parameters, fractional
from replimat.training.settings import Training

AT_ONCE = 256
LOOKED_AT = 40  # designs kept to be looked at
NEAREST = 10  # training crystals that the designs for a target start from
NEAR = 0.1  # eV/atom: the looser window of the first version of the paper
CHANGES = 0.25, 0.5  # shares of the epochs after which the learning rate changes
COVERED = 1000  # test crystals that random ones are held against
DESIGN = Target("generation", primary="success_rate", units=UNITS)
DRAWN = Target("generation", primary="validity", units=UNITS)
RECONSTRUCTION = Target(
    "generation",
    primary="match_rate",
    units={"element_accuracy": "%", "lengths_mape": "%", "angles_mape": "%"},
)


@dataclass(frozen=True)
class Window:
    """What a design shall have: property -> (lowest, highest); aim: the property that starting points are ranked by,
    and its wanted value; where: property -> (lowest, highest) that starting points must have.
    """

    wanted: dict[str, tuple[float, float]]
    aim: tuple[str, float]
    where: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Case:
    """A design case. sites, elements: of its matrices; properties: known of every crystal; partial: of some; windows:
    the first is the one that the success rate is of, none where crystals are drawn at random; rows: (target, value)
    that the crystals must have; split: of the data's authors.
    """

    sites: int
    elements: int
    properties: tuple[str, ...]
    windows: tuple[Window, ...]
    partial: tuple[str, ...] = ()
    rows: tuple[tuple[str, float], ...] = ()
    split: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return self.properties + self.partial


def energy_window(centre: float, half: float = 0.06) -> Window:
    """Figures 5 and S5 of the paper, as its scripts draw them."""
    return Window({"formation_energy": (centre - half, centre + half)}, ("formation_energy", centre), {})


GAP = Window(
    wanted={"band_gap": (1.2, 1.8), "formation_energy": (-np.inf, -1.44)},
    aim=("band_gap", 1.5),
    where={"formation_energy": (-np.inf, -1.5)},
)
POWER = Window(
    wanted={"band_gap": (0.3, 1.5), "formation_energy": (-np.inf, 0.0)},
    aim=("power_factor", np.inf),
    where={"formation_energy": (-np.inf, -1.5), "band_gap": (0.3, 1.5)},
)
CASES = {  # by the main target
    "formation_energy_design": Case(
        20,
        3,
        properties=("formation_energy",),
        windows=tuple(energy_window(centre) for centre in (-0.5, -0.3, -0.6, -0.7)),
        rows=(("small_ternary", 1.0),),
    ),
    "band_gap_design": Case(40, 4, properties=("formation_energy",), partial=("band_gap",), windows=(GAP,)),
    "power_factor_design": Case(
        20, 3, properties=("formation_energy", "band_gap"), partial=("power_factor",), windows=(POWER,)
    ),
    "random_generation": Case(20, 3, properties=("formation_energy",), windows=(), split="mp_20"),
}
UNIT = {"formation_energy": "eV/atom", "band_gap": "eV", "power_factor": "1"}


def build(card: ExperimentCard, settings: ScaleSettings, scale: str) -> Learned:
    case = CASES[card.target]
    targets = {card.target: DESIGN if case.windows else DRAWN, "reconstruction": RECONSTRUCTION}
    targets |= {name: Target("regression", UNIT[name]) for name in case.names}
    sizes = settings.n_train, settings.n_val, settings.n_test
    return Learned(
        data=Selection(card.dataset, case.properties, *sizes, where=case.rows, split=case.split, also=case.partial),
        representation=OrderedCrystals(case.sites, case.elements),
        targets={name: targets[name] for name in card.claims_by_target},
        learn=partial(learn, main=card.target, case=case, settings=settings),
        extras=element_features,
        extras_from="cgcnn_weights",
    )


def training(settings: ScaleSettings, case: Case) -> Training:
    """Weights of the losses as in the authors' two scripts."""
    weights = {"kl": 3.0, "properties": 20.0, "partial": 5.0} if case.partial else {"kl": 2.0, "properties": 10.0}
    return Training(settings.epochs, settings.batch_size, settings.lr, weights=weights, keep="last")


# ---------------------------------------------------------------------- data


class Matrices(Dataset):
    """Scaled matrices [n, rows, columns] with scaled properties [n, P], NaN where unknown."""

    def __init__(self, matrix: Tensor, properties: Tensor):
        self.matrix, self.properties = matrix, properties

    def __len__(self) -> int:
        return len(self.matrix)

    def __getitems__(self, rows: list[int]) -> tuple[dict, dict]:
        matrix = self.matrix[torch.as_tensor(rows)]
        return {"matrix": matrix}, {"matrix": matrix, "properties": self.properties[torch.as_tensor(rows)]}


class Scaled:
    """What a case learns from: crystals, their matrices from 0 to 1 and their properties [n, P], likewise; the scales
    are those of the training rows.
    """

    def __init__(self, bench: Bench, case: Case):
        self.case, self.ftcp = case, FTCP(case.sites, case.elements)
        self.crystals = unpacked(bench.arrays)
        self.train, self.test = bench.rows("train"), bench.rows("test")
        matrices = self.ftcp.encode(self.crystals, bench.arrays["element_features"])
        self.rows = RowScale.fit(matrices[self.train])
        self.matrix = torch.as_tensor(self.rows.apply(matrices))
        known = [bench.target(name) for name in case.properties]
        self.properties = np.stack(known + [bench.arrays[f"also.{name}"] for name in case.partial], axis=1)
        self.low = np.nanmin(self.properties[self.train], axis=0)
        self.span = np.nanmax(self.properties[self.train], axis=0) - self.low

    def items(self) -> Matrices:
        scaled = (self.properties - self.low) / self.span
        return Matrices(self.matrix, torch.as_tensor(scaled, dtype=torch.float32))

    def values(self, name: str) -> np.ndarray:
        """A property of all crystals [n], NaN where unknown."""
        return self.properties[:, self.case.names.index(name)]


class Generator:
    """A network, trained or not, between crystals and the latent space."""

    def __init__(self, model: nn.Module, data: Scaled, device: str):
        self.model, self.data, self.device = model.to(device).eval(), data, device

    @torch.inference_mode()
    def encode(self, rows: np.ndarray) -> np.ndarray:
        """Means of z of crystals of the data [m, L]."""
        parts = torch.as_tensor(rows).split(AT_ONCE)
        return torch.cat([self.model.encode(self.data.matrix[p].to(self.device))[0].cpu() for p in parts]).numpy()

    @torch.inference_mode()
    def predict(self, z: np.ndarray) -> np.ndarray:
        """Properties of latent points [m, P], in their units."""
        found = self.model.predict(torch.as_tensor(z, device=self.device)).cpu().double().numpy()
        return found * self.data.span + self.data.low

    @torch.inference_mode()
    def matrices(self, z: np.ndarray) -> np.ndarray:
        """Matrices of latent points [m, rows, columns], scaled back."""
        parts = torch.as_tensor(z, dtype=torch.float32).split(AT_ONCE)
        found = torch.cat([self.model.decode(part.to(self.device)).cpu() for part in parts])
        return self.data.rows.undo(found.double().numpy())


# --------------------------------------------------------------------- learn


def learn(bench: Bench, main: str, case: Case, settings: ScaleSettings) -> dict[str, Predicted | Made]:
    """settings.model: filters (of the first convolution; the others have twice and four times as many), dense, latent;
    second_rate, third_rate: learning rates after CHANGES, as shares of the first; perturbations: designs from each
    starting point, or tens of crystals drawn at random; step: standard deviation of a perturbation.
    """
    from replimat.training.property_vae import PropertyVAETask

    data = Scaled(bench, case)
    rates = tuple(zip(CHANGES, (settings.model["second_rate"], settings.model["third_rate"]), strict=True))
    task = partial(PropertyVAETask, partial=len(case.partial), rates=rates)
    torch.manual_seed(bench.seed)
    first = Generator(network(data, settings), data, bench.device)
    torch.manual_seed(bench.seed)
    model = bench.train(network(data, settings), data.items(), training(settings, case), task=task)
    trained = Generator(model, data, bench.device)
    made = designs if case.windows else drawn
    found = {main: made(bench, data, trained, first, settings)}
    found["reconstruction"] = reconstruction(data, trained, first)
    z = trained.encode(data.test)
    for column, name in enumerate(case.names):
        found[name] = regression(bench, data, name, trained.predict(z)[:, column])
    return found


def network(data: Scaled, settings: ScaleSettings) -> nn.Module:
    from replimat.models.ftcp import FTCPVAE

    filters = int(settings.model["filters"])
    return FTCPVAE(
        data.ftcp.rows,
        data.ftcp.columns,
        properties=len(data.case.properties),
        partial=len(data.case.partial),
        filters=(filters, 2 * filters, 4 * filters),
        dense=int(settings.model["dense"]),
        latent=int(settings.model["latent"]),
    )


def regression(bench: Bench, data: Scaled, name: str, predicted: np.ndarray) -> Predicted:
    """The property branch on the test crystals whose value is known, beside the mean and a forest on composition."""
    from sklearn.ensemble import RandomForestRegressor

    values, composition = data.values(name), bench.arrays["composition"]
    known = np.isfinite(values[data.test])
    train, test = data.train[np.isfinite(values[data.train])], data.test[known]
    forest = RandomForestRegressor(n_estimators=100, max_features=1 / 3, random_state=0, n_jobs=1)
    forest.fit(composition[train], values[train])
    trivial = {"mean": np.full(len(test), values[train].mean()), "random_forest": forest.predict(composition[test])}
    return Predicted(bench.ids[test], values[test], predicted[known], baselines=trivial)


# ------------------------------------------------------------ reconstruction


def reconstruction(data: Scaled, trained: Generator, first: Generator) -> Made:
    """The test crystals through the network and back."""
    mean = np.repeat(data.rows.undo(data.matrix[data.train].mean(dim=0, keepdim=True).numpy()), len(data.test), axis=0)
    tables = [given_back(data, one.matrices(one.encode(data.test))) for one in (trained, first)]
    return Made(tables[0], {"untrained": tables[1], "mean": given_back(data, mean)})


def given_back(data: Scaled, matrices: np.ndarray) -> pd.DataFrame:
    """A row for every test crystal. Matches are CDVAE's: a crystal that is not valid matches nothing; the other errors
    are those of the authors' script, entry by entry of the matrices.
    """
    from replimat.evaluation.matching import matches
    from replimat.evaluation.validity import compositionally_valid, structurally_valid

    true = data.crystals.take(data.test)
    crystals, failed = data.ftcp.decode(matrices)
    n = len(true)
    decoded = np.array([k for k in range(n) if k not in failed], dtype=int)
    rms = np.full(n, np.nan)
    if crystals is not None:
        usable = structurally_valid(crystals) & compositionally_valid(crystals)
        rms[decoded] = matches(crystals, true.take(decoded), usable)
    columns = {"share.match_rate": np.isfinite(rms), "mean.rmse": rms} | entry_errors(data, true, matrices)
    return judged([f"test-{k}" for k in range(n)], failed=failed, **columns)


def entry_errors(data: Scaled, true: Structures, matrices: np.ndarray) -> dict[str, np.ndarray]:
    """Errors of each matrix: right elements in %, lengths and angles in %, fractional coordinates of its sites [n]."""
    ftcp, wanted = data.ftcp, data.rows.undo(data.matrix[data.test].double().numpy())
    elements = [found[:, ftcp.elements_at, : ftcp.elements] for found in (matrices, wanted)]
    right = elements[0].argmax(axis=1) == elements[1].argmax(axis=1)
    lattice = np.concatenate(cell_parameters(true.cells), axis=1)  # [n, 6]
    error = np.abs(matrices[:, ftcp.lattice_at, :3].reshape(-1, 6) / lattice - 1)
    owner = np.repeat(np.arange(len(true)), true.sizes)
    slot = np.arange(len(owner)) - true.offsets[owner]
    shift = np.abs(matrices[:, ftcp.coordinates_at, :3][owner, slot] - fractional(true)).mean(axis=1)
    return {
        "mean.element_accuracy": 100 * right.mean(axis=1),
        "mean.lengths_mape": 100 * error[:, :3].mean(axis=1),
        "mean.angles_mape": 100 * error[:, 3:].mean(axis=1),
        "mean.coordinates_mae": np.add.reduceat(shift, true.offsets[:-1]) / true.sizes,
    }


# -------------------------------------------------------- random generation


def drawn(bench: Bench, data: Scaled, trained: Generator, first: Generator, settings: ScaleSettings) -> Made:
    """Crystals of latent points from the standard normal, as CDVAE's authors had FTCP make them."""
    from replimat.evaluation.coverage import CUTOFFS

    training, test = data.crystals.take(data.train), data.crystals.take(data.test[:COVERED])
    n = NEAREST * int(settings.model["perturbations"])
    z = np.random.default_rng(bench.seed).normal(size=(n, trained.model.latent))
    made = [data.ftcp.decode(one.matrices(z)) for one in (trained, first)]
    made.append((random_crystals(training, n, bench.seed), {}))
    own, *others = (judge_crystals(*one, training, test, CUTOFFS["mp20"]) for one in made)
    if (valid := valid_crystals(made[0][0], own)) is not None:
        bench.keep("crystals", **packed(valid.take(np.arange(min(LOOKED_AT, len(valid))))))
    return Made(own, dict(zip(("untrained", "random_structure"), others, strict=True)))


# ------------------------------------------------------------------- designs


def designs(bench: Bench, data: Scaled, trained: Generator, first: Generator, settings: ScaleSettings) -> Made:
    """Designs of every window by the trained network, by the untrained one, and random crystals."""
    windows, draws = data.case.windows, int(settings.model["perturbations"])
    window = np.repeat(np.arange(len(windows)), NEAREST * draws)
    made = []
    for generator in (trained, first):
        rng = np.random.default_rng(bench.seed)
        centres = np.concatenate([np.tile(generator.encode(starts(data, generator, w)), (draws, 1)) for w in windows])
        z = around(centres, settings.model["step"], rng)
        made.append(data.ftcp.decode(generator.matrices(z)))
    made.append((random_crystals(data.crystals.take(data.train), len(window), bench.seed), {}))
    tables = [judge(bench, data, *one, window) for one in made]
    keep(bench, data, made[0][0], tables[0], tables[2], window)
    own, *others = (without_properties(table) for table in tables)
    return Made(own, dict(zip(("untrained", "random_structure"), others, strict=True)))


def starts(data: Scaled, generator: Generator, window: Window) -> np.ndarray:
    """Training crystals that designs start from [NEAREST]: those that fulfil `where` with the property nearest to its
    aim. A property that few crystals have and that shall be as high as can be is predicted for all, as in the authors'
    script. Raises ValueError when there are too few.
    """
    usable = np.ones(len(data.train), dtype=bool)
    for name, (low, high) in window.where.items():
        values = data.values(name)[data.train]
        usable &= (values >= low) & (values <= high)
    name, aim = window.aim
    if np.isinf(aim):
        column = data.case.names.index(name)
        distance = -generator.predict(generator.encode(data.train))[:, column]
    else:
        distance = np.abs(data.values(name)[data.train] - aim)
    usable &= np.isfinite(distance)
    if usable.sum() < NEAREST:
        raise ValueError(f"{usable.sum()} training crystals to start from; {NEAREST} are needed.")
    order = np.argsort(np.where(usable, distance, np.inf), kind="stable")
    return data.train[order[:NEAREST]]


def around(centres: np.ndarray, step: float, rng: np.random.Generator) -> np.ndarray:
    """Latent points near others [m, L]."""
    return (centres + step * rng.normal(size=centres.shape)).astype(np.float32)


def judge(
    bench: Bench, data: Scaled, crystals: Structures | None, failed: dict[int, str], window: np.ndarray
) -> pd.DataFrame:
    """The shared judgement and what a design is for; window [n]: which one each is to hit. Columns `property.<name>`
    hold the predicted properties and are no metrics.
    """
    table = judge_crystals(crystals, failed, known=data.crystals, data=data.crystals.take(data.test))
    made = (table["of"] == MADE).to_numpy()
    decoded = np.flatnonzero(made & (table["failed"] == "").to_numpy())
    new, properties = np.full(made.sum(), np.nan), {}
    if crystals is not None:
        new[decoded] = new_composition(crystals, data.crystals)
    for name in sorted({name for one in data.case.windows for name in one.wanted}):
        properties[name] = np.full(made.sum(), np.nan)
        if crystals is not None:
            properties[name][decoded] = surrogate(name, crystals, bench.device)
    apart = table["share.structure_validity"].to_numpy()[made] == 1
    columns = scores(data, properties, window, apart, new)
    for name, values in (columns | {f"property.{name}": values for name, values in properties.items()}).items():
        table[name] = np.nan
        table.loc[made, name] = values
    return table


def scores(
    data: Scaled, properties: dict[str, np.ndarray], window: np.ndarray, apart: np.ndarray, new: np.ndarray
) -> dict[str, np.ndarray]:
    """Columns of n samples. Successes are asked of designs of a new composition; one that is no crystal, and so has no
    composition (NaN), is a miss. improvement: a success over the share of training crystals that lie in the window.
    """
    windows = data.case.windows
    hit = np.zeros(len(window), dtype=bool)
    chance = np.ones(len(window))
    for k, one in enumerate(windows):
        inside = np.logical_and.reduce([within(properties[name], span) for name, span in one.wanted.items()])
        hit |= (window == k) & inside
        chance[window == k] = share_inside(data, one)
    asked = np.where(new == 0, np.nan, 1.0)
    success = (hit & apart) * asked
    main = np.where(window == 0, 1.0, np.nan)
    found = {"share.success_rate": success * main, "mean.improvement": success / chance * main}
    if len(windows) > 1:
        found["share.success_rate_all"] = success
        centres = np.array([one.aim[1] for one in windows])[window]
        found["share.near_rate"] = (np.abs(properties[windows[0].aim[0]] - centres) <= NEAR) * apart * asked
    return found | {"share.hit_rate": (hit & apart) * main, "share.new_composition": new}


def within(values: np.ndarray, span: tuple[float, float]) -> np.ndarray:
    return (values >= span[0]) & (values <= span[1])


def share_inside(data: Scaled, window: Window) -> float:
    """Share of the training crystals with known properties that lie in a window: what a random choice would score."""
    values = {name: data.values(name)[data.train] for name in window.wanted}
    known = np.logical_and.reduce([np.isfinite(one) for one in values.values()])
    inside = np.logical_and.reduce([within(values[name], span) for name, span in window.wanted.items()])
    return float(max(inside[known].mean(), 1 / known.sum()))


def new_composition(made: Structures, known: Structures) -> np.ndarray:
    """Whether no known crystal has the formula [n]: the authors' own check of what is new."""
    from replimat.evaluation.validity import formulas

    old = set(formulas(known))
    return np.array([one not in old for one in formulas(made)], dtype=float)


def surrogate(name: str, crystals: Structures, device: str) -> np.ndarray:
    """A property as the CGCNN authors' weights predict it [n]; NaN where they do not know an element."""
    from replimat.experiments.properties import author_property
    from replimat.models.elements import N_ELEMENTS
    from replimat.sources.store import folder_of

    values = np.full(len(crystals), np.nan)
    known = np.flatnonzero(np.maximum.reduceat(crystals.numbers, crystals.offsets[:-1]) < N_ELEMENTS)
    if len(known):
        values[known] = author_property(name, crystals.take(known), folder_of("cgcnn_weights"), device)
    return values


def without_properties(table: pd.DataFrame) -> pd.DataFrame:
    """The table with metrics alone."""
    return table.drop(columns=[name for name in table if name.startswith("property.")])


# ------------------------------------------------------------------- figures


def keep(
    bench: Bench,
    data: Scaled,
    crystals: Structures | None,
    table: pd.DataFrame,
    chance: pd.DataFrame,
    window: np.ndarray,
) -> None:
    """Arrays of the figures: the first valid designs, and what was asked of all beside what they have."""
    rows = table[table["of"] == MADE]
    name = data.case.windows[0].aim[0]
    name = name if f"property.{name}" in rows else "band_gap"
    valid = valid_crystals(crystals, table)
    if valid is not None:
        first = rows[rows["share.validity"] == 1][:LOOKED_AT]
        captions = [
            f"{name.replace('_', ' ')} {value:.2f} {UNIT[name]}" if np.isfinite(value) else "not predicted"
            for value in first[f"property.{name}"]
        ]
        shown = valid.take(np.arange(len(first)))
        bench.keep("crystals", **packed(shown), captions=np.array(captions))
    bench.keep(
        "windows",
        of=np.array(name.replace("_", " ")),
        unit=np.array(UNIT[name]),
        bounds=np.array([one.wanted[name] for one in data.case.windows]),
        window=window,
        made=rows[f"property.{name}"].to_numpy(),
        success=(rows["share.success_rate_all"] if len(data.case.windows) > 1 else rows["share.success_rate"]) == 1,
        apart=rows["share.structure_validity"].to_numpy() == 1,
        chance=chance[chance["of"] == MADE][f"property.{name}"].to_numpy(),
        training=data.values(name)[data.train],
    )
