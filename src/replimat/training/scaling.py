"""Targets made easy to learn: references and spread, fitted on the training rows, undone in double precision."""

from dataclasses import dataclass

import numpy as np

from replimat.errors import DataError
from replimat.training.settings import Scaling

MAX_Z = 119


def element_counts(numbers: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """How many atoms of each element every structure has [n, 119]."""
    structure = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    counts = np.bincount(structure * MAX_Z + numbers, minlength=(len(offsets) - 1) * MAX_Z)
    return counts.reshape(-1, MAX_Z).astype(np.float64)


@dataclass(frozen=True)
class FittedScaling:
    """scaled = (y - reference) / scale, with reference = constant + counts @ per_element [119]; both in the target's
    unit.
    """

    constant: float
    per_element: np.ndarray
    scale: float

    def reference(self, counts: np.ndarray) -> np.ndarray:
        return self.constant + counts @ self.per_element

    def forward(self, values: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return (values - self.reference(counts)) / self.scale

    def inverse(self, scaled: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return scaled.astype(np.float64) * self.scale + self.reference(counts)


def standardised(mean: float, std: float) -> FittedScaling:
    """A plain mean and standard deviation, as released checkpoints store them."""
    return FittedScaling(mean, np.zeros(MAX_Z), std)


def fit_scaling(settings: Scaling, values: np.ndarray, counts: np.ndarray) -> FittedScaling:
    """Fit references and spread on training rows: values [n], element counts [n, 119].

    "elements" is a least-squares energy per element (an element the training rows lack gets zero); "mean" is the
    mean, per atom if `per_atom`; "none" changes nothing. Raises DataError if the target does not vary.
    """
    if settings.references == "none":
        return standardised(0.0, 1.0)
    atoms = counts.sum(axis=1)
    per_element, constant = np.zeros(MAX_Z), 0.0
    if settings.references == "elements":
        present = counts.any(axis=0)
        per_element[present] = np.linalg.lstsq(counts[:, present], values, rcond=None)[0]
    elif settings.per_atom:
        per_element[:] = (values / atoms).mean()
    else:
        constant = float(values.mean())
    residual = values - constant - counts @ per_element
    scale = float(np.std(residual / atoms if settings.per_atom else residual))
    if not np.isfinite(scale) or scale == 0.0:
        raise DataError(
            f"The target does not vary over the {len(values)} training rows (spread {scale}): nothing to learn."
        )
    return FittedScaling(constant, per_element, scale)
