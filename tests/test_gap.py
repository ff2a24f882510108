"""GAP: physics of a potential, SOAP against its definition and QUIP's, the fit against QUIP's gap_fit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import spherical_in

from potentials import PotentialTests
from replimat.datasets.base import Structures
from replimat.models.forces import energy_and_forces
from replimat.models.gap import Gap, Soap, harmonics, leverage_sample, power, scaled_bessel
from replimat.representations.cutoff_graph import CutoffGraph
from replimat.training.gap import solve
from replimat.training.graphs import Graphs, eval_loader, graphs_of

QUIP = Path(__file__).parent / "golden" / "gap_quip.npz"
HELD_OUT = 4  # frames at the end that gap_fit did not see
CUTOFF, E0 = 4.1, -0.65  # the released copper's
SAME_DESCRIPTOR = 1e-12  # double precision
SAME_FIT = 1e-7  # eV, eV/angstrom: double precision through a kernel matrix conditioned by its jitter of 1e-8


@pytest.fixture(scope="module")
def quip() -> dict:
    with np.load(QUIP) as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def frames(quip) -> Graphs:
    """Frames of the golden file as graphs, with edges longer than the cutoff."""
    numbers = np.full(quip["positions"].shape[1], 29)
    packed = Structures.pack(
        [(numbers, x, cell) for x, cell in zip(quip["positions"], quip["cells"], strict=True)], periodic=True
    )
    arrays = CutoffGraph(cutoff=CUTOFF + 0.3)(packed, progress=False)
    arrays = {name: torch.from_numpy(array) for name, array in arrays.items()}
    forces = torch.from_numpy(quip["forces"].reshape(-1, 3))
    return graphs_of("CutoffGraph", arrays, torch.from_numpy(quip["energies"]), forces)


@pytest.fixture(scope="module")
def train(quip):
    return torch.arange(len(quip["energies"]) - HELD_OUT)


def potential(sparse: int = 25) -> Gap:
    return Gap(29, CUTOFF, sparse, e0=E0)


class TestGap(PotentialTests):
    def potential(self):
        """Sparse points are environments of random neighbours, so that the kernel tells structures apart."""
        model = Gap(29, CUTOFF, 6, e0=-0.65)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            places = torch.randn(6, 14, 3, generator=generator, dtype=torch.float64) * 2
            model.sparse.copy_(model.soap(places)[0])
            model.coefficients.copy_(torch.randn(6, generator=generator, dtype=torch.float64))
        return model

    def test_another_element_is_refused(self, model):
        numbers, x, cell = self.crystal(1)
        with pytest.raises(ValueError, match="29"):
            self.energies(model, (np.full_like(numbers, 28), x, cell))

    def test_atoms_on_top_of_each_other_have_finite_forces(self, model):
        close = (np.full(2, 29), np.array([[0.0, 0, 0], [1e-3, 0, 0]]), np.zeros((3, 3)))
        assert np.isfinite(self.forces(model, close)).all()

    def test_design_agrees_with_autograd(self, model):
        inputs = self.inputs(self.crystal(1), self.crystal(2, 3))
        design = model.design(inputs)
        alone = self.potential()
        for s in range(len(model.coefficients)):
            with torch.no_grad():
                alone.coefficients.copy_(torch.eye(len(model.coefficients), dtype=torch.float64)[s])
            found = energy_and_forces(alone, inputs)
            sizes = torch.bincount(inputs["batch"]).double()
            torch.testing.assert_close(design["energy"][:, s], found["energy"] - alone.e0 * sizes, rtol=0, atol=1e-12)
            torch.testing.assert_close(design["forces"][..., s], found["forces"], rtol=0, atol=1e-12)

    def test_chunks_of_the_design_change_nothing(self, model, monkeypatch):
        inputs = self.inputs(self.crystal(1))
        whole = model.design(inputs)
        monkeypatch.setattr("replimat.models.gap.CHUNK_BYTES", 1)
        for name, value in model.design(inputs).items():
            torch.testing.assert_close(value, whole[name], rtol=0, atol=1e-13)


def test_bessel_functions_against_scipy():
    x = torch.logspace(-4, 2, 400, dtype=torch.float64)[None]
    for order, found in enumerate(scaled_bessel(x, 8)):
        expected = spherical_in(order, x.numpy()) * np.exp(-x.numpy())
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-9)  # worst just above x = 1


def test_harmonics_obey_the_addition_theorem():
    """(2l+1) P_l(u . v) / 4 pi = sum_m Y_lm(u) Y_lm(v), with numpy's Legendre polynomials."""
    u, v = torch.nn.functional.normalize(torch.randn(2, 20, 3, dtype=torch.float64), dim=2)
    cosine = (u * v).sum(dim=1).numpy()
    for order, (a, b) in enumerate(zip(harmonics(*u.T, 8), harmonics(*v.T, 8), strict=True)):
        legendre = np.polynomial.legendre.legval(cosine, np.eye(9)[order])
        np.testing.assert_allclose((a * b).sum(dim=0), (2 * order + 1) * legendre / (4 * np.pi), atol=1e-12)


