"""The crystals of the pool that Ren et al. (2022) would have asked the Materials Project for: three or four elements,
close to the convex hull.
"""

from pathlib import Path

import numpy as np

from replimat.cards import DatasetCard
from replimat.datasets.base import Dataset

HULL = 0.08  # eV/atom
TERNARY_SITES = 20  # of the first design case; the pool ends at the 40 of the others


def read(folder: Path, card: DatasetCard) -> Dataset:
    """Rows of the card's one parent, with its targets and whether a row is a ternary of few sites."""
    from replimat.datasets.loading import load

    (parent,) = card.source.parents
    pool = load(parent)
    elements, hull = pool.target("n_elements"), pool.target("e_above_hull")
    rows = np.flatnonzero(np.isin(elements, (3, 4)) & (hull <= HULL))
    targets = {name: values[rows] for name, values in pool.targets.items()}
    small = (elements[rows] == 3) & (targets["n_atoms"] <= TERNARY_SITES)
    targets["small_ternary"] = small.astype(float)
    return Dataset(
        name=card.name,
        ids=pool.ids[rows],
        structures=pool.structures.take(rows),
        targets={name: targets[name] for name in card.targets},
        units={name: spec.unit for name, spec in card.targets.items()},
    )
