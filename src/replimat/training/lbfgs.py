"""Full-batch L-BFGS on energies and forces (Nocedal and Wright, Numerical Optimization, 7.2), for any potential.

    minimise  L = sum w_E^2 (E/n - E'/n)^2 + sum w_F^2 (F - F')^2

over a model's parameters: the same sum, with the same weights, as training/least_squares.py. Frames go through in
chunks, so that memory does not grow with their number.

A potential that is linear in some of its parameters (`LinearPotential`) need not search for those: `solve` finds them
by least squares at every step and searches for the others alone (variable projection, Golub and Pereyra, SIAM J. Numer.
Anal. 10, 413 (1973)). The gradient of what is left by the other parameters is the plain gradient of L at the solution,
because L does not change to first order with the parameters that were solved for. It needs far fewer steps than a
search in all parameters at once, which are scaled very differently, and it ends with the linear problem solved.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from replimat.errors import ReplimatError
from replimat.models.forces import energy_and_forces
from replimat.training.graphs import Graphs, eval_loader
from replimat.training.least_squares import least_squares

WEIGHTS = {"energy": 1.0, "forces": 1e-2}  # per eV/atom and per eV/angstrom
BATCH = 4  # frames whose forces are differentiated at once
MEMORY = 20  # steps that the curvature is taken from
EVERY = 10  # steps between lines of progress


def solve(
    model: nn.Module,
    graphs: Graphs,
    rows: Tensor,
    seed: int,
    iterations: int = 30,
    weights: dict[str, float] = WEIGHTS,
    batch: int = BATCH,
    search: int = 0,
) -> None:
    """Fit all parameters of a `LinearPotential` that has `start(seed)`, in place; iterations: of the search for those
    it is not linear in (0: least squares at the starting point alone); search: how many of the rows, drawn by the seed,
    that search looks at (0: all). The linear parameters are solved for on all rows at the end.

    Raises ReplimatError when an energy or a force is not finite.
    """
    model.start(seed)
    some = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[: search or None]]
    project = lambda: least_squares(model, graphs, some, weights, batch)  # noqa: E731
    searched = [p for p in model.parameters() if p is not model.coefficients]
    lbfgs(model, graphs, some, weights, iterations, searched, project, batch)
    least_squares(model, graphs, rows, weights, batch)


def lbfgs(
    model: nn.Module,
    graphs: Graphs,
    rows: Tensor,
    weights: dict[str, float],
    iterations: int,
    parameters: list[nn.Parameter] | None = None,
    project: Callable[[], None] | None = None,
    batch: int = BATCH,
) -> float:
    """Minimise L over `parameters` (all, unless given) in place; returns the smallest L found.

    project: called before every evaluation; it may set parameters that are not searched for to where L has no gradient.
    """
    from scipy.optimize import minimize

    parameters = list(model.parameters()) if parameters is None else parameters
    best: tuple[float, np.ndarray] = (np.inf, _flat(parameters))
    steps, unit = 0, 0.0  # unit: L at the start; the limits of minimize() are meant for functions of order one

    def evaluate(x: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best, unit
        _set(parameters, x)
        if project is not None:
            project()
        value, gradient = loss_and_gradient(model, graphs, rows, weights, parameters, batch)
        if not np.isfinite(value):
            raise ReplimatError("The search for parameters met an energy or a force that is not finite.")
        best = min(best, (value, x.copy()), key=lambda found: found[0])
        unit = unit or value or 1.0
        return value / unit, gradient / unit

    def progress(_) -> None:
        nonlocal steps
        steps += 1
        if steps % EVERY == 0:
            print(f"L-BFGS step {steps} of {iterations}: loss {best[0]:.6g}", flush=True)

    if iterations > 0:
        limits = {"maxiter": iterations, "maxcor": MEMORY, "maxls": 10}
        minimize(evaluate, best[1], jac=True, method="L-BFGS-B", callback=progress, options=limits)
        _set(parameters, best[1])
    return best[0]


def loss_and_gradient(
    model: nn.Module,
    graphs: Graphs,
    rows: Tensor,
    weights: dict[str, float],
    parameters: list[nn.Parameter],
    batch: int,
) -> tuple[float, np.ndarray]:
    """L and its gradient by the parameters, laid end to end, in double precision."""
    value, gradient = 0.0, np.zeros(sum(p.numel() for p in parameters))
    for inputs, target in eval_loader(graphs, rows, batch):
        found = energy_and_forces(model, inputs, create_graph=True)
        sizes = torch.bincount(inputs["batch"], minlength=inputs["n_graphs"])
        energy = weights["energy"] * (found["energy"] - target["energy"]) / sizes
        forces = weights["forces"] * (found["forces"] - target["forces"])
        loss = energy.square().sum() + forces.square().sum()
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        value += float(loss.detach())
        gradient += np.concatenate([g.detach().double().numpy().ravel() for g in gradients])
    return value, gradient


def _flat(parameters: list[nn.Parameter]) -> np.ndarray:
    return np.concatenate([p.detach().double().numpy().ravel() for p in parameters])


def _set(parameters: list[nn.Parameter], x: np.ndarray) -> None:
    parts = torch.from_numpy(x.copy()).split([p.numel() for p in parameters])
    with torch.no_grad():
        for p, part in zip(parameters, parts, strict=True):
            p.copy_(part.view_as(p))