def test_density_of_one_neighbour_is_a_gaussian():
    """The expansion, summed over l at a grid point, is the neighbour's Gaussian there: no basis is in between."""
    soap = Soap(cutoff=5.0, n_max=8, l_max=12, sigma=0.5, transition=0.5)
    there = torch.tensor([0.2, -0.3, 0.45], dtype=torch.float64)  # so near that l > 12 adds less than 1e-8
    towards = torch.nn.functional.normalize(torch.tensor([1.0, 0.2, 0.5], dtype=torch.float64), dim=0)
    radial, angular = soap.expansion(there.view(1, 1, 3))
    fan = harmonics(*towards[:, None], 12)
    summed = sum(g[0, :, 0] * (y[0, :, 0] @ other[:, 0]) for g, y, other in zip(radial, angular, fan, strict=True))
    distance = (soap.grid[:, None] * towards - there).norm(dim=1)
    expected = torch.exp(-2 * distance**2) / (4 * torch.pi)  # 1 / (2 sigma^2) = 2; the 4 pi drops out of q
    torch.testing.assert_close(summed, expected, rtol=0, atol=1e-8)


def test_radial_functions_are_orthonormal():
    """The overlap of the Gaussians is I on a fine grid in the basis that `orthonormal` stands for."""
    soap = Soap(cutoff=5.0, n_max=8, l_max=2, sigma=0.5, transition=0.5)
    r = torch.linspace(0, 14, 20001, dtype=torch.float64)
    gaussians = torch.exp(-soap.alpha * (r - soap.grid[:, None]) ** 2)  # [n, R]
    to_values = torch.exp(-soap.alpha * (soap.grid[:, None] - soap.grid) ** 2)
    turned = torch.linalg.solve((soap.orthonormal @ to_values).T, gaussians)  # orthonormal functions at r
    overlap = torch.trapezoid(turned[:, None] * turned * r**2, r)
    torch.testing.assert_close(overlap, torch.eye(8, dtype=torch.float64), rtol=0, atol=1e-6)


def test_power():
    x = torch.tensor([-1.5, 0.0, 0.3])
    for exponent in range(7):
        torch.testing.assert_close(power(x, exponent), x**exponent)


def test_leverage_sample_takes_every_environment_once():
    rows = torch.nn.functional.normalize(torch.randn(12, 20, dtype=torch.float64), dim=1)
    repeated = torch.cat([rows, rows, rows])
    chosen = leverage_sample(repeated, 12, seed=0)
    assert sorted(c % 12 for c in chosen.tolist()) == list(range(12))
    assert torch.equal(chosen, leverage_sample(repeated, 12, seed=0))
    with pytest.raises(ValueError, match="12 different"):
        leverage_sample(repeated, 13, seed=0)


