"""Measured diffraction patterns: what a reader's `read_patterns(folder, card)` gives, verified and checked.

Patterns of one dataset may differ in their axis; nothing is interpolated or scaled here.
"""

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from replimat import cards, sources
from replimat.cards import DatasetCard
from replimat.datasets.checks import reading
from replimat.datasets.loading import reader_of
from replimat.errors import DataError

SYSTEMS = ("triclinic", "monoclinic", "orthorhombic", "tetragonal", "trigonal", "hexagonal", "cubic")
TWO_THETA = "two_theta, degree"


@dataclass(frozen=True)
class MeasuredPatterns:
    """n measured patterns, of P_i points each.

    ids [n]; axis and intensity: n arrays [P_i], the axis ascending; labels: [n] or [n, K] by name, crystal_system
    being the place in SYSTEMS; axis_name: what the axis is, with its unit; wavelengths: angstrom [n]; sha256 of it all.
    """

    name: str
    ids: np.ndarray
    axis: list[np.ndarray]
    intensity: list[np.ndarray]
    labels: dict[str, np.ndarray]
    axis_name: str
    wavelengths: np.ndarray
    sha256: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    def content_sha256(self) -> str:
        """sha256 of ids, axes, intensities, labels and wavelengths."""
        digest = hashlib.sha256("\n".join([self.name, self.axis_name, *map(str, self.ids), *self.labels]).encode())
        for array in (*self.axis, *self.intensity, *self.labels.values(), self.wavelengths):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def load_patterns(name: str) -> MeasuredPatterns:
    """The measured patterns `name` from their folder, verified first.

    Raises CardError for an unknown name, IntegrityError when it is not fetched or changed, SourceError or DataError
    when a file is not what the card says.
    """
    card = cards.dataset(name)
    if card.kind != "patterns":
        raise DataError(f"Dataset {name!r} holds {card.kind}, not patterns: use replimat.datasets.load.")
    sources.verify(name)
    reader, folder = reader_of(card), sources.folder_of(name)
    with reading(card, folder):
        data = reader.read_patterns(folder, card)
        check(data, card)
    return replace(data, sha256=data.content_sha256())


def check(data: MeasuredPatterns, card: DatasetCard) -> None:
    """Raise DataError where patterns are not what the card says, or not patterns."""
    n = len(data)
    if card.rows is not None and n != card.rows:
        raise DataError(f"Dataset {card.name!r}: {n} patterns, its card says {card.rows}.")
    if not n:
        raise DataError(f"Dataset {card.name!r}: no patterns.")
    if repeated := n - len(np.unique(data.ids)):
        raise DataError(f"Dataset {card.name!r}: {repeated} ids stand more than once.")
    lengths = [len(data.axis), len(data.intensity), len(data.wavelengths), *map(len, data.labels.values())]
    if set(lengths) != {n}:
        raise DataError(f"Dataset {card.name!r}: {n} patterns with arrays for {lengths} of them.")
    for name, axis, intensity in zip(data.ids, data.axis, data.intensity, strict=True):
        if fault := pattern_fault(axis, intensity):
            raise DataError(f"Dataset {card.name!r}, pattern {name}: {fault}.")
    if not (np.isfinite(data.wavelengths) & (data.wavelengths > 0)).all():
        raise DataError(f"Dataset {card.name!r}: a wavelength is not a positive number.")
    for name, values in data.labels.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise DataError(f"Dataset {card.name!r}, label {name!r}: a value is not finite.")


def pattern_fault(axis: np.ndarray, intensity: np.ndarray) -> str:
    """What makes an axis [P] and intensities [P] unusable; empty when nothing does."""
    if axis.ndim != 1 or axis.shape != intensity.shape or len(axis) < 2:
        return f"axis {axis.shape} and intensities {intensity.shape} are no pattern"
    if not (np.isfinite(axis).all() and np.isfinite(intensity).all()):
        return f"{(~np.isfinite(axis) | ~np.isfinite(intensity)).sum()} points are not finite"
    if not (np.diff(axis) > 0).all():
        return "the axis does not ascend"
    return "" if (intensity > 0).any() else "no intensity is positive"
