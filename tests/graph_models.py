"""Physics every graph model must obey. A model's test inherits GraphModelTests and says how to make the model."""

import numpy as np
import pytest
import torch

from replimat.datasets.base import Structures
from replimat.training.graphs import graphs_of

FLOAT32_NOISE = 2e-5  # sums over ~100 edges in single precision, outputs of order one
FLOAT64_NOISE = 1e-10
GRADIENT_NOISE = 1e-6  # central differences of step 1e-4 in double precision


def crystal(seed: int, atoms: int = 5, edge: float = 5.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A triclinic crystal without symmetry: a swapped edge or a wrong image changes its answer."""
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(edge, 1.3 * edge, 3)) + rng.uniform(-0.6, 0.6, (3, 3))
    grid = np.stack(np.meshgrid(*[np.arange(2)] * 3), -1).reshape(-1, 3)[:atoms] / 2
    return rng.integers(1, 30, atoms), (grid + rng.uniform(-0.1, 0.1, (atoms, 3))) @ cell, cell


def rotation(seed: int) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.linalg.det(q)


def supercell(numbers, positions, cell, repeats):
    shifts = np.stack(np.meshgrid(*[np.arange(r) for r in repeats], indexing="ij"), -1).reshape(-1, 3)
    tiled = (positions[None] + (shifts @ cell)[:, None]).reshape(-1, 3)
    return np.tile(numbers, len(shifts)), tiled, cell * np.array(repeats)[:, None]


class GraphModelTests:
    """Set `representation` and `model()`; extensive: supercells multiply the output; differentiable: reads positions;
    smooth: continuous where a neighbour crosses the cutoff."""

    representation = None
    extensive = False
    differentiable = False
    smooth = False

    def model(self) -> torch.nn.Module:
        raise NotImplementedError

    @pytest.fixture
    def trained_like(self):
        """The model with random weights everywhere (also where initialisation is zero), in evaluation mode."""
        torch.manual_seed(0)
        model = self.model().double()
        for weights in model.parameters():
            if weights.dim() > 0 and not weights.any():
                torch.nn.init.normal_(weights, std=0.3)
        return model.eval()

    def inputs(self, structures, dtype=torch.float64) -> dict:
        packed = Structures.pack(list(structures), periodic=bool(np.any(structures[0][2])))
        arrays = {k: torch.from_numpy(v) for k, v in self.representation(packed, progress=False).items()}
        graphs = graphs_of(type(self.representation).__name__, arrays, torch.zeros(len(structures)))
        found = graphs.inputs(torch.arange(len(structures)))
        return {k: v.to(dtype) if torch.is_tensor(v) and v.is_floating_point() else v for k, v in found.items()}

    def predict(self, model, *structures, dtype=torch.float64) -> np.ndarray:
        with torch.no_grad():
            return model(**self.inputs(structures, dtype)).numpy()

    def test_a_batch_gives_what_single_structures_give(self, trained_like):
        several = [crystal(seed, atoms) for seed, atoms in ((1, 5), (2, 3), (3, 7))]
        alone = np.concatenate([self.predict(trained_like, one) for one in several])
        assert np.ptp(alone) > 1e-4  # a model that ignores its input would pass everything below
        np.testing.assert_allclose(self.predict(trained_like, *several), alone, atol=FLOAT64_NOISE)

    def test_permutation(self, trained_like):
        z, x, cell = crystal(4, 6)
        order = np.random.default_rng(0).permutation(6)
        np.testing.assert_allclose(
            self.predict(trained_like, (z[order], x[order], cell)),
            self.predict(trained_like, (z, x, cell)),
            atol=FLOAT32_NOISE,
        )

    def test_rotation_and_translation(self, trained_like):
        z, x, cell = crystal(5)
        turn = rotation(1)
        moved = (z, x @ turn.T + np.array([0.3, -1.2, 2.5]), cell @ turn.T)
        np.testing.assert_allclose(
            self.predict(trained_like, moved), self.predict(trained_like, (z, x, cell)), atol=FLOAT32_NOISE
        )

    def test_supercell(self, trained_like):
        one = crystal(6, 4)
        factor = 6 if self.extensive else 1
        np.testing.assert_allclose(
            self.predict(trained_like, supercell(*one, (1, 2, 3))),
            factor * self.predict(trained_like, one),
            atol=factor * FLOAT32_NOISE,
        )

    def test_single_precision(self, trained_like):
        one = crystal(7)
        double = self.predict(trained_like, one)
        single = self.predict(trained_like.float(), one, dtype=torch.float32)
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, double, atol=FLOAT32_NOISE)

    @pytest.mark.filterwarnings("ignore")  # padding of the lone atom is warned of, as it should
    def test_lone_atom(self, trained_like):
        lone = (np.array([26]), np.zeros((1, 3)), np.eye(3) * 60.0)
        assert np.isfinite(self.predict(trained_like, lone)).all()

    def test_derivative_equals_finite_differences(self, trained_like):
        if not self.differentiable:
            pytest.skip("the model reads distances made beforehand, not positions")
        given = self.inputs([crystal(8)])
        given["pos"].requires_grad_()
        (gradient,) = torch.autograd.grad(trained_like(**given).sum(), given["pos"])
        step, numeric = 1e-4, torch.zeros_like(gradient)
        for atom in range(len(gradient)):
            for axis in range(3):
                values = []
                for sign in (1, -1):
                    moved = given["pos"].detach().clone()
                    moved[atom, axis] += sign * step
                    values.append(trained_like(**{**given, "pos": moved}).sum())
                numeric[atom, axis] = (values[0] - values[1]) / (2 * step)
        assert gradient.abs().max() > 1e-4
        torch.testing.assert_close(gradient, numeric.detach(), atol=GRADIENT_NOISE, rtol=1e-5)

    def test_smooth_at_the_cutoff(self, trained_like):
        if not self.smooth:
            pytest.skip("a fixed number of neighbours is not a continuous function of the positions")
        cutoff, z = self.representation.cutoff, np.array([6, 8])
        pair = lambda d: (z, np.array([[0.0, 0, 0], [d, 0, 0]]), np.zeros((3, 3)))  # noqa: E731
        inside, outside = (self.predict(trained_like, pair(cutoff + s))[0] for s in (-1e-4, 1e-4))
        near = self.predict(trained_like, pair(0.6 * cutoff))[0]
        assert abs(near - outside) > 1e-4  # the pair does interact
        assert inside == pytest.approx(outside, abs=1e-6)
