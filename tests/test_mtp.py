"""Moment tensor potentials: physics, the enumeration of contractions, a file of the authors' program, the fit."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms

from potentials import PotentialTests
from replimat.models.contractions import Plan, connected_contractions, products
from replimat.models.forces import energy_and_forces
from replimat.models.mtp import Mtp, read_mlip
from replimat.physics.calculator import ModelCalculator
from replimat.training.graphs import CutoffGraphs
from replimat.training.lbfgs import lbfgs, loss_and_gradient, solve
from replimat.training.least_squares import least_squares

GOLDEN = json.loads((Path(__file__).parent / "golden" / "mtp_mlearn.json").read_text())
WEIGHTS = {"energy": 1.0, "forces": 0.1}


def some_mtp(level: int = 10, seed: int = 0) -> Mtp:
    """All terms count: coefficients in inverse proportion to the size of their basis function."""
    model = Mtp(4.0, level, min_dist=1.8)
    model.start(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        sizes = torch.tensor([10.0 ** (2 * sum(len(model.connected[k].mu) for k in p)) for p in model.products])
        model.coefficients[1:] = torch.randn(len(sizes), generator=generator, dtype=torch.float64) / sizes
    return model


class TestMtp(PotentialTests):
    def potential(self):
        return some_mtp()

    @pytest.mark.parametrize("level", [2, 8, 16])
    def test_design_agrees_with_autograd(self, level):
        model = some_mtp(level)
        given = self.inputs(self.crystal(1), self.crystal(2, 3))
        part, found = model.design(given), energy_and_forces(model, given)
        torch.testing.assert_close(part["energy"] @ model.coefficients, found["energy"], rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(part["forces"] @ model.coefficients, found["forces"], rtol=1e-9, atol=1e-11)

    def test_another_element_is_refused(self):
        given = self.inputs(self.crystal(1))
        with pytest.raises(ValueError, match="one element"):
            Mtp(4.0, 4, element=42)(**given)
        given["z"][0] = 42
        with pytest.raises(ValueError, match="one element"):
            some_mtp(4)(**given)

    def test_the_fit_finds_a_potential_again(self, capsys):
        """Data made by a potential of this very form: the search must come near it, from other radial functions."""
        graphs, rows = self.data(some_mtp(6), 8)
        model = Mtp(4.0, 6, min_dist=1.8)
        model.start(5)
        least_squares(model, graphs, rows, WEIGHTS)
        before, _ = loss_and_gradient(model, graphs, rows, WEIGHTS, [model.radial], 4)
        solve(model, graphs, rows, seed=5, iterations=40, weights=WEIGHTS)
        after, _ = loss_and_gradient(model, graphs, rows, WEIGHTS, [model.radial], 4)
        assert after < 1e-3 * before
        assert "L-BFGS step 10 of 40" in capsys.readouterr().out

    def test_gradient_of_the_loss_is_numeric_and_does_not_depend_on_chunks(self):
        graphs, rows = self.data(some_mtp(8), 3)
        model = some_mtp(8, seed=1)
        value, gradient = loss_and_gradient(model, graphs, rows, WEIGHTS, [model.radial], 1)
        again, other = loss_and_gradient(model, graphs, rows, WEIGHTS, [model.radial], 3)
        assert again == pytest.approx(value, rel=1e-12)
        np.testing.assert_allclose(other, gradient, rtol=1e-9)
        for k in (0, 3, 9):
            either = []
            for step in (1e-5, -1e-5):
                model.radial.data.view(-1)[k] += step
                either.append(loss_and_gradient(model, graphs, rows, WEIGHTS, [model.radial], 3)[0])
                model.radial.data.view(-1)[k] -= step
            assert (either[0] - either[1]) / 2e-5 == pytest.approx(gradient[k], rel=1e-6)

    def test_gradient_of_what_least_squares_leaves(self):
        """Variable projection: the plain gradient at the solution is that of the projected loss."""
        graphs, rows = self.data(some_mtp(10), 6)
        model = some_mtp(6, seed=1)

        def left() -> float:
            least_squares(model, graphs, rows, WEIGHTS)
            return loss_and_gradient(model, graphs, rows, WEIGHTS, [model.radial], 6)[0]

        left()
        _, gradient = loss_and_gradient(model, graphs, rows, WEIGHTS, [model.radial], 6)
        either = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                model.radial[0, 1] += step
            either.append(left())
            with torch.no_grad():
                model.radial[0, 1] -= step
        assert (either[0] - either[1]) / 2e-5 == pytest.approx(gradient[1], rel=1e-4)

    def test_plain_search_in_all_parameters(self):
        """What other potentials use: no projection, every parameter; it never ends above where it began."""
        graphs, rows = self.data(some_mtp(6), 4)
        model = some_mtp(6, seed=3)
        before, _ = loss_and_gradient(model, graphs, rows, WEIGHTS, list(model.parameters()), 4)
        found = lbfgs(model, graphs, rows, WEIGHTS, iterations=15)
        after, _ = loss_and_gradient(model, graphs, rows, WEIGHTS, list(model.parameters()), 4)
        assert after == pytest.approx(found, rel=1e-12)
        assert after < 0.5 * before

    def data(self, model: Mtp, count: int) -> tuple[CutoffGraphs, torch.Tensor]:
        """Graphs of small crystals with a potential's energies and forces."""
        from replimat.datasets.base import Structures
        from replimat.representations.cutoff_graph import CutoffGraph

        packed = Structures.pack([self.crystal(seed) for seed in range(count)], periodic=True)
        arrays = {k: torch.from_numpy(v) for k, v in CutoffGraph(model.cutoff)(packed, progress=False).items()}
        rows = torch.arange(count)
        bare = CutoffGraphs(arrays, torch.zeros(count, dtype=torch.float64))
        found = energy_and_forces(model, bare.inputs(rows))
        return CutoffGraphs(arrays, found["energy"], found["forces"]), rows


