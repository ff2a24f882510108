"""Hoffmann and Noé 2019: molecules C7O2H10 from a GAN of Euclidean distance matrices.

It learns from half of the isomers in QM9. Judged is what it makes of new noise: whether the matrices are Euclidean in
three dimensions, whether the points are molecules, which of these are known, their conformations, distances and
energies.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from replimat.cards import ExperimentCard, ScaleSettings
from replimat.datasets.base import Structures
from replimat.experiments.base import Learned, Made, Selection, Target
from replimat.experiments.bench import Bench
from replimat.experiments.judging import require
from replimat.training.settings import Training

FORMULA = "C7H10O2"
ATOMS = {6: 7, 8: 2, 1: 10}  # atomic number -> how many, in the order of the atoms
SYMBOLS = {6: "c", 8: "o", 1: "h"}
PAIRS = ((6, 6), (6, 1), (6, 8), (1, 1), (1, 8), (8, 8))  # as in figure 1 of the paper
EDGES = np.arange(0.0, 11.05, 0.1)  # angstrom; the longest distance of the data is 10.4
AVERAGED = 0.995  # decay of the average of the weights over steps of the critic
SLOWED = 0.01  # of the learning rate, at the end of the training
BETAS = (0.5, 0.9)  # of Adam
LOOKED_AT = 10
AT_ONCE = 1000  # samples made in one step
UNITS = {"emd_energy": "eV"} | {f"distance_emd_{SYMBOLS[a]}{SYMBOLS[b]}": "angstrom" for a, b in PAIRS}


@dataclass(frozen=True)
class OrderedMolecules:
    """What the prepared file holds: molecules whose atoms stand in the order of `elements`, within an element in that
    of the data.
    """

    elements: tuple[int, ...] = tuple(ATOMS)
    version: int = 1

    def parameters(self) -> dict:
        return {"elements": list(self.elements)}

    def __call__(self, structures: Structures, progress: bool = True) -> dict[str, np.ndarray]:
        from replimat.representations.conversion import packed

        place = np.array([self.elements.index(z) for z in structures.numbers])
        molecule = np.repeat(np.arange(len(structures)), structures.sizes)
        order = np.lexsort((place, molecule))
        return packed(structures) | {"numbers": structures.numbers[order], "positions": structures.positions[order]}


def build(card: ExperimentCard, settings: ScaleSettings, scale: str) -> Learned:
    sizes = settings.n_train, settings.n_val, settings.n_test
    return Learned(
        data=Selection(card.dataset, ("u0",), *sizes, formula=FORMULA),
        representation=OrderedMolecules(),
        targets={card.target: Target("generation", primary="validity", units=UNITS)},
        learn=partial(learn, target=card.target, settings=settings, training=training(settings)),
    )


def training(settings: ScaleSettings) -> Training:
    """Adam with a rate that falls exponentially, and an average of the weights over the last hundreds of steps; kept
    are those of the epoch whose samples have bonds like molecules most often.
    """
    return Training(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        lr=settings.lr,
        schedule="exponential",
        gamma=SLOWED,
        decay_steps=settings.epochs * -(-settings.n_train // settings.batch_size),
        ema=AVERAGED,
        keep="best",
    )


def learn(bench: Bench, target: str, settings: ScaleSettings, training: Training) -> dict[str, Made]:
    from replimat.models.edm import EDMGAN
    from replimat.representations.conversion import unpacked
    from replimat.training.adversarial import AdversarialTask

    molecules, free = unpacked(bench.arrays), settings.model
    squared = squared_distances(molecules)
    pairs = np.triu_indices(squared.shape[1], k=1)
    shortest = float(np.sqrt(squared[bench.rows("train")][:, *pairs].min()))
    sizes = {name: free[name] for name in ("latent", "width", "channels", "scale")}
    critic = {name: free[name] for name in ("features", "passed", "blocks", "gaussians", "together")}
    model = EDMGAN(tuple(ATOMS.values()), shortest, sizes, critic)
    first = deepcopy(model)
    steps, slower = int(free["critic_steps"]), float(free["generator_lr"])
    task = partial(AdversarialTask, critic_steps=steps, betas=BETAS, generator_lr=slower)
    bench.train(model, Squared(torch.from_numpy(squared).float()), training, task=task)
    count = int(free["samples"])
    made = {name: sampled(one, count, bench.seed) for name, one in (("made", model), ("untrained", first))}
    made["random_structure"] = random_points(molecules.take(bench.rows("train")), count, bench.seed)
    known = Known(molecules, bench.arrays["part"], int(free["relaxed"]))
    require("Generated molecules are judged with Open Babel, ASE and tblite", "openbabel", "ase", "tblite")
    tables = {name: judge(one, known) for name, one in made.items()}
    keep(bench, made, known)
    return {target: Made(tables.pop("made"), tables)}


class Squared(Dataset):
    """Squared distances [n, A, A] as training/fit.py takes them."""

    def __init__(self, squared: Tensor):
        self.squared = squared

    def __len__(self) -> int:
        return len(self.squared)

    def __getitems__(self, rows: list[int]) -> tuple[dict, Tensor]:
        chosen = self.squared[torch.as_tensor(rows)]
        return {"squared": chosen}, chosen.new_zeros(len(chosen))


def squared_distances(molecules: Structures) -> np.ndarray:
    """Squared distances of molecules with the same number of atoms, angstrom^2 [n, A, A]."""
    x = molecules.positions.reshape(len(molecules), -1, 3)
    return ((x[:, :, None] - x[:, None]) ** 2).sum(axis=3)


# ----------------------------------------------------------------- samples


@dataclass(frozen=True)
class Sampled:
    """What a generator made: squared distances, angstrom^2 [n, A, A], and molecules with such distances."""

    squared: np.ndarray
    molecules: Structures

    @cached_property
    def distances(self) -> dict[tuple[int, int], np.ndarray]:
        """Distances of the atoms of each pair of elements, angstrom [P]."""
        return distances_by_pair(self.squared, self.molecules.numbers.reshape(len(self.squared), -1))


def sampled(model, count: int, seed: int) -> Sampled:
    """Molecules of new noise; the element of an atom is its likeliest."""
    from replimat.models.edm import points

    model = model.cpu().eval()
    torch.manual_seed(seed)
    with torch.inference_mode():
        parts = [model.sample(min(AT_ONCE, count - done)) for done in range(0, count, AT_ONCE)]
        squared, logits = (torch.cat(one) for one in zip(*parts, strict=True))
        places = points(squared).numpy()
    return Sampled(squared.numpy(), structures_of(np.array(list(ATOMS))[logits.argmax(dim=2).numpy()], places))


def random_points(like: Structures, count: int, seed: int) -> Sampled:
    """The right atoms at normally distributed points, each molecule as large (radius of gyration) as one of `like`."""
    rng = np.random.default_rng(seed)
    numbers = np.repeat(list(ATOMS), list(ATOMS.values()))
    centred = [x - x.mean(axis=0) for _, x, _ in (like[s] for s in range(len(like)))]
    sizes = np.sqrt([(x**2).sum(axis=1).mean() for x in centred])
    x = rng.normal(size=(count, len(numbers), 3))
    x -= x.mean(axis=1, keepdims=True)
    x *= (rng.choice(sizes, count) / np.sqrt((x**2).sum(axis=2).mean(axis=1)))[:, None, None]
    molecules = structures_of(np.tile(numbers, (count, 1)), x)
    return Sampled(squared_distances(molecules), molecules)


def structures_of(numbers: np.ndarray, positions: np.ndarray) -> Structures:
    """Molecules of atomic numbers [n, A] and points [n, A, 3]."""
    return Structures.pack([(z, x, np.zeros((3, 3))) for z, x in zip(numbers, positions, strict=True)], periodic=False)


def distances_by_pair(squared: np.ndarray, numbers: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    """Distances of the atoms of each pair of elements, angstrom [P]; squared [n, A, A], numbers [n, A]."""
    i, j = np.triu_indices(squared.shape[1], k=1)
    distance, one, other = np.sqrt(np.maximum(squared[:, i, j], 0)), numbers[:, i], numbers[:, j]
    return {
        (a, b): distance[((one == a) & (other == b)) | ((one == b) & (other == a))].astype(np.float64) for a, b in PAIRS
    }


# ---------------------------------------------------------------- judgement


@dataclass(frozen=True)
class Known:
    """The molecules of the data; part: training, validation, test [n]; relaxed: how many energies are compared."""

    molecules: Structures
    part: np.ndarray
    relaxed: int

    @cached_property
    def heavy(self) -> np.ndarray:
        from replimat.evaluation.molecules import heavy_points

        return heavy_points(self.molecules)

    @cached_property
    def topologies(self) -> dict[str, str]:
        """Canonical SMILES -> "test", or "train" where it is that of a training or validation row, too."""
        from replimat.evaluation.molecules import perceive

        smiles = perceive(self.molecules).smiles
        named = dict.fromkeys(smiles[self.part == 2], "test") | dict.fromkeys(smiles[self.part != 2], "train")
        return {one: name for one, name in named.items() if one}

    @cached_property
    def distances(self) -> dict[tuple[int, int], np.ndarray]:
        """Of the test rows."""
        tested = self.molecules.take(np.flatnonzero(self.part == 2))
        return Sampled(squared_distances(tested), tested).distances

    @cached_property
    def energies(self) -> np.ndarray:
        """Relaxed, of the first test rows, eV [m]."""
        from replimat.evaluation.molecules import energies

        return energies(self.molecules.take(np.flatnonzero(self.part == 2)[: self.relaxed]))


def judge(made: Sampled, known: Known):
    """A table of replimat.evaluation.generation with a row for every sample, then one for every molecule of the data
    whose energy was computed.
    """
    import pandas as pd

    from replimat.evaluation.generation import DATA, judged
    from replimat.evaluation.molecules import is_euclidean, perceive

    found, n = perceive(made.molecules), len(made.squared)
    columns = {
        "share.validity": found.valid,
        "share.euclidean": is_euclidean(made.squared),
        "share.formula": right_atoms(made.molecules),
        "mean.satisfied_atoms": found.satisfied,
        **topologies(found.smiles, known),
        **conformations(made.molecules, found.smiles, known),
    }
    spread, reference = energies(made.molecules, found.valid, known)
    columns |= spread
    for pair, values in made.distances.items():
        columns |= {name: np.full(n, value) for name, value in compared(pair, values, known.distances[pair]).items()}
    table = judged([f"made-{k}" for k in range(n)], **columns)
    if not len(reference):
        return table
    rows = judged([f"data-{k}" for k in range(len(reference))], DATA, **{"emd.energy": reference})
    return pd.concat([table, rows], ignore_index=True)


def right_atoms(molecules: Structures) -> np.ndarray:
    numbers = molecules.numbers.reshape(len(molecules), -1)
    return np.logical_and.reduce([(numbers == z).sum(axis=1) == count for z, count in ATOMS.items()])


def topologies(smiles: np.ndarray, known: Known) -> dict[str, np.ndarray]:
    """How many topologies there are among the valid samples, by where they are known from."""
    valid = smiles != ""
    where = np.array([known.topologies.get(one, "new") if one else "" for one in smiles])
    first = np.zeros(len(smiles), dtype=bool)
    first[np.unique(smiles, return_index=True)[1]] = True
    found = {f"count.{name}_topologies": first & (where == name) for name in ("train", "test", "new")}
    share = np.where(valid, where != "new", np.nan)
    return {"share.known_topology": share, "count.topologies": first & valid, **found}


def conformations(molecules: Structures, smiles: np.ndarray, known: Known) -> dict[str, np.ndarray]:
    """How many distinct conformations there are among the valid samples of the right atoms: of the data, new ones of a
    topology of the data, and of new topologies.
    """
    from replimat.evaluation.molecules import distinct, heavy_points, near

    names = ("known_conformations", "new_conformations_known_topology", "new_conformations_new_topology")
    columns = {f"count.{name}": np.zeros(len(smiles), dtype=bool) for name in names}
    rows = np.flatnonzero((smiles != "") & right_atoms(molecules))
    if not len(rows):
        return columns
    heavy = heavy_points(molecules.take(rows))
    for row, points in zip(rows[distinct(heavy)], heavy[distinct(heavy)], strict=True):
        name = names[0] if near(points, known.heavy) else names[1 + (smiles[row] not in known.topologies)]
        columns[f"count.{name}"][row] = True
    return columns


def energies(molecules: Structures, valid: np.ndarray, known: Known) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Relaxed energies of the first valid samples of the right atoms as columns, and those of the data [m]; eV above
    the lowest of the data.
    """
    from replimat.evaluation.molecules import energies as gfn2

    rows = np.flatnonzero(valid & right_atoms(molecules))[: known.relaxed]
    energy, inside = np.full(len(molecules), np.nan), np.full(len(molecules), np.nan)
    if not len(rows):
        return {"emd.energy": energy, "share.energy_in_range": inside}, np.empty(0)
    reference = known.energies[np.isfinite(known.energies)]
    energy[rows] = gfn2(molecules.take(rows)) - reference.min()
    inside[rows] = np.where(
        np.isfinite(energy[rows]), (energy[rows] >= 0) & (energy[rows] <= np.ptp(reference)), np.nan
    )
    return {"emd.energy": energy, "share.energy_in_range": inside}, reference - reference.min()


