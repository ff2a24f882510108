"""Kim et al. 2020: crystals of Mg, Mn and O for a composition that is asked for, and which might make a photoanode.

The paper relaxes and screens with DFT what the network makes. Here CHGNet relaxes it; energies above the hull are its,
and those of the CGCNN authors' network beside them; ions in water are as measured; gaps are those of MEGNet for HSE.
"""

from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from replimat.cards import ExperimentCard, ScaleSettings
from replimat.datasets.base import Structures
from replimat.evaluation.generation import MADE
from replimat.experiments.base import Learned, Made, Selection, Target
from replimat.experiments.bench import Bench
from replimat.representations.cell_points import CellPoints, composition, crystals_of, doubled
from replimat.representations.conversion import packed, unpacked
from replimat.training.settings import Training

REFERENCES = "mg_mn_o"  # the phases a hull is made of, whichever crystals are learned
NUMBERS, SYMBOLS = [12, 25, 8], ["Mg", "Mn", "O"]
WHERE = {"mg_mn_o": ("learned", 1.0)}  # its other phases only make the hull
REQUIRE = {"mg_mn_o": "learned", "mg_mn_o_images": "n_atoms"}
SHOWN = 10
DECAYS = 50  # of the learning rate
RADII = np.array([1.41, 1.39, 0.66])  # angstrom, covalent (Cordero et al. 2008), as ASE has them
LIMITS = 0.7 * (RADII[:, None] + RADII)  # no two atoms closer than this

NEAR_HULL = 0.2  # eV/atom
ACIDITIES, POTENTIAL = (0.0, 7.0, 14.0), 1.5  # pH; V against the reversible hydrogen electrode
STABLE_IN_WATER = 0.5  # eV/atom, at the best of these pH
GAPS = (1.6, 3.0)  # eV
RELAX_FMAX, RELAX_STEPS = 0.1, 40  # eV/angstrom
AT_REST = 0.5  # eV/angstrom, as of the crystals that are learned
SCREENED = (
    "share.relaxed",
    "share.new",
    "mean.e_hull",
    "mean.e_hull_cgcnn",
    "share.near_hull",
    "mean.water_decomposition",
    "share.stable_in_water",
    "mean.hse_gap",
    "share.gap_in_window",
    "count.count",
)
UNITS = {
    "emd_density": "g/cm^3",
    "e_hull": "eV/atom",
    "e_hull_cgcnn": "eV/atom",
    "water_decomposition": "eV/atom",
    "hse_gap": "eV",
}


def build(card: ExperimentCard, settings: ScaleSettings, scale: str) -> Learned:
    where = (WHERE[card.dataset],) if card.dataset in WHERE else ()
    sizes = (settings.n_train, settings.n_val, settings.n_test)
    return Learned(
        data=Selection(card.dataset, (REQUIRE[card.dataset],), *sizes, where=where),
        representation=CellPoints(),
        targets={card.target: Target("generation", primary="plausibility", units=UNITS)},
        learn=partial(learn, target=card.target, settings=settings),
        extras=references,
        extras_from=REFERENCES,
    )


