"""What a powder of each crystal diffracts, as a list of reflections: the prepared form of every diffraction paper.

A pattern of 9,000 points is 36 kB, its reflections are 2 kB; and wavelength, peak shape, texture, zero shift,
background and noise can still be chosen, for every step of a training anew (replimat.representations.simulation).
"""

from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np

from replimat.datasets.base import Structures
from replimat.representations.structure_factors import Radiation, reflections


@dataclass(frozen=True)
class PowderReflections:
    """Reflections with d_min <= d <= d_max (angstrom).

    equivalents: keep hkl of one spacing apart, which texture needs. Reflections weaker than `keep` times the strongest
    are left out, after both are multiplied by d^2, as the Lorentz factor at small angles does.
    """

    radiation: Radiation = "xray"
    d_min: float = 1.0
    d_max: float = 100.0
    equivalents: bool = False
    keep: float = 1e-4

    version: ClassVar[int] = 1  # raise when the arrays change for the same parameters

    def parameters(self) -> dict:
        """Everything that decides the arrays, for the key of the prepared file."""
        return asdict(self)

    def __call__(self, structures: Structures, progress: bool = True) -> dict[str, np.ndarray]:
        """Arrays of all crystals packed end to end.

        d: spacing, angstrom [R] float32; intensity: |F|^2 / V^2, electrons^2 or fm^2 per angstrom^6 [R] float32;
        reflection_offsets [n + 1] int64; volume: of the cell, angstrom^3 [n]; density: g/cm^3 [n] (with X-ray or
        neutron intensities these give mixtures by weight); with equivalents also hkl [R, 3] int16 and cells [n, 3, 3].
        """
        found = reflections(structures, self.d_min, self.radiation, equivalents=self.equivalents)
        volume = np.abs(np.linalg.det(structures.cells))
        sizes = found.offsets.diff().numpy()
        owner = np.repeat(np.arange(len(structures)), sizes)
        d, intensity = found.d.numpy(), found.intensity.numpy() / volume[owner] ** 2
        kept = self._kept(d, intensity, owner, len(structures))
        counts = np.bincount(owner[kept], minlength=len(structures))
        arrays = {
            "d": d[kept].astype(np.float32),
            "intensity": intensity[kept].astype(np.float32),
            "reflection_offsets": np.concatenate([[0], counts.cumsum()]).astype(np.int64),
            "volume": volume,
            "density": densities(structures, volume),
        }
        if self.equivalents:
            arrays |= {"hkl": found.hkl.numpy()[kept].astype(np.int16), "cells": structures.cells}
        return arrays

    def _kept(self, d: np.ndarray, intensity: np.ndarray, owner: np.ndarray, n: int) -> np.ndarray:
        strength = intensity * d**2 * (d <= self.d_max)
        strongest = np.zeros(n)
        np.maximum.at(strongest, owner, strength)
        return (d <= self.d_max) & (strength > self.keep * strongest[owner])


def densities(structures: Structures, volume: np.ndarray) -> np.ndarray:
    """Mass density of each crystal, g/cm^3 [n]; volume: of the cells, angstrom^3 [n]."""
    from ase.data import atomic_masses
    from scipy.constants import atomic_mass

    masses = atomic_masses[structures.numbers]
    if structures.occupancies is not None:
        masses = masses * structures.occupancies
    per_cell = np.add.reduceat(masses, structures.offsets[:-1])
    return per_cell / volume * atomic_mass * 1e27  # kg/angstrom^3 to g/cm^3