def compared(pair: tuple[int, int], made: np.ndarray, data: np.ndarray) -> dict[str, float]:
    """Overlap of the histograms of a pair's distances, and their Wasserstein distance in angstrom."""
    from replimat.evaluation.distributions import emd, overlap

    name = SYMBOLS[pair[0]] + SYMBOLS[pair[1]]
    return {f"mean.overlap_{name}": overlap(made, data, EDGES), f"mean.distance_emd_{name}": emd(made, data)}


# ------------------------------------------------------------------ figures


def keep(bench: Bench, made: dict[str, Sampled], known: Known) -> None:
    """Arrays of the figures: histograms of the distances, and the first valid molecules."""
    from replimat.representations.conversion import packed

    drawn = {"data": known.distances} | {name: one.distances for name, one in made.items()}
    shares = {name: np.stack([_shares(values) for values in one.values()]) for name, one in drawn.items()}
    bench.keep("distances", edges=EDGES, pairs=np.array(["-".join(_symbols(pair)) for pair in PAIRS]), **shares)
    rows, captions = zip(*_looked_at(made["made"].molecules, known), strict=True)
    bench.keep("crystals", **packed(made["made"].molecules.take(np.array(rows))), captions=np.array(captions))


def _looked_at(molecules: Structures, known: Known) -> Iterator[tuple[int, str]]:
    """Number and SMILES of the first valid samples, and where these are few of the first others."""
    from replimat.evaluation.molecules import perceive

    smiles = perceive(molecules).smiles
    for row in np.argsort(smiles == "", kind="stable")[:LOOKED_AT]:
        said = smiles[row] or "not valid"
        yield row, said + ("" if not smiles[row] or smiles[row] in known.topologies else "\nnot in the data")


def _symbols(pair: tuple[int, int]) -> list[str]:
    return [SYMBOLS[z].upper() for z in pair]


def _shares(values: np.ndarray) -> np.ndarray:
    return np.histogram(values, EDGES)[0] / max(len(values), 1)
