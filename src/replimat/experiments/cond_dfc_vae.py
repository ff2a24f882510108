"""Court et al. 2020: crystals as densities on a grid, made by a conditional autoencoder; a segmentation network finds
the atoms in them. And eight properties of crystals, predicted by a graph network.

A crystal is conditioned on its formation energy. That is known of few of the crystals at hand, so for all of them, and
for what is made, the CGCNN authors' released weights predict it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from replimat.cards import ExperimentCard, ScaleSettings
from replimat.datasets.base import Structures
from replimat.errors import DataError
from replimat.evaluation.generation import MADE, judged
from replimat.experiments import cgcnn
from replimat.experiments.base import Learned, Made, Selection, Supervised, Target
from replimat.experiments.bench import Bench
from replimat.experiments.judging import UNITS, judge_crystals, valid_crystals
from replimat.experiments.properties import author_property
from replimat.experiments.random_structures import random_crystals
from replimat.experiments.shared import ROWS, element_features, selection
from replimat.representations.conversion import packed, unpacked
from replimat.representations.voxels import VoxelSites, crystal_of, from_origin, padded, voxelise
from replimat.sources.store import verified_folder
from replimat.training.settings import Scaling, Training

WEIGHTS = "cgcnn_weights"
OPTICAL = ("refractive_index", "dielectric_electronic")  # of the same rows
BINS = 10  # of the formation energy, with as many training crystals in each
LOSSES = {"reconstruction": 1.0, "perceptual": 0.5, "kl": 3e-4}
AT_ONCE = 64  # crystals that pass the networks in one step of an evaluation
LOOKED_AT = 5  # crystals of each kind kept to be looked at
CLIP = 1.0  # norm of the gradient of the autoencoder
CUTOFFS = {"perov5": "perov5", "cubic_pool": "mp20"}  # of coverage, CDVAE's by dataset
SPREAD = 0.5  # standard deviation around the latent point of a known crystal
GENERATION = Target("generation", primary="cov_p", units=UNITS)  # validity alone is won by making one element again
Judge = Callable[[Structures | None, dict[int, str]], pd.DataFrame]
RECONSTRUCTION = {
    "position_emd": "angstrom",
    "edge_error": "angstrom",
    "edge_change": "%",
    "bond_change": "%",
    "formation_energy_difference": "eV/atom",
}


@dataclass(frozen=True)
class ConditionedSites:
    """VoxelSites and `condition`: the formation energy that CGCNN's released weights predict, eV/atom [n]."""

    version: ClassVar[int] = 1  # raise when the arrays change for the same parameters

    def parameters(self) -> dict:
        return {"sites": VoxelSites.version}

    def __call__(self, structures: Structures, progress: bool = True) -> dict[str, np.ndarray]:
        energy = author_property("formation_energy", structures, verified_folder(WEIGHTS))
        return VoxelSites()(structures, progress) | {"condition": energy}


def build(card: ExperimentCard, settings: ScaleSettings, scale: str) -> Learned | Supervised:
    if card.target not in ("reconstruction", "random_generation"):
        return property_network(card, settings, scale)
    return Learned(
        data=rows_of(card, settings),
        representation=ConditionedSites(),
        targets={
            "reconstruction": Target("generation", primary="match_rate", units=RECONSTRUCTION),
            "random_generation": GENERATION,
            "generation_around": GENERATION,
        },
        learn=partial(learn, settings=settings, cutoffs=CUTOFFS[card.dataset]),
        extras_from=WEIGHTS,
    )


def rows_of(card: ExperimentCard, settings: ScaleSettings) -> Selection:
    """CDVAE's split of Perov-5; of the pool the crystals of one space group, where the settings name one."""
    sizes = settings.n_train, settings.n_val, settings.n_test
    if card.dataset == "perov5":
        return Selection(card.dataset, ("edge",), *sizes, split="cdvae")
    group = settings.model.get("space_group")
    return Selection(card.dataset, ("family",), *sizes, where=(("space_group", float(group)),) if group else ())


