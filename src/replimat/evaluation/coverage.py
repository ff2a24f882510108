"""Does a generator make all kinds of crystals that the data has, and only those? CDVAE's coverage (arXiv:2110.06197).

A crystal of the data is recalled if some made crystal is near it in structure and some made crystal, possibly another
one, is near it in composition; precision asks the same of the made crystals. Structure: CrystalNN's local order
parameters, mean over sites (replimat.evaluation.local_order). Composition: Magpie's statistics of elements (L. Ward et
al., npj Comput. Mater. 2, 16028 (2016)), standardised.

Sites that symmetry makes equal are looked at once: the same mean in a fraction of the time.
"""

import json
import warnings
from dataclasses import dataclass
from functools import cache

import numpy as np

from replimat.datasets.base import Structures
from replimat.errors import DataError
from replimat.evaluation.local_order import STRUCTURE, site_features
from replimat.evaluation.validity import formulas, has_cell

COMPOSITION = 132  # features
SAME_SITE = 1e-4  # angstrom: how far atoms may be from where a symmetry takes them
SCALER_CARD = "cdvae_scaler"


@dataclass(frozen=True)
class Cutoffs:
    """Distances within which a crystal counts as near: of the structure's features and of the composition's."""

    structure: float
    composition: float


CUTOFFS = {"mp20": Cutoffs(0.4, 10.0), "carbon24": Cutoffs(0.2, 4.0), "perov5": Cutoffs(0.2, 4.0)}  # CDVAE's code
SYMAT_CUTOFFS = {"mp20": Cutoffs(0.6, 12.0), "carbon24": Cutoffs(1.0, 4.0), "perov5": Cutoffs(0.8, 6.0)}  # SyMat's code


@dataclass(frozen=True)
class Scaler:
    """Means and standard deviations of the composition's features [G]."""

    means: np.ndarray
    stds: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Standardised features [n, G]; a value that is not known becomes the mean, 0, as in CDVAE."""
        scaled = (features - self.means) / self.stds
        return np.where(np.isnan(scaled), 0.0, scaled)


@dataclass(frozen=True)
class Fingerprints:
    """Features of n crystals: structure [n, F], composition [n, G]; rows of NaN where there are none."""

    structure: np.ndarray
    composition: np.ndarray

    def __len__(self) -> int:
        return len(self.structure)

    @property
    def known(self) -> np.ndarray:
        """Rows that can be compared [n]."""
        return np.isfinite(self.structure).all(axis=1) & np.isfinite(self.composition).all(axis=1)


def fingerprints(structures: Structures, scaler: Scaler | None = None) -> Fingerprints:
    """Features of crystals; without a cell, or where CrystalNN fails, there are none. scaler: CDVAE's if None.

    Crystals that are not valid have features too: CDVAE's coverage is of all that was generated, not of what is valid.
    Raises SourceError where CDVAE's constants are wanted and not fetched.
    """
    scaler = cdvae_scaler() if scaler is None else scaler
    structure = np.full((len(structures), STRUCTURE), np.nan)
    composition = np.full((len(structures), COMPOSITION), np.nan)
    good = np.flatnonzero(has_cell(structures))
    if not len(good):
        return Fingerprints(structure, composition)
    chosen = structures.take(good)
    structure[good] = structure_features(chosen)
    composition[good] = scaler(composition_features(chosen))
    composition[np.isnan(structure).any(axis=1)] = np.nan
    return Fingerprints(structure, composition)


def coverage(
    made: Fingerprints, data: Fingerprints, cutoffs: Cutoffs, n_made: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Which crystals of the data are recalled [m] and which made ones are precise [n].

    Recall is the share of the first; precision divides the second by all that were generated: n_made, when `made` holds
    only some of them; then the second is [n_made], the rest False. A crystal without features is neither. Raises
    DataError where data has none at all or n_made is smaller than `made`.
    """
    from scipy.spatial.distance import cdist

    total = len(made) if n_made is None else n_made
    if total < len(made):
        raise DataError(f"Coverage: {len(made)} fingerprints of {total} generated crystals.")
    mine, theirs = made.known, data.known
    if not theirs.any():
        raise DataError("Coverage: no crystal of the data has a fingerprint.")
    recalled, precise = np.zeros(len(data), dtype=bool), np.zeros(total, dtype=bool)
    if not mine.any():
        return recalled, precise
    structure = cdist(made.structure[mine], data.structure[theirs])  # [made, data]
    composition = cdist(made.composition[mine], data.composition[theirs])
    for axis, found, rows in ((0, recalled, np.flatnonzero(theirs)), (1, precise, np.flatnonzero(mine))):
        near = structure.min(axis=axis) <= cutoffs.structure
        found[rows] = near & (composition.min(axis=axis) <= cutoffs.composition)
    return recalled, precise


