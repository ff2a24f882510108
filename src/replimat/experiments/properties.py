"""Properties of any crystals as the CGCNN authors' released weights predict them: a judge of what generators make.

A surrogate, trained on relaxed crystals of the Materials Project: of one far from equilibrium it is an extrapolation.
"""

import warnings
from pathlib import Path

import numpy as np

from replimat.datasets.base import Structures

BATCH = 128
THINNEST = 1.0  # angstrom: cells flatter than this have more images within 8 angstrom than can be counted


def author_property(name: str, structures: Structures, folder: Path, device: str = "cpu") -> np.ndarray:
    """Values [n] of a property of cgcnn.CHECKPOINTS ("formation_energy" in eV/atom, "band_gap" in eV, ...), NaN for
    cells thinner than THINNEST; folder: of the dataset cgcnn_weights.
    """
    import torch

    from replimat.experiments.cgcnn import REPRESENTATION, released
    from replimat.models.elements import read_element_features
    from replimat.training.fit import predict
    from replimat.training.graphs import CrystalGraphs
    from replimat.training.scaling import element_counts

    values = np.full(len(structures), np.nan)
    usable = np.flatnonzero(thickness(structures.cells) >= THINNEST)
    if not len(usable):
        return values
    chosen = structures.take(usable)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # padding is common in sparse cells, and counted nowhere here
        arrays = REPRESENTATION(chosen, progress=False)
    model, scaling = released(name)(folder, {"element_features": read_element_features(folder / "atom_init.json")})
    graphs = CrystalGraphs({key: torch.as_tensor(value) for key, value in arrays.items()}, torch.zeros(len(chosen)))
    output = predict(model, graphs, torch.arange(len(chosen)), BATCH, device)
    values[usable] = scaling.inverse(output, element_counts(chosen.numbers.astype(np.int64), chosen.offsets))
    return values


def thickness(cells: np.ndarray) -> np.ndarray:
    """Smallest distance between opposite faces of each cell, angstrom [n]; NaN where a cell is not finite."""
    a, b, c = np.moveaxis(cells, 1, 0)  # [n, 3] each
    faces = np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)])
    areas = np.linalg.norm(faces, axis=-1).max(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.abs(np.linalg.det(cells)) / areas
