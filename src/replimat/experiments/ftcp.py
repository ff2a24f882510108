"""Ren et al. 2022: crystals as invertible matrices, an autoencoder that orders them by their properties, and designs
from around the training crystals nearest to a target.
"""

from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import nn

from replimat.cards import ExperimentCard, ScaleSettings
from replimat.datasets.base import Structures
from replimat.evaluation.generation import judged
from replimat.experiments.base import Learned, Made, Predicted, Selection, Target
from replimat.experiments.bench import Bench
from replimat.experiments.ftcp_designs import LOOKED_AT, NEAREST, UNIT, designs
from replimat.experiments.ftcp_latent import Case, Generator, Scaled, Window
from replimat.experiments.judging import UNITS, judge_crystals, valid_crystals
from replimat.experiments.random_structures import random_crystals
from replimat.experiments.shared import element_features
from replimat.representations.conversion import packed
from replimat.representations.ftcp import OrderedCrystals, cell_parameters, fractional
from replimat.training.settings import Training

CHANGES = 0.25, 0.5  # shares of the epochs after which the learning rate changes
COVERED = 1000  # test crystals that random ones are held against
DESIGN = Target("generation", primary="success_rate", units=UNITS)
DRAWN = Target("generation", primary="validity", units=UNITS)
RECONSTRUCTION = Target(
    "generation",
    primary="match_rate",
    units={"element_accuracy": "%", "lengths_mape": "%", "angles_mape": "%"},
)


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