def training(settings: ScaleSettings, steps: int) -> Training:
    """Adam whose rate falls as the authors' does in 501 epochs: x 0.95 fifty times, here as a smooth curve.

    steps: of an epoch.
    """
    return Training(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        lr=settings.lr,
        schedule="exponential",
        gamma=0.95,
        decay_steps=max(1, settings.epochs * steps // DECAYS),
        keep="last",
    )


def references(folder: Path) -> dict[str, np.ndarray]:
    """Phases of the hull, for the prepared file: crystals and their energies by CHGNet, eV/atom."""
    from replimat.datasets.loading import load

    data = load(REFERENCES)
    arrays = packed(data.structures) | {"energy": data.target("energy_per_atom")}
    return {f"reference.{name}": values for name, values in arrays.items()}


def learn(bench: Bench, target: str, settings: ScaleSettings) -> dict[str, Made]:
    from replimat.models.crystal_gan import CrystalGAN
    from replimat.training.adversarial import AdversarialTask

    options = dict(settings.model)
    own = ("per_composition", "samples", "relaxed", "critic_steps")
    per_composition, samples, relaxed, critic_steps = (int(options.pop(name)) for name in own)
    real = torch.as_tensor(bench.arrays["image"])[bench.rows("train")]
    images = torch.cat([real, doubled(real)])
    counts = composition(images)
    rows = evenly(counts.numpy(), per_composition)
    compositions = None if options.pop("ask") == "all" else torch.unique(counts, dim=0)
    model = CrystalGAN(settings.lr, compositions=compositions, **options)
    untrained = deepcopy(model.generator).eval()
    recipe = training(settings, steps=-(-len(rows) // settings.batch_size))
    task = partial(AdversarialTask, critic_steps=critic_steps)
    val = rows[: settings.batch_size]  # nothing is chosen by it
    bench.train(model, Images(images), recipe, task=task, train_rows=rows, val_rows=val)

    asked = wanted(counts, samples)
    crystals = unpacked(bench.arrays)
    known = crystals.take(bench.rows("train"))
    judge = Judge(known, crystals.take(bench.rows("test")), Phases.of(bench.arrays), bench.device, relaxed)
    made = judge(*decoded(model.generator, asked), asked.numpy(), "made")
    keep(bench, made)
    baselines = {
        "untrained": judge(*decoded(untrained, asked), asked.numpy(), "untrained").table,
        "random_structure": judge(random_of(asked.numpy(), known), {}, asked.numpy(), "random").table,
    }
    return {target: Made(made.table, baselines)}


class Images(Dataset):
    """Images [n, 30, 3] as the model's one input; a second item of each batch tells its size."""

    def __init__(self, images: Tensor):
        self.images = images.float()

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, rows: list[int]) -> tuple[dict, Tensor]:
        image = self.images[torch.as_tensor(rows)]
        return {"image": image}, image[:, 0, 0]


# ------------------------------------------------------------------------------------------------- what is made


def evenly(counts: np.ndarray, each: int) -> np.ndarray:
    """Rows in which every composition of counts [n, 3] stands `each` times, its crystals in turn."""
    _, owner = np.unique(counts, axis=0, return_inverse=True)
    owner = owner.reshape(-1)
    return np.concatenate([np.resize(np.flatnonzero(owner == k), each) for k in range(owner.max() + 1)])


def wanted(counts: Tensor, n: int) -> Tensor:
    """Compositions to ask for [n, 3]: those that were learned, all equally often, in a fixed random order."""
    known = torch.unique(counts, dim=0)
    order = torch.cat([torch.arange(len(known))] * (n // len(known) + 1))[:n]
    return known[order[torch.randperm(n, generator=torch.Generator().manual_seed(0))]]


@torch.inference_mode()
def decoded(generator, asked: Tensor) -> tuple[Structures | None, dict[int, str]]:
    """Crystals made for the compositions asked for [n, 3], and why some samples are none. The noise is fixed."""
    noise = torch.randn(len(asked), generator.latent, generator=torch.Generator().manual_seed(1))
    return crystals_of(generator.cpu().eval()(noise, asked).numpy())


def random_of(asked: np.ndarray, like: Structures, seed: int = 0) -> Structures:
    """Crystals of the compositions [n, 3] with atoms anywhere, in random cells of a volume per atom found in `like`."""
    from replimat.experiments.random_structures import random_cell

    rng = np.random.default_rng(seed)
    volumes = np.abs(np.linalg.det(like.cells)) / like.sizes
    found = []
    for counts in asked:
        cell = random_cell(rng, float(rng.choice(volumes)) * counts.sum())
        found.append((np.repeat(NUMBERS, counts), rng.random((counts.sum(), 3)) @ cell, cell))
    return Structures.pack(found, periodic=True)


def keep(bench: Bench, made: "Judged") -> None:
    """The first crystals that passed every check, as they were made; and those that were relaxed, as they became."""
    if made.plausible is None:
        return
    rows = np.arange(min(SHOWN, len(made.plausible)))
    captions = np.array([f"sample {made.numbers[row]}" for row in rows])
    bench.keep("crystals", **packed(made.plausible.take(rows)), captions=captions)
    if made.relaxed is not None:
        bench.keep("relaxed", **packed(made.relaxed), captions=np.array(made.captions))


# -------------------------------------------------------------------------------------------------- judgement


@dataclass(frozen=True)
class Phases:
    """Known crystals and their energies by CHGNet, eV/atom [m]."""

    structures: Structures
    energy: np.ndarray

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray]) -> "Phases":
        own = {k.removeprefix("reference."): v for k, v in arrays.items() if k.startswith("reference.")}
        return cls(unpacked(own), own["energy"])


@dataclass(frozen=True)
class Judged:
    """The table of samples; those that passed every check and their numbers; those relaxed, and what to say of them."""

    table: pd.DataFrame
    plausible: Structures | None = None
    numbers: np.ndarray | None = None
    relaxed: Structures | None = None
    captions: tuple[str, ...] = ()


class Judge:
    """Judges samples: first as they are, then the first few that pass after a relaxation.

    known: crystals that are not new; data: crystals whose distributions are compared; most: how many are relaxed.
    """

    def __init__(self, known: Structures, data: Structures, phases: Phases, device: str, most: int):
        self.known, self.data, self.phases, self.device, self.most = known, data, phases, device, most

    def __call__(self, made: Structures | None, failed: dict[int, str], asked: np.ndarray, prefix: str) -> Judged:
        from replimat.experiments.judging import judge_crystals

        table = judge_crystals(made, failed, self.known, self.data, prefix=prefix)
        own = (table["of"] == MADE).to_numpy()
        names = ("composition_match", "reasonable_distances", "plausibility")
        columns = {f"share.{name}": np.where(own, 0.0, np.nan) for name in names}
        rows = np.array([k for k in range(len(asked)) if k not in failed], dtype=int)
        if made is None:
            return Judged(table.assign(**columns, **_unknown(table)))
        match = (_counts(made) == asked[rows]).all(axis=1)
        apart = reasonable(made)
        valid = table["share.validity"].to_numpy()[rows] == 1
        for name, values in zip(names, (match, apart, match & apart & valid), strict=True):
            columns[f"share.{name}"][rows] = values
        table = table.assign(**columns)
        passed = np.flatnonzero(match & apart & valid)
        if not len(passed):
            return Judged(table.assign(**_unknown(table)))
        plausible = made.take(passed)
        screened, crystals, captions = self._screen(plausible.take(np.arange(min(self.most, len(passed)))))
        found = _unknown(table)
        for name, values in screened.items():
            found[name][rows[passed[: len(values)]]] = values
        return Judged(table.assign(**found), plausible, rows[passed], crystals, captions)

    def _screen(self, chosen: Structures) -> tuple[dict[str, np.ndarray], Structures | None, tuple[str, ...]]:
        """Columns [k] of the crystals relaxed, those that came to rest, and a caption of each."""
        if not len(chosen):
            return {}, None, ()
        from replimat.datasets.chgnet_relaxation import relaxed
        from replimat.evaluation.matching import novel, unique

        found = [relaxed(chosen[k], RELAX_FMAX, RELAX_STEPS) for k in range(len(chosen))]
        rest = np.array([not one.failed and one.force <= AT_REST for one in found])
        columns = {name: np.full(len(chosen), np.nan) for name in SCREENED}
        columns["share.relaxed"] = rest.astype(float)
        columns["count.count"] = np.zeros(len(chosen))
        if not rest.any():
            return columns, None, ()
        crystals = Structures.pack([one.crystal for one, ok in zip(found, rest, strict=True) if ok], periodic=True)
        energy = np.array([one.energy for one, ok in zip(found, rest, strict=True) if ok])
        new = unique(crystals)
        for others in (self.known, self.data, self.phases.structures):
            new &= novel(crystals, others)
        values = self._properties(crystals, energy)
        passes = new & (values["mean.e_hull"] <= NEAR_HULL) & (values["mean.water_decomposition"] <= STABLE_IN_WATER)
        passes &= (values["mean.hse_gap"] >= GAPS[0]) & (values["mean.hse_gap"] <= GAPS[1])
        for name, given in (values | {"share.new": new, "count.count": passes}).items():
            columns[name][rest] = given
        said = zip(_counts(crystals), values["mean.e_hull"], values["mean.hse_gap"], strict=True)
        captions = (f"Mg{a}Mn{b}O{c}, {e:.2f} eV/atom above the hull, gap {g:.1f} eV" for (a, b, c), e, g in said)
        return columns, crystals, tuple(captions)

    def _properties(self, crystals: Structures, energy: np.ndarray) -> dict[str, np.ndarray]:
        """Stability on the hull by two potentials, in water, and the gap, of relaxed crystals [k]."""
        from replimat.datasets.convex_hull import above_hull, formation_energies
        from replimat.experiments.multifidelity import multifidelity_gap
        from replimat.experiments.properties import author_property
        from replimat.physics.pourbaix import decomposition_energies
        from replimat.sources.store import verified_folder

        counts, known = _counts(crystals), _counts(self.phases.structures)
        reference = known, self.phases.energy
        formed, phases = (formation_energies(*each, *reference, SYMBOLS) for each in ((counts, energy), reference))
        hull = above_hull(counts, formed, known, phases, SYMBOLS)
        folder = verified_folder("cgcnn_weights")
        theirs = [
            author_property("formation_energy", s, folder, self.device) for s in (crystals, self.phases.structures)
        ]
        alone = (known > 0).sum(axis=1) == 1
        theirs[1] = np.where(alone, 0.0, theirs[1])  # an element's formation energy needs no prediction
        water = decomposition_energies(counts, formed, known, phases, SYMBOLS, ACIDITIES, POTENTIAL).min(axis=1)
        gap = multifidelity_gap(crystals, verified_folder("megnet_weights"), "HSE", self.device)
        return {
            "mean.e_hull": hull,
            "mean.e_hull_cgcnn": above_hull(counts, theirs[0], known, theirs[1], SYMBOLS),
            "share.near_hull": hull <= NEAR_HULL,
            "mean.water_decomposition": water,
            "share.stable_in_water": water <= STABLE_IN_WATER,
            "mean.hse_gap": gap,
            "share.gap_in_window": (gap >= GAPS[0]) & (gap <= GAPS[1]),
        }


def reasonable(structures: Structures) -> np.ndarray:
    """Whether no two atoms, images included, are closer than LIMITS [n]."""
    from ase.neighborlist import neighbor_list

    from replimat.experiments.properties import THINNEST, thickness
    from replimat.representations.conversion import as_atoms

    found = thickness(structures.cells) >= THINNEST
    limits = {(SYMBOLS[a], SYMBOLS[b]): LIMITS[a, b] for a in range(len(SYMBOLS)) for b in range(len(SYMBOLS))}
    for k in np.flatnonzero(found):
        (atoms,) = as_atoms(structures.take([k]))
        found[k] = len(neighbor_list("i", atoms, limits)) == 0
    return found


def _counts(structures: Structures) -> np.ndarray:
    from replimat.datasets.convex_hull import element_counts

    return element_counts(structures, NUMBERS)


def _unknown(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Columns of the screening for samples that were not screened."""
    return {name: np.full(len(table), np.nan) for name in SCREENED}
