"""Fit of a Gaussian approximation potential: sparse points from the training frames, then linear least squares."""

import copy

from torch import Tensor

from replimat.models.gap import Gap
from replimat.training.graphs import Graphs, eval_loader
from replimat.training.least_squares import least_squares

SIGMA_ENERGY = 0.01  # eV: the noise of a total energy is this times the root of the number of atoms
SIGMA_FORCES = 0.05  # eV/angstrom
FRAMES = 8  # described at once


def solve(
    model: Gap,
    graphs: Graphs,
    rows: Tensor,
    seed: int,
    sigma_energy: float = SIGMA_ENERGY,
    sigma_forces: float = SIGMA_FORCES,
) -> None:
    """Choose the model's sparse points among the atoms of the given rows and set its coefficients, in place.

    graphs: with total energies (eV) and forces. The noise of a total energy grows with the root of the number of
    atoms, as in the authors' engine; the mean number of atoms stands for all rows here, which differ in surfaces alone.
    """
    model.choose_sparse((inputs for inputs, _ in eval_loader(graphs, rows, FRAMES)), seed)
    sizes = (graphs.offsets[1:] - graphs.offsets[:-1]).to(graphs.target)
    above = copy.copy(graphs)
    above.target = graphs.target - model.e0 * sizes
    weights = {"energy": float(sizes[rows].mean().sqrt()) / sigma_energy, "forces": 1 / sigma_forces}
    least_squares(model, above, rows, weights, batch=1)