class TestContractions:
    @pytest.mark.parametrize("level, count", [(2, 1), (4, 2), (6, 5), (8, 9), (10, 16), (12, 29), (14, 52), (16, 92)])
    def test_number_of_basis_functions(self, level, count):
        """8 and 16 are those of MLIP's template files; the other levels guard the enumeration, from which they come."""
        assert len(products(connected_contractions(level), level)) == count

    def test_products_and_moments_of_level_8(self):
        """The template of level 8 has 11 components of moments and 14 products of them; so has the plan made here."""
        connected = connected_contractions(8)
        plan = Plan(connected, products(connected, 8), share=True)
        assert sum(node[1] for node in plan.leaves) == 11
        assert sum(len(layer[1]) for layer in plan.layers) == 14

    def test_against_full_tensors(self):
        """Every contraction up to level 16, evaluated on whole 3 x ... x 3 tensors with einsum."""
        model = Mtp(5.0, 16)
        rng = np.random.default_rng(0)
        unit = rng.normal(size=(6, 3))
        unit /= np.linalg.norm(unit, axis=1)[:, None]
        f = rng.normal(size=(len(model.radial), 6))
        with torch.no_grad():
            mono = model._monomials(torch.from_numpy(unit.T[:, None]))
            moments = model._moments(torch.from_numpy(f[:, None]), mono)
            _, connected = model.shared(moments)
            _, separate = model.separate(moments[model._copy_of])
        expected = [_with_einsum(c, f, unit) for c in model.connected]
        np.testing.assert_allclose(connected[:, 0], expected, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(separate[:, 0], expected, rtol=1e-10, atol=1e-10)

    def test_basis_functions_are_independent(self):
        """No basis function of level 12 is a linear combination of the others."""
        model = Mtp(5.0, 12)
        moments = torch.randn(len(model._used), 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        values = model.shared(moments)[0]
        values = values / values.norm(dim=1, keepdim=True)
        assert torch.linalg.matrix_rank(values) == len(model.products)


def _with_einsum(c, f, unit) -> float:
    letters = iter("abcdefghijkl")
    names = [""] * len(c.mu)
    pairs = [(i, j) for i in range(len(c.mu)) for j in range(i + 1, len(c.mu))]
    for (i, j), count in zip(pairs, c.edges, strict=True):
        for _ in range(count):
            letter = next(letters)
            names[i], names[j] = names[i] + letter, names[j] + letter
    tensors = []
    for mu, name in zip(c.mu, names, strict=True):
        spec = ",".join(["z", *["z" + x for x in name]]) + "->" + name
        tensors.append(np.einsum(spec, f[mu], *[unit] * len(name)))
    return float(np.einsum(",".join(names) + "->", *tensors))


class TestFileOfMlip:
    def test_fitted_potential_gives_what_its_tables_say_and_what_it_was_fitted_to(self):
        model = read_mlip(GOLDEN["mtp"], element=42)
        one = GOLDEN["frames"][0]
        atoms = Atoms(["Mo"] * len(one["positions"]), one["positions"], cell=one["cell"], pbc=True)
        atoms.calc = ModelCalculator(model)
        assert atoms.get_potential_energy() == pytest.approx(one["energy"], rel=1e-9)
        per_atom = (atoms.get_potential_energy() - one["dft_energy"]) / len(atoms)
        assert abs(per_atom) < 0.05  # eV: a fit, not the data; another convention is off by far more
        forces = np.array(one["dft_forces"])
        assert np.abs(atoms.get_forces() - forces).mean() < 0.2 * np.abs(forces).mean()

    @pytest.mark.parametrize(
        "old, new",
        [
            ("species_count = 1", "species_count = 2"),
            ("species_coeffs = ", "something = "),
            ("{0, 10, 11,", "{0, 17, 16, 9, 11,"),
            ("{5, 5, 2, 13}", "{5, 5, 1, 13}"),
        ],
    )
    def test_other_files_are_refused(self, old, new):
        assert old in GOLDEN["mtp"]
        with pytest.raises(ValueError):
            read_mlip(GOLDEN["mtp"].replace(old, new))


@pytest.mark.parametrize("wrong", [{"level": 7}, {"level": 0}, {"level": 8, "min_dist": 5.0}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError):
        Mtp(4.0, **wrong)
