"""Powder patterns of BaTiO3, 150 to 445 K (P. M. Maffettone, A. C. Daly, D. Olds, Appl. Phys. Rev. 8, 041410 (2021)).

One .npy file per temperature, which its name holds: BTO_150K_tth.npy. The axis is not in the files: 3488 points evenly
from 0.01123 to 24.85317 degree at 0.1671 angstrom, as the authors' simulations for these patterns have it (XCA).
Intensities are scaled to a maximum of 1.
"""

import re
from pathlib import Path

import numpy as np

from replimat.cards import DatasetCard
from replimat.datasets.patterns import TWO_THETA, MeasuredPatterns
from replimat.errors import DataError

AXIS = np.linspace(0.01123, 24.85317, 3488)  # degree
WAVELENGTH = 0.1671  # angstrom


def read_patterns(folder: Path, card: DatasetCard) -> MeasuredPatterns:
    """All patterns by rising temperature; label temperature in K [n]."""
    found = sorted((_temperature(member.save_as), member.save_as) for member in card.source.members)
    temperatures, names = zip(*found, strict=True)
    return MeasuredPatterns(
        name=card.name,
        ids=np.array([Path(name).stem for name in names]),
        axis=[AXIS] * len(names),
        intensity=[_intensity(folder / name) for name in names],
        labels={"temperature": np.array(temperatures)},
        axis_name=TWO_THETA,
        wavelengths=np.full(len(names), WAVELENGTH),
    )


def _temperature(name: str) -> float:
    found = re.fullmatch(r"BTO_(\d+)K_tth\.npy", name)
    if not found:
        raise DataError(f"{name}: expected a name like BTO_150K_tth.npy.")
    return float(found[1])


def _intensity(path: Path) -> np.ndarray:
    """Intensities [3488]. Raises DataError."""
    try:
        return np.load(path, allow_pickle=False).astype(np.float64).reshape(AXIS.shape)
    except (OSError, ValueError, EOFError, AttributeError) as error:
        raise DataError(f"{path}: not {len(AXIS)} intensities ({error}).") from error
