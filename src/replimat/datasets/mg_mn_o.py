"""Crystals of Mg, Mn and O: known ones, and oxides of other metals with Mg and Mn in their place, relaxed with CHGNet.

A prototype is a crystal of the card's parent of two metals and oxygen; either metal becomes Mg and the other Mn. Taken
are those in which manganese is +2 to +4, as in every crystal of Kim et al. 2020 (counted), one for each space group and
composition. Before it is relaxed a crystal is scaled until a metal and its nearest oxygen are 2.1 angstrom apart.

Targets are energies by CHGNet (replimat.datasets.chgnet_relaxation); formation energies count from the lowest crystal
of each element here, hulls are those of all crystals here.
"""

import json
import sys
from pathlib import Path

import numpy as np

from replimat.cards import DatasetCard
from replimat.datasets import chgnet_relaxation
from replimat.datasets.base import Dataset, Structures
from replimat.datasets.chgnet_relaxation import Relaxed, Triple, relaxed
from replimat.datasets.convex_hull import above_hull, element_counts, formation_energies
from replimat.files import atomic

CODE = (chgnet_relaxation.__file__,)  # decides the labels too
MG, MN, OXYGEN = 12, 25, 8
NUMBERS, SYMBOLS = [MG, MN, OXYGEN], ["Mg", "Mn", "O"]
OTHERS = (1, 6, 7, 9, 16, 17, 35, 53, 34, 52, 15, 14, 5, 2, 10, 18, 36, 54)  # of no metal: no oxide is a prototype
MOST = 14  # atoms of a prototype: a step of CHGNet takes 5 ms an atom
LARGEST = 28  # atoms of a known crystal
OXIDATION = (2.0, 4.0)  # of manganese
BOND = 2.1  # angstrom, Mg-O and Mn-O in octahedra (Shannon radii)
FMAX, STEPS = 0.1, 20  # eV/angstrom
USABLE = 0.5  # eV/angstrom: what is further from rest after STEPS is left out
SAME_ENERGY, SAME_VOLUME = 1e-3, 5e-3  # eV/atom, relative: two of one composition that agree in both are one
BLOCK = 10  # crystals relaxed between two writes


def read(folder: Path, card: DatasetCard) -> Dataset:
    """The dataset; folder holds the finished blocks."""
    from threadpoolctl import threadpool_limits

    from replimat.datasets.loading import load

    started = starts(load(card.source.parents[0]))
    with threadpool_limits(1):  # the same sums in every run
        found = relax_all(started, folder, card.name)
    left_out = {name: one.failed or "not at rest" for name, one in found.items() if not usable(one)}
    kept = {name: one for name, one in found.items() if name not in left_out}
    kept, twins = without_twins(kept)
    left_out |= twins
    structures = Structures.pack([one.crystal for one in kept.values()], periodic=True)
    targets = energies(structures, np.array([one.energy for one in kept.values()]))
    targets |= {"largest_force": np.array([one.force for one in kept.values()])}
    targets |= {"learned": np.array([float(fits(one.crystal)) for one in kept.values()])}
    return Dataset(
        name=card.name,
        ids=np.array(list(kept)),
        structures=structures,
        targets={name: targets[name] for name in card.targets},
        units={name: target.unit for name, target in card.targets.items()},
        left_out=left_out,
    )


def starts(pool: Dataset) -> dict[str, Triple]:
    """What is relaxed, by id: known crystals of the three elements first, then substituted ones."""
    known, substituted, seen = {}, {}, set()
    groups = pool.target("space_group")
    for row, name in enumerate(map(str, pool.ids)):
        crystal = pool.structures[row]
        elements = set(crystal[0].tolist())
        if elements <= set(NUMBERS) and len(crystal[0]) <= LARGEST:
            known[name] = crystal
        elif len(elements) == 3 and OXYGEN in elements and len(crystal[0]) <= MOST and not elements & set(OTHERS):
            for metal in sorted(elements - {OXYGEN}):
                made = substitute(crystal, metal)
                key = (*composition(made), groups[row])
                if fits(made) and key not in seen:
                    seen.add(key)
                    substituted[f"{name}-{metal}-mg"] = scaled(made)
    return known | substituted


def substitute(crystal: Triple, metal: int) -> Triple:
    """A crystal with Mg for one metal and Mn for the other, atoms in the order Mg, Mn, O."""
    numbers, positions, cell = crystal
    new = np.where(numbers == OXYGEN, OXYGEN, np.where(numbers == metal, MG, MN))
    order = np.concatenate([np.flatnonzero(new == z) for z in NUMBERS])
    return new[order], positions[order], cell