def property_network(card: ExperimentCard, settings: ScaleSettings, scale: str) -> Supervised:
    """The authors' graph network is CGCNN with a single convolution and a wider hidden layer. Below paper scale one
    cycle of the learning rate, which needs fewer epochs.
    """
    together = {"mp_dielectric": OPTICAL} if card.target in OPTICAL else {}
    schedule = "constant" if scale == "paper" else "onecycle"
    return Supervised(
        target=card.target,
        data=selection(card, settings, ROWS | together),
        representation=cgcnn.REPRESENTATION,
        model=graph_network,
        training=Training(settings.epochs, settings.batch_size, settings.lr, schedule=schedule),
        scaling=Scaling(references="mean"),
        extras=element_features,
        extras_from=WEIGHTS,
    )


def graph_network(arrays: dict):
    from replimat.models.cgcnn import CGCNN

    return CGCNN(arrays["element_features"], h_fea=128, n_conv=1)


# --------------------------------------------------------------------- learn


class Crystals:
    """What is learned from: crystals, their sites and the bin of each one's formation energy [n]; the bins' edges are
    quantiles of the training rows.
    """

    def __init__(self, bench: Bench):
        self.structures = unpacked(bench.arrays)
        self.sites = padded(bench.arrays)
        self.energy = bench.arrays["condition"]  # eV/atom [n]
        self.train, self.test = bench.rows("train"), bench.rows("test")
        self.bins = torch.as_tensor(quantile_bins(self.energy, self.energy[self.train]))


def quantile_bins(values: np.ndarray, of: np.ndarray, bins: int = BINS) -> np.ndarray:
    """The bin of each value [n], 0 to bins - 1; their edges divide `of` into equal parts."""
    return np.digitize(values, np.quantile(of, np.arange(1, bins) / bins))


def learn(bench: Bench, settings: ScaleSettings, cutoffs: str) -> dict[str, Made]:
    """settings.model: grid; width and levels of the segmentation network; filters of the first convolution of the
    autoencoder (each next one has twice as many) and pools; latent; turns: whether training crystals are turned at
    random; unet_epochs, unet_lr; samples: crystals made at random.
    """
    from replimat.training.segmentation import FeatureConsistentTask, SegmentationTask, SiteRows

    crystals, model = Crystals(bench), settings.model
    data = SiteRows(crystals.sites, crystals.bins)
    torch.manual_seed(bench.seed)
    first = Generator(*networks(settings), crystals, bench)
    torch.manual_seed(bench.seed)
    unet, vae = networks(settings)
    how = {"grid": int(model["grid"]), "turns": bool(model["turns"])}
    recipe = Training(int(model["unet_epochs"]), settings.batch_size, model["unet_lr"], schedule=model["schedule"])
    unet = bench.train(unet, data, recipe, name="unet", task=partial(SegmentationTask, **how))
    recipe = Training(
        settings.epochs, settings.batch_size, settings.lr, schedule=model["schedule"], weights=LOSSES, clip=CLIP
    )
    vae = bench.train(vae, data, recipe, name="vae", task=partial(FeatureConsistentTask, features=unet, **how))
    makers, n = (Generator(unet, vae, crystals, bench), first), int(model["samples"])
    found = {"reconstruction": reconstruction(crystals, *makers, bench)}
    judge = judge_of(crystals, cutoffs)
    chance = judge(random_crystals(crystals.structures.take(crystals.train), n, bench.seed), {})
    found["random_generation"], at_random = generation(makers, [one.from_prior(n) for one in makers], judge, chance)
    found["generation_around"], around = generation(makers, [one.around_known(n) for one in makers], judge, chance)
    keep(bench, {"at random": at_random, "around a known one": around})
    return found


def networks(settings: ScaleSettings) -> tuple:
    """The segmentation network and the autoencoder of some settings."""
    from replimat.models.cond_dfc_vae import AtomUNet, VoxelVAE

    model = settings.model
    filters = tuple(int(model["filters"]) * 2**level for level in range(int(model["pools"])))
    return AtomUNet(int(model["width"]), int(model["levels"])), VoxelVAE(
        int(model["grid"]), filters, int(model["latent"]), BINS
    )


