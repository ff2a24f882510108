"""Fits of potentials that are linear in their coefficients."""

import numpy as np
import pytest
import torch

from replimat.datasets.base import Structures
from replimat.errors import ReplimatError
from replimat.models.forces import energy_and_forces
from replimat.representations.cutoff_graph import CutoffGraph
from replimat.training.graphs import graphs_of
from replimat.training.least_squares import least_squares, solve_scaled

CUTOFF, POWERS = 4.0, torch.arange(2, 6, dtype=torch.float64)


class PairPowers(torch.nn.Module):
    """E = sum over edges of sum_k c_k (1 - r / cutoff)^k, with its design matrix by differentiation."""

    cutoff = CUTOFF

    def __init__(self, ridge: float = 0.0):
        super().__init__()
        self.coefficients = torch.nn.Parameter(torch.zeros(len(POWERS), dtype=torch.float64))
        self.ridge = ridge

    def terms(self, pos, edge_index, offset, batch, n_graphs):
        r = torch.linalg.vector_norm(pos[edge_index[0]] + offset - pos[edge_index[1]], dim=-1)
        terms = (1 - r / CUTOFF)[:, None] ** POWERS
        return torch.zeros(n_graphs, len(POWERS), dtype=torch.float64).index_add(0, batch[edge_index[1]], terms)

    def forward(self, z, pos, edge_index, batch, n_graphs, offset):
        return self.terms(pos, edge_index, offset, batch, n_graphs) @ self.coefficients

    def design(self, inputs):
        pos = inputs["pos"].clone().requires_grad_()
        given = {name: inputs[name] for name in ("edge_index", "offset", "batch", "n_graphs")}
        energy = self.terms(pos, **given)
        columns = [torch.autograd.grad(energy[:, k].sum(), pos, retain_graph=True)[0] for k in range(len(POWERS))]
        return {"energy": energy.detach(), "forces": -torch.stack(columns, dim=-1)}

    def prior(self):
        return self.ridge * torch.eye(len(POWERS), dtype=torch.float64) if self.ridge else None


@pytest.fixture(scope="module")
def graphs():
    """Twelve shaken cells of 3 to 8 atoms whose energies and forces come from known coefficients, and the latter."""
    rng, cell = np.random.default_rng(0), np.eye(3) * 5.0
    grid = np.stack(np.meshgrid(*[np.arange(2)] * 3), -1).reshape(-1, 3) * 2.5
    sizes = [3, 8, 5, 4] * 3
    frames = [(np.full(n, 29), grid[:n] + rng.normal(scale=0.2, size=(n, 3)), cell) for n in sizes]
    arrays = CutoffGraph(cutoff=CUTOFF)(Structures.pack(frames, periodic=True), progress=False)
    arrays = {name: torch.from_numpy(array) for name, array in arrays.items()}
    truth = PairPowers()
    with torch.no_grad():
        truth.coefficients.copy_(torch.tensor([0.7, -1.3, 2.0, 0.4], dtype=torch.float64))
    blank = graphs_of("CutoffGraph", arrays, torch.zeros(12, dtype=torch.float64))
    found = energy_and_forces(truth, blank.inputs(torch.arange(12)))
    return graphs_of("CutoffGraph", arrays, found["energy"], found["forces"]), truth.coefficients.detach()


@pytest.mark.parametrize("weights", [{"energy": 1.0, "forces": 1.0}, {"energy": 100.0, "forces": 0.01}])
def test_exact_labels_give_the_coefficients_back(graphs, weights):
    data, truth = graphs
    model = PairPowers()
    least_squares(model, data, torch.arange(12), weights, batch=5)
    torch.testing.assert_close(model.coefficients.detach(), truth, rtol=1e-8, atol=1e-9)


def test_folding_in_batches_equals_one_solution_of_all_rows(graphs):
    data, _ = graphs
    noisy = graphs_of("CutoffGraph", data.arrays, data.target + torch.sin(torch.arange(12.0)), data.forces)
    noisy.target = noisy.target.double()
    weights, found = {"energy": 3.0, "forces": 0.5}, []
    for batch in (1, 12):
        model = PairPowers()
        least_squares(model, noisy, torch.arange(12), weights, batch=batch)
        found.append(model.coefficients.detach())
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-10)
    inputs, target = noisy.__getitems__(list(range(12)))
    part, sizes = PairPowers().design(inputs), torch.bincount(inputs["batch"])
    rows = torch.cat([3.0 * part["energy"] / sizes[:, None], 0.5 * part["forces"].flatten(0, 1)])
    right = torch.cat([3.0 * target["energy"] / sizes, 0.5 * target["forces"].flatten()])
    torch.testing.assert_close(found[0], torch.linalg.lstsq(rows, right).solution, rtol=1e-8, atol=1e-9)


def test_a_prior_shrinks_the_coefficients(graphs):
    data, truth = graphs
    model = PairPowers(ridge=1e3)
    least_squares(model, data, torch.arange(12), {"energy": 1.0, "forces": 1.0})
    assert model.coefficients.norm() < 0.1 * truth.norm()


def test_undetermined_directions_get_no_share():
    matrix = torch.tensor([[1.0, 1.0], [2.0, 2.0]], dtype=torch.float64)
    found = solve_scaled(matrix, torch.tensor([2.0, 4.0], dtype=torch.float64))
    torch.testing.assert_close(found, torch.ones(2, dtype=torch.float64))


def test_a_design_that_is_not_finite_is_refused(graphs):
    data, _ = graphs
    bad = graphs_of("CutoffGraph", data.arrays, data.target * float("nan"), data.forces)
    with pytest.raises((ReplimatError, RuntimeError), match=r"finite|lstsq|converge|NaN|nan"):
        least_squares(PairPowers(), bad, torch.arange(12), {"energy": 1.0, "forces": 1.0})
