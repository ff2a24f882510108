"""Do the samples of a generator have the properties of the data? Distributions, and how often a search succeeds.

Properties and their distances are those of CDVAE (arXiv:2110.06197); the overlap of histograms is
how M. Hoffmann and F. Noé (arXiv:1910.03131) lay distances of molecules over each other.
"""

from functools import cache

import numpy as np

from replimat.datasets.base import Structures
from replimat.errors import DataError
from replimat.evaluation.validity import has_cell

PERCENTS = (5, 10, 15)
PRINTED_THRESHOLDS = {  # of CDVAE's evaluation code: 5th, 10th and 15th percentile of the training set's property
    "perov5": (0.43924842, 0.61202443, 0.7364607),  # eV/atom
    "carbon24": (-154.527093, -154.45865733, -154.44206825),  # eV/atom
    "mp20": (-3.17562208, -2.82196882, -2.52814761),  # eV/atom
}


def density(structures: Structures) -> np.ndarray:
    """Mass density, g/cm^3 [n]; NaN without a cell or with an unknown element."""
    from scipy.constants import atomic_mass

    numbers = structures.numbers.astype(np.int64)
    table = atomic_masses()
    masses = table[np.where((numbers > 0) & (numbers < len(table)), numbers, 0)]
    owners = np.repeat(np.arange(len(structures)), structures.sizes)
    totals = np.bincount(owners, weights=masses, minlength=len(structures))
    found, good = np.full(len(structures), np.nan), has_cell(structures)
    found[good] = totals[good] / np.abs(np.linalg.det(structures.cells[good])) * atomic_mass * 1e27
    return found


@cache
def atomic_masses() -> np.ndarray:
    """pymatgen's masses by atomic number, dalton [119], NaN at 0; they are what CDVAE's densities are made of."""
    from pymatgen.core import Element

    return np.array([np.nan] + [float(Element.from_Z(z).atomic_mass) for z in range(1, 119)])


def n_elements(structures: Structures) -> np.ndarray:
    """How many elements each structure has [n]."""
    return np.array([len(np.unique(structures[s][0])) for s in range(len(structures))], dtype=np.float64)


def pair_distances(structures: Structures, one: int | None = None, other: int | None = None) -> np.ndarray:
    """Distances of all pairs of atoms of each molecule, joined, angstrom [P]; of two elements only where given."""
    found = []
    for s in range(len(structures)):
        z, x, _ = structures[s]
        i, j = np.triu_indices(len(z), k=1)
        wanted = np.ones(len(i), dtype=bool)
        if one is not None:
            second = one if other is None else other
            wanted = ((z[i] == one) & (z[j] == second)) | ((z[i] == second) & (z[j] == one))
        found.append(np.linalg.norm(x[i[wanted]] - x[j[wanted]], axis=1))
    return np.concatenate(found) if found else np.empty(0)


def emd(a: np.ndarray, b: np.ndarray) -> float:
    """Wasserstein distance of two samples, in their unit; NaN where one holds no finite value."""
    from scipy.stats import wasserstein_distance

    one, other = _finite(a), _finite(b)
    return float(wasserstein_distance(one, other)) if len(one) and len(other) else np.nan


def overlap(a: np.ndarray, b: np.ndarray, bins: np.ndarray | int = 100) -> float:
    """Area that the normalised histograms of two samples share: 1 for equal ones, 0 for ones that never meet.

    bins: their edges, or how many over the range of both. Values outside the edges count as shared with nothing. NaN
    where a sample is empty.
    """
    one, other = _finite(a), _finite(b)
    if not len(one) or not len(other):
        return np.nan
    edges = np.histogram_bin_edges(np.concatenate([one, other]), bins) if np.ndim(bins) == 0 else np.asarray(bins)
    shares = [np.histogram(values, edges)[0] / len(values) for values in (one, other)]
    return float(np.minimum(*shares).sum())


def thresholds(train: np.ndarray, percents: tuple[float, ...] = PERCENTS, lower: bool = True) -> tuple[float, ...]:
    """Values that the best so many percent of the training set reach; lower: low values are the good ones."""
    at = percents if lower else [100 - percent for percent in percents]
    return tuple(float(value) for value in np.percentile(_finite(train), at))


def success_rate(values: np.ndarray, valid: np.ndarray, threshold: float, lower: bool = True) -> float:
    """Starts in % whose best valid decode reaches the threshold; values, valid: [starts, decodes].

    Raises DataError for arrays of other or unequal shapes.
    """
    values, valid = np.asarray(values, dtype=np.float64), np.asarray(valid, dtype=bool)
    if values.ndim != 2 or values.shape != valid.shape or values.size == 0:
        raise DataError(f"Success rate: expected [starts, decodes] twice, got {values.shape} and {valid.shape}.")
    reached = values <= threshold if lower else values >= threshold  # NaN reaches nothing
    return 100 * float((reached & valid).any(axis=1).mean())


def _finite(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64).ravel()
    return values[np.isfinite(values)]