class Generator:
    """Both networks, trained or not: crystals to latent points, and these back to crystals."""

    def __init__(self, unet, vae, crystals: Crystals, bench: Bench):
        self.unet, self.vae = unet.to(bench.device).eval(), vae.to(bench.device).eval()
        self.crystals, self.bench = crystals, bench

    @torch.inference_mode()
    def encode(self, rows: np.ndarray) -> Tensor:
        """A latent point of each crystal, drawn as the authors' network does when it is applied [m, L]."""
        mean, log_variance = self.posterior(torch.as_tensor(rows))
        random = torch.Generator().manual_seed(self.bench.seed)
        return mean + torch.exp(log_variance / 2) * torch.randn(mean.shape, generator=random)

    def posterior(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latent points of crystals [m, L]."""
        found = []
        for part in rows.split(AT_ONCE):
            voxels, _ = voxelise(self.crystals.sites.take(part).to(self.bench.device), self.vae.grid)
            found.append(self.vae.encode(voxels, self.crystals.bins[part].to(self.bench.device)))
        mean, log_variance = (torch.cat(parts).cpu() for parts in zip(*found, strict=True))
        return mean, log_variance

    def from_prior(self, n: int) -> tuple[Tensor, Tensor]:
        """Latent points drawn from the prior [n, L], in bins drawn evenly [n]."""
        random = torch.Generator().manual_seed(self.bench.seed)
        return torch.randn(n, self.vae.latent, generator=random), torch.randint(BINS, (n,), generator=random)

    @torch.inference_mode()
    def around_known(self, n: int) -> tuple[Tensor, Tensor]:
        """Latent points around the means of training crystals drawn at random [n, L], in the bins of these [n]: how the
        authors generate.
        """
        random = torch.Generator().manual_seed(self.bench.seed)
        train = torch.as_tensor(self.crystals.train)
        rows = train[torch.randint(len(train), (n,), generator=random)]
        steps = SPREAD * torch.randn(n, self.vae.latent, generator=random)
        return self.posterior(rows)[0] + steps, self.crystals.bins[rows]

    @torch.inference_mode()
    def decode(self, z: Tensor, bins: Tensor) -> tuple[Structures | None, dict[int, str]]:
        """Crystals of latent points [m, L] in bins [m], and those that are none: number -> reason."""
        made, failed = [], {}
        for part in torch.arange(len(z)).split(AT_ONCE):
            voxels = self.vae.decode(z[part].to(self.bench.device), bins[part].to(self.bench.device))
            found = self.unet(voxels)
            parts = voxels, found.presence.sigmoid(), found.species.argmax(dim=1)
            for k, one in zip(
                part.tolist(), zip(*(values.cpu().numpy() for values in parts), strict=True), strict=True
            ):
                try:
                    made.append(crystal_of(*one))
                except DataError as error:
                    failed[k] = str(error)
        return (Structures.pack(made, periodic=True) if made else None), failed


# ------------------------------------------------------------ reconstruction


def reconstruction(crystals: Crystals, trained: Generator, first: Generator, bench: Bench) -> Made:
    """The test crystals through the networks and back; beside them untrained networks and random crystals."""
    rows = crystals.test
    tables = [
        given_back(crystals, *one.decode(one.encode(rows), crystals.bins[rows]), bench) for one in (trained, first)
    ]
    by_chance = random_crystals(crystals.structures.take(crystals.train), len(rows), bench.seed)
    chance = given_back(crystals, by_chance, {}, bench)
    return Made(tables[0], {"untrained": tables[1], "random_structure": chance})


def given_back(crystals: Crystals, made: Structures | None, failed: dict[int, str], bench: Bench) -> pd.DataFrame:
    """A row for every test crystal. Matches are CDVAE's: a crystal that is not valid matches nothing; the other columns
    compare what could be decoded with the original, as the authors' evaluation does.
    """
    from replimat.evaluation.matching import matches
    from replimat.evaluation.validity import compositionally_valid, structurally_valid

    true = crystals.structures.take(crystals.test)
    n = len(true)
    decoded = np.array([k for k in range(n) if k not in failed], dtype=int)
    columns = {name: np.full(n, np.nan) for name in COMPARED}
    columns["share.match_rate"] = np.zeros(n)
    if made is not None:
        wanted = true.take(decoded)
        usable = structurally_valid(made) & compositionally_valid(made)
        rms = matches(made, wanted, usable)
        columns["share.match_rate"][decoded], columns["mean.rmse"][decoded] = np.isfinite(rms), rms
        for name, values in compared(made, wanted).items():
            columns[name][decoded] = values
        energy = predicted_energy(made, bench.device)
        columns["mean.formation_energy_difference"][decoded] = np.abs(energy - crystals.energy[crystals.test][decoded])
    return judged([f"test-{k}" for k in range(n)], failed=failed, **columns)


COMPARED = (
    "mean.rmse",
    "share.same_formula",
    "share.same_number_of_atoms",
    "mean.position_emd",
    "mean.atoms_error",
    "mean.edge_error",
    "mean.edge_change",
    "mean.bond_change",
    "mean.formation_energy_difference",
)


def compared(made: Structures, true: Structures) -> dict[str, np.ndarray]:
    """Errors of each crystal [n]: of its positions, whatever the elements, without periodic images and per atom of the
    smaller one (angstrom), of its number of atoms, of its edges (angstrom, %) and of its shortest bond (%).
    """
    from replimat.evaluation.validity import closest, formulas

    edges, wanted = (np.linalg.norm(one.cells, axis=2) for one in (made, true))
    bonds, between = closest(made), closest(true)
    bonds = np.where(np.isfinite(bonds) & np.isfinite(between), bonds, np.nan)  # a single atom has none
    same = [one == other for one, other in zip(formulas(made), formulas(true), strict=True)]
    return {
        "share.same_formula": np.array(same, dtype=float),
        "share.same_number_of_atoms": (made.sizes == true.sizes).astype(float),
        "mean.position_emd": np.array([position_distance(made[s], true[s]) for s in range(len(true))]),
        "mean.atoms_error": np.abs(made.sizes - true.sizes).astype(float),
        "mean.edge_error": np.abs(edges - wanted).mean(axis=1),
        "mean.edge_change": 100 * np.abs(edges / wanted - 1).mean(axis=1),
        "mean.bond_change": 100 * np.abs(bonds / between - 1),
    }


def position_distance(made: tuple, true: tuple) -> float:
    """Mean distance of paired atoms under the best assignment, angstrom; the true ones moved to the origin, as the
    network sees them.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    _, x, cell = true
    between = cdist(made[1], from_origin(x @ np.linalg.inv(cell)) @ cell)
    return float(between[linear_sum_assignment(between)].mean())


def predicted_energy(made: Structures, device: str) -> np.ndarray:
    """Formation energy by CGCNN's released weights, eV/atom [n]; NaN where there is no answer."""
    return author_property("formation_energy", made, verified_folder(WEIGHTS), device)


# ---------------------------------------------------------------- generation


def generation(
    makers: tuple[Generator, ...], drawn: list[tuple[Tensor, Tensor]], judge: Judge, chance: pd.DataFrame
) -> tuple[Made, Structures | None]:
    """Crystals of latent points and bins by the trained and the untrained networks, beside the table of random ones;
    and the valid ones of the trained networks.
    """
    made = [one.decode(*points) for one, points in zip(makers, drawn, strict=True)]
    tables = [judge(*one) for one in made]
    judgement = Made(tables[0], {"untrained": tables[1], "random_structure": chance})
    return judgement, valid_crystals(made[0][0], tables[0])


def judge_of(crystals: Crystals, cutoffs: str) -> Judge:
    """The table of what was made (None where nothing was) and of what failed, held against training and test rows."""
    from replimat.evaluation import coverage

    known, data = (crystals.structures.take(rows) for rows in (crystals.train, crystals.test))
    cutoff = coverage.CUTOFFS[cutoffs]
    return lambda made, failed: covered_and_new(judge_crystals(made, failed, known=known, data=data, cutoffs=cutoff))


def covered_and_new(table: pd.DataFrame) -> pd.DataFrame:
    """With a column for samples that are valid, unique, novel and near the data at once: copies of training crystals
    are near it, and are none of these.
    """
    both = ((table["share.novelty"] == 1) & (table["share.cov_p"] == 1)).astype(float)
    return table.assign(**{"share.covered_and_new": both.where(table["of"] == MADE)})


def keep(bench: Bench, valid: dict[str, Structures | None]) -> None:
    """The first valid crystals of each way of drawing them, to be looked at."""
    shown = {how: made.take(np.arange(min(LOOKED_AT, len(made)))) for how, made in valid.items() if made is not None}
    if shown:
        crystals = [made[s] for made in shown.values() for s in range(len(made))]
        captions = np.repeat(list(shown), [len(made) for made in shown.values()])
        bench.keep("crystals", **packed(Structures.pack(crystals, periodic=True)), captions=captions)
