"""Powder patterns of minerals from RRUFF, as prepared by J. E. Salgado et al. (npj Comput. Mater. 9, 214 (2023)).

Each file is a numpy object array around a pickled dictionary; the pickle is read with numpy's globals alone. Space
group and crystal system are stored from zero. Intensities are as the authors scaled them: 0 to 1000.
"""

from pathlib import Path

import numpy as np

from replimat.cards import DatasetCard
from replimat.datasets.patterns import TWO_THETA, MeasuredPatterns
from replimat.errors import DataError
from replimat.sources import load_pickle
from replimat.sources.pickles import NUMPY_GLOBALS

AXIS = 5 + 0.01 * np.arange(8500)  # degree
WAVELENGTH = 1.5418  # angstrom, copper K alpha, as the authors simulate it


def read_patterns(folder: Path, card: DatasetCard) -> MeasuredPatterns:
    """All patterns in the order of the card; labels crystal_system and space_group [n]."""
    members = card.source.members
    read = [_pattern(folder / member.save_as) for member in members]
    intensities, systems, groups = zip(*read, strict=True)
    return MeasuredPatterns(
        name=card.name,
        ids=np.array([Path(member.save_as).stem for member in members]),
        axis=[AXIS] * len(members),
        intensity=list(intensities),
        labels={"crystal_system": np.array(systems), "space_group": np.array(groups)},
        axis_name=TWO_THETA,
        wavelengths=np.full(len(members), WAVELENGTH),
    )


def _pattern(path: Path) -> tuple[np.ndarray, int, int]:
    """Intensities [8500], crystal system and space group of one file. Raises SourceError or DataError."""
    try:
        with open(path, "rb") as stream:
            np.lib.format.read_magic(stream)
            shape, _, kind = np.lib.format.read_array_header_1_0(stream)
            start = stream.tell()
        if shape != () or kind.kind != "O":
            raise ValueError(f"an array {shape} of {kind}")
        content = load_pickle(path, NUMPY_GLOBALS, start).item()
        intensity = np.asarray(content["features"], dtype=np.float64).reshape(AXIS.shape)
        system, group = int(content["labels7"]), int(content["labels230"]) + 1
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path}: not the expected dictionary ({type(error).__name__}: {error}).") from error
    if not (0 <= system <= 6 and 1 <= group <= 230):
        raise DataError(f"{path}: crystal system {system} and space group {group} do not exist.")
    return intensity, system, group