def composition(crystal: Triple) -> tuple[int, int, int]:
    return tuple(int((crystal[0] == z).sum()) for z in NUMBERS)


def fits(crystal: Triple) -> bool:
    """Whether a crystal has all three elements, fits the image of Kim et al., and manganese has a common valence."""
    mg, mn, oxygen = composition(crystal)
    low, high = OXIDATION
    return 1 <= mg <= 8 and 1 <= mn <= 8 and 1 <= oxygen <= 12 and low <= 2 * (oxygen - mg) / mn <= high


def scaled(crystal: Triple) -> Triple:
    """The crystal grown or shrunk until the median metal has its nearest oxygen at BOND."""
    from ase import Atoms
    from ase.neighborlist import neighbor_list

    numbers, positions, cell = crystal
    i, j, d = neighbor_list("ijd", Atoms(numbers, positions=positions, cell=cell, pbc=True), 4.0)
    bonds = (numbers[i] != OXYGEN) & (numbers[j] == OXYGEN)
    nearest = [d[bonds & (i == metal)].min(initial=np.inf) for metal in np.flatnonzero(numbers != OXYGEN)]
    factor = BOND / np.median(nearest)
    return (numbers, positions * factor, cell * factor) if np.isfinite(factor) and factor > 0 else crystal


def relax_all(started: dict[str, Triple], folder: Path, name: str) -> dict[str, Relaxed]:
    """All of them relaxed; finished blocks lie in `folder`."""
    found, names = {}, list(started)
    for first in range(0, len(names), BLOCK):
        block = names[first : first + BLOCK]
        path = folder / f"relaxed-{first}.npz"
        if not path.is_file():
            _keep(path, {one: relaxed(started[one], FMAX, STEPS) for one in block})
        found |= _kept(path)
        print(f"{name}: {min(first + BLOCK, len(names))} of {len(names)} crystals", file=sys.stderr, flush=True)
    return found


def usable(one: Relaxed) -> bool:
    return not one.failed and one.force <= USABLE


def without_twins(found: dict[str, Relaxed]) -> tuple[dict[str, Relaxed], dict[str, str]]:
    """One of each set of crystals that have relaxed to the same, the first, and of the others which one that is."""
    kept, twins = {}, {}
    for name, one in found.items():
        twin = next((other for other, before in kept.items() if _same(one, before)), None)
        if twin is None:
            kept[name] = one
        else:
            twins[name] = f"relaxes to the same as {twin}"
    return kept, twins


def energies(structures: Structures, energy: np.ndarray) -> dict[str, np.ndarray]:
    """energy_per_atom, formation_energy and e_above_hull, eV/atom [n]."""
    counts = element_counts(structures, NUMBERS)
    formation = formation_energies(counts, energy, counts, energy, SYMBOLS)
    hull = above_hull(counts, formation, counts, formation, SYMBOLS)
    return {"energy_per_atom": energy, "formation_energy": formation, "e_above_hull": np.maximum(hull, 0.0)}


def _same(one: Relaxed, other: Relaxed) -> bool:
    """Whether two crystals have one reduced composition, energy and volume per atom."""
    first, second = (np.array(composition(each.crystal)) for each in (one, other))
    if not np.array_equal(first * second.sum(), second * first.sum()):
        return False
    volumes = [abs(np.linalg.det(each.crystal[2])) / len(each.crystal[0]) for each in (one, other)]
    return abs(one.energy - other.energy) < SAME_ENERGY and abs(volumes[0] / volumes[1] - 1) < SAME_VOLUME


def _keep(path: Path, found: dict[str, Relaxed]) -> None:
    arrays = {}
    for k, one in enumerate(found.values()):
        arrays |= {f"{k}.{part}": values for part, values in zip("zxc", one.crystal, strict=True)}
    said = {name: [one.energy, one.force, one.steps, one.failed] for name, one in found.items()}
    with atomic(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, said=np.array(json.dumps(said)), **arrays)


def _kept(path: Path) -> dict[str, Relaxed]:
    with np.load(path, allow_pickle=False) as stored:
        said = json.loads(str(stored["said"]))
        crystals = [tuple(stored[f"{k}.{part}"] for part in "zxc") for k in range(len(said))]
    return {name: Relaxed(crystal, *rest) for crystal, (name, rest) in zip(crystals, said.items(), strict=True)}