def fit_scaler(reference: Structures) -> Scaler:
    """Means and standard deviations over the reference crystals; 1 for a feature that is the same in all."""
    features = composition_features(reference)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a feature unknown for every crystal
        means, stds = np.nanmean(features, axis=0), np.nanstd(features, axis=0)
    return Scaler(np.nan_to_num(means), np.where(stds > 1e-12, stds, 1.0))


def cdvae_scaler() -> Scaler:
    """The constants of CDVAE's code. Raises SourceError when they are not fetched (`data=paper`)."""
    from replimat import sources

    stored = json.loads(sources.member_path(SCALER_CARD, "compscaler.json").read_text(encoding="utf-8"))
    return Scaler(np.array(stored["CompScalerMeans"]), np.array(stored["CompScalerStds"]))


def composition_features(structures: Structures) -> np.ndarray:
    """Magpie's features of the formulas [n, 132], NaN where an element has none."""
    return np.array([_magpie(formula) for formula in formulas(structures)]).reshape(-1, COMPOSITION)


def structure_features(structures: Structures) -> np.ndarray:
    """Local order parameters, mean over the sites of each crystal [n, 61]; NaN where CrystalNN fails."""
    from replimat.representations.conversion import as_pymatgen

    return np.array([_order(crystal) for crystal in as_pymatgen(structures)]).reshape(-1, STRUCTURE)


def _order(crystal) -> np.ndarray:
    sites, counts = inequivalent(crystal)
    try:
        features = [site_features(crystal, int(site)) for site in sites]
    except (RuntimeError, ValueError):  # CDVAE counts such a crystal out, too
        return np.full(STRUCTURE, np.nan)
    return np.average(features, axis=0, weights=counts)


def inequivalent(crystal) -> tuple[np.ndarray, np.ndarray]:
    """One site of each set that symmetry makes equal, and how many it stands for."""
    import spglib

    cell = (crystal.lattice.matrix, crystal.frac_coords, crystal.atomic_numbers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that it will raise instead of returning None
        found = spglib.get_symmetry_dataset(cell, symprec=SAME_SITE)
    if found is None:
        return np.arange(len(crystal)), np.ones(len(crystal), dtype=int)
    return np.unique(found.equivalent_atoms, return_counts=True)


@cache
def _magpie(formula: tuple[tuple[int, int], ...]) -> np.ndarray:
    """Statistics of the properties of a formula's elements [132]: for each, those matminer's "magpie" preset has.

    matminer's own featurizer gives the same numbers seventy times slower.
    """
    elements, counts = np.array(formula).T
    values = _element_properties()[elements]  # [elements, properties]
    share = counts / counts.sum()
    low, high, mean = values.min(axis=0), values.max(axis=0), share @ values
    deviation = share @ np.abs(values - mean)
    mode = values[counts == counts.max()].min(axis=0)
    return np.stack([low, high, high - low, mean, deviation, mode], axis=1).ravel()


@cache
def _element_properties() -> np.ndarray:
    """Magpie's 22 properties by atomic number [119, 22]; NaN where unknown, as in the matminer 0.7.3 that CDVAE had."""
    from matminer.featurizers.composition.composite import ElementProperty
    from pymatgen.core import Element

    preset = ElementProperty.from_preset("magpie", impute_nan=False)
    table = np.full((119, len(preset.features)), np.nan)
    for z in range(1, 119):
        for k, name in enumerate(preset.features):
            table[z, k] = preset.data_source.get_elemental_property(Element.from_Z(z), name)
    return table