def test_leverage_sample_prefers_the_rare():
    """One row out of line with 200 alike is worth more than any of them."""
    generator = torch.Generator().manual_seed(0)
    alike = torch.eye(6, dtype=torch.float64)[0] + 1e-3 * torch.randn(200, 6, generator=generator, dtype=torch.float64)
    alike[:, 1] = 0
    rows = torch.cat([alike, torch.eye(6, dtype=torch.float64)[1:2]])
    assert all(200 in leverage_sample(rows, 5, seed) for seed in range(20))


def test_descriptors_equal_quip(quip, frames):
    """Number by number, in QUIP's order; its radial basis is ours."""
    inputs = frames.inputs(torch.arange(1))
    found = potential().descriptors(inputs["z"], inputs["pos"], inputs["edge_index"], inputs["offset"])
    np.testing.assert_allclose(found.numpy(), quip["descriptors"], atol=SAME_DESCRIPTOR, rtol=0)


def test_quips_weights_give_quips_answers(quip, frames, train):
    model = with_quips_points(quip)
    with torch.no_grad():
        model.coefficients.copy_(torch.from_numpy(quip["weights"]))
    assert_quips_answers(model, quip, frames, train)


def test_the_fit_equals_gap_fit(quip, frames, train):
    """On its sparse points; all frames have 8 atoms, so the weight of energies is exactly its own."""
    model = with_quips_points(quip)
    model.choose_sparse = lambda batches, seed: None
    solve(model, frames, train, seed=0)
    assert_quips_answers(model, quip, frames, train)


def test_own_points_are_as_good_as_quips(quip, frames, train):
    model = potential()
    solve(model, frames, train, seed=0)
    test = frames.inputs(torch.arange(len(train), len(frames)))
    error = (energy_and_forces(model, test)["forces"].numpy() - quip["forces"][-HELD_OUT:].reshape(-1, 3)).std()
    theirs = (quip["test_forces"] - quip["forces"][-HELD_OUT:]).std()
    assert error < 1.25 * theirs  # another draw of 25 points
    assert error < 0.5 * quip["forces"][-HELD_OUT:].std()  # and both learned something


def test_prior_is_a_root_of_the_kernel(frames, train):
    model = Gap(29, CUTOFF, 25, delta=0.7)
    model.choose_sparse((inputs for inputs, _ in eval_loader(frames, train, 4)), seed=0)
    root = model.prior()
    kernel = 0.49 * (model.sparse @ model.sparse.T) ** 4
    torch.testing.assert_close((root.T @ root).fill_diagonal_(0), kernel.fill_diagonal_(0), rtol=1e-10, atol=1e-12)


def test_state_restores_the_potential(frames, train):
    model, again = potential(), potential()
    solve(model, frames, train, seed=0)
    again.load_state_dict(model.state_dict())
    inputs = frames.inputs(train)
    assert torch.equal(again(**inputs), model(**inputs))


def test_more_points_than_environments_are_refused(frames, train):
    with pytest.raises(ValueError, match="different environments"):
        solve(potential(10_000), frames, train, seed=0)


@pytest.mark.parametrize("wrong", [{"zeta": 0}, {"zeta": 2.5}, {"transition": 0.0}, {"transition": 9.0}])
def test_bad_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Gap(29, CUTOFF, 5, **wrong)


def with_quips_points(quip) -> Gap:
    model = potential(len(quip["sparse"]))
    model.sparse.copy_(torch.from_numpy(quip["sparse"]))
    return model


def assert_quips_answers(model, quip, frames, train):
    found = energy_and_forces(model, frames.inputs(torch.arange(len(train), len(frames))))
    np.testing.assert_allclose(found["energy"].detach().numpy(), quip["test_energies"], atol=SAME_FIT, rtol=0)
    np.testing.assert_allclose(found["forces"].numpy(), quip["test_forces"].reshape(-1, 3), atol=SAME_FIT, rtol=0)
