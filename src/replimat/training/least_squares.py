"""Potentials that are linear in their coefficients, fitted to energies and forces at once by least squares.

    minimise  sum w_E^2 (E/n - E'/n)^2 + sum w_F^2 (F - F')^2 + |R c|^2

over the coefficients c. The design matrix is never held whole: its rows are folded, batch by batch, into the triangle
of a QR decomposition (Golub and Van Loan, Matrix Computations, 5.2), which is as exact as a QR of all rows at once and
does not square the condition number as normal equations do.
"""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from replimat.errors import ReplimatError
from replimat.training.graphs import Graphs, eval_loader

BATCH = 4  # frames whose forces are differentiated at once
SHRINK = 4  # rows are folded when there are this many times as many as columns
RCOND = 1e-13  # singular values of the scaled triangle below this share of the largest carry no information


class LinearPotential(Protocol):
    """coefficients: parameter [K]; design: energies [B, K] and forces [N, 3, K] per coefficient, of one batch;
    prior: R, rows [P, K] that hold the coefficients down, or None."""

    coefficients: torch.nn.Parameter

    def design(self, inputs: dict) -> dict[str, Tensor]: ...

    def prior(self) -> Tensor | None: ...


def least_squares(
    model: LinearPotential, graphs: Graphs, rows: Tensor, weights: dict[str, float], batch: int = BATCH
) -> None:
    """Set `model.coefficients` [K] to the least-squares solution over the given rows, in place.

    graphs: with total energies and forces in the model's unit; weights: w_E of an energy per atom, w_F of a force
    component. Raises ReplimatError when the solution is not finite.
    """
    folded = None
    for block in _blocks(model, graphs, rows, weights, batch):
        folded = block if folded is None else torch.cat([folded, block])
        if len(folded) > SHRINK * folded.shape[1]:
            folded = torch.linalg.qr(folded, mode="r").R
    solution = solve_scaled(folded[:, :-1], folded[:, -1])
    if not torch.isfinite(solution).all():
        raise ReplimatError("The least-squares solution is not finite: the design matrix has values that are not.")
    with torch.no_grad():
        model.coefficients.copy_(solution)


def solve_scaled(matrix: Tensor, right: Tensor) -> Tensor:
    """Least-squares solution of matrix [R, K] c = right [R] with columns scaled to one length; directions that the
    rows do not determine get no share.
    """
    length = torch.linalg.vector_norm(matrix, dim=0)
    length = torch.where(length > 0, length, torch.ones_like(length))
    found = torch.linalg.lstsq(matrix / length, right[:, None], rcond=RCOND, driver="gelsd").solution[:, 0]
    return found / length


def _blocks(model, graphs, rows, weights, batch) -> Iterator[Tensor]:
    """Weighted rows of the design matrix with their right-hand sides as last column [*, K + 1]."""
    if (prior := model.prior()) is not None:
        yield torch.cat([prior, prior.new_zeros(len(prior), 1)], dim=1)
    for inputs, target in eval_loader(graphs, rows, batch):
        part = model.design(inputs)
        sizes = torch.bincount(inputs["batch"], minlength=inputs["n_graphs"])
        energy = torch.cat([part["energy"], target["energy"][:, None]], dim=1) / sizes[:, None]
        forces = torch.cat([part["forces"].flatten(0, 1), target["forces"].reshape(-1, 1)], dim=1)
        yield torch.cat([weights["energy"] * energy, weights["forces"] * forces]).detach()
