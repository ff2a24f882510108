"""Physics every interatomic potential must obey. A potential's test inherits PotentialTests and says how to make it."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.data import atomic_numbers

from graph_models import rotation, supercell
from replimat.datasets.base import Structures
from replimat.models.forces import energy_forces_virial
from replimat.physics.calculator import ModelCalculator
from replimat.representations.cutoff_graph import CutoffGraph
from replimat.training.graphs import graphs_of

NOISE = 1e-9  # eV: sums in double precision
STEP = 1e-4  # angstrom, or strain
GRADIENT_NOISE = 2e-6  # relative to the largest force: central differences of that step in double precision


class PotentialTests:
    """Set `symbol` and `potential()`; nearest: typical distance of neighbours, angstrom."""

    symbol = "Cu"
    nearest = 2.5

    def potential(self) -> torch.nn.Module:
        """The potential in double precision, with weights that make all of its terms count."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    def model(self):
        torch.manual_seed(0)
        return self.potential().double().eval()

    def crystal(self, seed: int, atoms: int = 5):
        """A triclinic crystal without symmetry: a swapped edge or a wrong image changes its answer."""
        rng = np.random.default_rng(seed)
        edge = 2 * self.nearest
        cell = np.diag(rng.uniform(0.95 * edge, 1.1 * edge, 3)) + rng.uniform(-0.1, 0.1, (3, 3)) * edge
        grid = np.stack(np.meshgrid(*[np.arange(2)] * 3), -1).reshape(-1, 3)[:atoms] / 2
        numbers = np.full(atoms, atomic_numbers[self.symbol])
        return numbers, (grid + rng.uniform(-0.05, 0.05, (atoms, 3))) @ cell, cell

    def inputs(self, *structures) -> dict:
        packed = Structures.pack(list(structures), periodic=bool(np.any(structures[0][2])))
        arrays = CutoffGraph(cutoff=self.potential().cutoff)(packed, progress=False)
        arrays = {name: torch.from_numpy(array) for name, array in arrays.items()}
        graphs = graphs_of("CutoffGraph", arrays, torch.zeros(len(structures), dtype=torch.float64))
        return graphs.inputs(torch.arange(len(structures)))

    def energies(self, model, *structures) -> np.ndarray:
        with torch.no_grad():
            return model(**self.inputs(*structures)).numpy()

    def forces(self, model, one) -> np.ndarray:
        return energy_forces_virial(model, self.inputs(one))["forces"].numpy()

    def test_a_batch_gives_what_single_structures_give(self, model):
        several = [self.crystal(seed, atoms) for seed, atoms in ((1, 5), (2, 3), (3, 7))]
        alone = np.concatenate([self.energies(model, one) for one in several])
        assert np.ptp(alone) > 1e-4  # a model that ignores its input would pass everything below
        np.testing.assert_allclose(self.energies(model, *several), alone, rtol=1e-12, atol=NOISE)

    def test_longer_edges_than_the_cutoff_change_nothing(self, model):
        """Prepared files are shared by potentials of different cutoffs."""
        one = Structures.pack([self.crystal(1)], periodic=True)
        arrays = CutoffGraph(cutoff=model.cutoff + 1.0)(one, progress=False)
        arrays = {name: torch.from_numpy(array) for name, array in arrays.items()}
        wide = graphs_of("CutoffGraph", arrays, torch.zeros(1, dtype=torch.float64)).inputs(torch.arange(1))
        with torch.no_grad():
            np.testing.assert_allclose(model(**wide).numpy(), self.energies(model, self.crystal(1)), rtol=1e-12)

    def test_permutation_of_atoms(self, model):
        numbers, x, cell = self.crystal(4, 6)
        order = np.random.default_rng(0).permutation(6)
        mixed = (numbers[order], x[order], cell)
        np.testing.assert_allclose(self.energies(model, mixed), self.energies(model, (numbers, x, cell)), rtol=1e-11)
        np.testing.assert_allclose(
            self.forces(model, mixed), self.forces(model, (numbers, x, cell))[order], rtol=1e-8, atol=1e-9
        )

    def test_rotation_and_translation(self, model):
        numbers, x, cell = self.crystal(5)
        turn = rotation(1)
        moved = (numbers, x @ turn.T + np.array([0.3, -1.2, 2.5]), cell @ turn.T)
        np.testing.assert_allclose(self.energies(model, moved), self.energies(model, (numbers, x, cell)), rtol=1e-10)
        np.testing.assert_allclose(
            self.forces(model, moved), self.forces(model, (numbers, x, cell)) @ turn.T, rtol=1e-7, atol=1e-8
        )

    def test_reflection(self, model):
        numbers, x, cell = self.crystal(5)
        np.testing.assert_allclose(
            self.energies(model, (numbers, -x, -cell)), self.energies(model, (numbers, x, cell)), rtol=1e-10
        )

    def test_supercell(self, model):
        one = self.crystal(6, 4)
        np.testing.assert_allclose(
            self.energies(model, supercell(*one, (1, 2, 3))), 6 * self.energies(model, one), rtol=1e-10
        )

    def test_forces_equal_numeric_gradients(self, model):
        given = self.inputs(self.crystal(8))
        forces = energy_forces_virial(model, given)["forces"]
        numeric = torch.zeros_like(forces)
        with torch.no_grad():
            for atom in range(len(forces)):
                for axis in range(3):
                    either = []
                    for sign in (1, -1):
                        moved = given["pos"].clone()
                        moved[atom, axis] += sign * STEP
                        either.append(model(**{**given, "pos": moved}).sum())
                    numeric[atom, axis] = -(either[0] - either[1]) / (2 * STEP)
        largest = float(forces.abs().max())
        assert largest > 1e-3
        torch.testing.assert_close(forces, numeric, atol=GRADIENT_NOISE * max(largest, 1), rtol=1e-5)
        np.testing.assert_allclose(forces.sum(dim=0), 0, atol=1e-8 * max(largest, 1))  # Newton's third law

    def test_stress_equals_strain_derivatives(self, model):
        numbers, x, cell = self.crystal(9)
        atoms = Atoms(numbers, positions=x, cell=cell, pbc=True, calculator=ModelCalculator(model))
        stress, volume = atoms.get_stress(voigt=False), atoms.get_volume()
        for a in range(3):
            for b in range(a, 3):
                either = []
                for sign in (1, -1):
                    strain = np.zeros((3, 3))
                    strain[a, b] += sign * STEP / 2
                    strain[b, a] += sign * STEP / 2
                    strained = atoms.copy()
                    strained.set_cell(cell @ (np.eye(3) + strain), scale_atoms=True)
                    strained.calc = ModelCalculator(model)
                    either.append(strained.get_potential_energy())
                numeric = (either[0] - either[1]) / (2 * STEP) / volume
                assert stress[a, b] == pytest.approx(numeric, rel=1e-4, abs=1e-6)

    def test_smooth_at_the_cutoff(self, model):
        numbers = np.full(2, atomic_numbers[self.symbol])
        pair = lambda d: (numbers, np.array([[0.0, 0, 0], [d, 0, 0]]), np.zeros((3, 3)))  # noqa: E731
        cutoff = model.cutoff
        near, inside, outside = (self.energies(model, pair(d))[0] for d in (0.6 * cutoff, cutoff - 1e-4, cutoff + 1e-4))
        assert abs(near - outside) > 1e-6  # the pair does interact
        assert inside == pytest.approx(outside, abs=1e-6)
        pull = self.forces(model, pair(cutoff - 1e-4))
        assert np.abs(pull).max() < 1e-2 * max(np.abs(self.forces(model, pair(0.6 * cutoff))).max(), 1e-3)

    def test_lone_atom(self, model):
        lone = (np.array([atomic_numbers[self.symbol]]), np.zeros((1, 3)), np.eye(3) * 60.0)
        assert np.isfinite(self.energies(model, lone)).all()
        assert np.abs(self.forces(model, lone)).max() < 1e-9

    def test_calculator_gives_what_a_batch_gives(self, model):
        numbers, x, cell = self.crystal(10)
        atoms = Atoms(numbers, positions=x, cell=cell, pbc=True, calculator=ModelCalculator(model))
        assert atoms.get_potential_energy() == pytest.approx(self.energies(model, (numbers, x, cell))[0], rel=1e-11)
        np.testing.assert_allclose(atoms.get_forces(), self.forces(model, (numbers, x, cell)), rtol=1e-8, atol=1e-9)
