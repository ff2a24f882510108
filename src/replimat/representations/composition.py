"""Features of the composition alone, for the random-forest baseline that every graph model must beat.

Per structure: mean, standard deviation, minimum, maximum and range over the atoms of each elemental property, then
the amount of each element: its fraction in a crystal, its number of atoms in a molecule, whose size is part of its
formula. The idea is that of Magpie (Ward et al., npj Comput. Mater. 2, 16028 (2016)) with a short list of properties.
Where the atoms sit is not looked at: a graph model that is no better has learned no geometry.
"""

import warnings
from functools import cache

import numpy as np

from replimat.datasets.base import Structures
from replimat.errors import DataError

ELEMENTS = 103  # hydrogen to lawrencium
PROPERTIES = (
    "Z",
    "atomic_mass",
    "row",
    "group",
    "mendeleev_no",
    "X",
    "atomic_radius",
    "ionization_energy",
    "electron_affinity",
    "molar_volume",
    "melting_point",
)
STATISTICS = ("mean", "std", "min", "max", "range")


def composition_features(structures: Structures) -> np.ndarray:
    """Features of every structure [n, F] float32, columns as in feature_names().

    Raises DataError for an atomic number outside 1..103 and for a structure without atoms.
    """
    numbers, starts, sizes = structures.numbers.astype(np.int64), structures.offsets[:-1], structures.sizes
    if len(numbers) == 0 or sizes.min() == 0:
        raise DataError("Composition features need at least one atom per structure.")
    if numbers.min() < 1 or numbers.max() > ELEMENTS:
        raise DataError(
            f"Composition features know atomic numbers 1..{ELEMENTS}, got {numbers.min()}..{numbers.max()}."
        )
    values = element_table()[numbers - 1]  # [N, P]
    mean = np.add.reduceat(values, starts) / sizes[:, None]  # [n, P]
    deviation = values - np.repeat(mean, sizes, axis=0)
    std = np.sqrt(np.add.reduceat(deviation**2, starts) / sizes[:, None])
    low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    cells = np.repeat(np.arange(len(sizes)), sizes) * ELEMENTS + numbers - 1
    counts = np.bincount(cells, minlength=len(sizes) * ELEMENTS).reshape(-1, ELEMENTS)
    amounts = counts / sizes[:, None] if structures.periodic else counts
    return np.hstack([mean, std, low, high, high - low, amounts]).astype(np.float32)


def feature_names() -> list[str]:
    """Names of the columns of composition_features."""
    from pymatgen.core import Element

    statistics = [f"{statistic} {name}" for statistic in STATISTICS for name in PROPERTIES]
    return statistics + [f"amount {Element.from_Z(z).symbol}" for z in range(1, ELEMENTS + 1)]


@cache
def element_table() -> np.ndarray:
    """Elemental properties from pymatgen [ELEMENTS, P].

    An unknown value (electronegativity of helium, radius of radon) is the median of its property.
    """
    from pymatgen.core import Element

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns for each property it does not know
        table = [[_number(Element.from_Z(z), name) for name in PROPERTIES] for z in range(1, ELEMENTS + 1)]
    table = np.array(table)
    return np.where(np.isnan(table), np.nanmedian(table, axis=0), table)


def _number(element, name: str) -> float:
    value = getattr(element, name, None)
    return np.nan if value is None else float(value)
