"""Generated points as molecules: bonds by hand, Euclidean matrices, conformations, energies."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.transform import Rotation

from replimat.datasets.base import Structures
from replimat.errors import DataError
from replimat.evaluation import molecules as judged
from replimat.evaluation.molecules import (
    distinct,
    energies,
    farthest_atom,
    heavy_points,
    is_euclidean,
    near,
    perceive,
)

RNG = np.random.default_rng(5)


def molecule(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A molecule of ASE's collection."""
    from ase.build import molecule as built

    atoms = built(name)
    return atoms.numbers, atoms.positions, np.zeros((3, 3))


def packed(*triples) -> Structures:
    return Structures.pack(list(triples), periodic=False)


def shuffled(triple, mirror: bool = False):
    """The same molecule: turned, moved, its atoms in another order, and its mirror image if asked for."""
    z, x, cell = triple
    order = RNG.permutation(len(z))
    x = x * ([-1, 1, 1] if mirror else 1)
    return z[order], Rotation.random(random_state=1).apply(x)[order] + 3.0, cell


def points(n: int, dimension: int = 3) -> np.ndarray:
    return RNG.normal(size=(n, 19, dimension))


def squared(x: np.ndarray) -> np.ndarray:
    return ((x[:, :, None] - x[:, None]) ** 2).sum(axis=3)


# ------------------------------------------------------------------------------------------------------ bonds


@pytest.mark.parametrize(
    ("name", "smiles"), [("CH4", "C"), ("CH3CH2OH", "CCO"), ("CH3CHO", "CC=O"), ("C6H6", "c1ccccc1"), ("C2H2", "C#C")]
)
def test_known_molecules_are_valid(name, smiles):
    found = perceive(packed(molecule(name)))
    assert found.valid.tolist() == [True] and found.satisfied.tolist() == [1.0] and found.smiles.tolist() == [smiles]


def test_topology_does_not_depend_on_order_place_or_hand():
    one = molecule("CH3CH2OH")
    assert len(set(perceive(packed(one, shuffled(one), shuffled(one, mirror=True))).smiles)) == 1


def test_radicals_fragments_and_strangers_are_not_valid():
    z, x, cell = molecule("CH4")
    radical = z[:-1], x[:-1], cell
    pair = np.concatenate([z, z]), np.concatenate([x, x + 8.0]), cell
    torn = z, np.where(np.arange(5)[:, None] == 4, x + 4.0, x), cell
    found = perceive(packed(radical, pair, torn, molecule("SiH4")))
    assert not found.valid.any() and found.smiles.tolist() == [""] * 4
    assert found.satisfied.tolist() == [0.75, 1.0, 0.6, 0.8]  # of CH3 its carbon; of CH3 + H two; silicon is no QM9


def test_noise_breaks_molecules():
    z, x, cell = molecule("CH3CH2OH")
    assert not perceive(packed((z, x + 0.4 * RNG.normal(size=x.shape), cell))).valid[0]


# ------------------------------------------------------------------------------------------------- Euclidean


def test_distances_of_points_are_euclidean_in_their_dimension():
    assert is_euclidean(squared(points(20))).all()
    assert is_euclidean(squared(points(20, 2))).all()  # a plane lies in space
    assert not is_euclidean(squared(points(20, 4))).any()
    assert is_euclidean(squared(points(20, 4)), dimension=4).all()


def test_other_matrices_are_not_euclidean():
    good = squared(points(1))
    planted = {"negative": good.copy(), "asymmetric": good.copy(), "diagonal": good + 0.5 * np.eye(19)}
    planted["negative"][0, 3, 7] = planted["negative"][0, 7, 3] = 4 * good.max()  # breaks the triangle inequality
    planted["asymmetric"][0, 3, 7] += 1.0
    for name, matrix in planted.items():
        assert not is_euclidean(matrix).any(), name
    assert not is_euclidean(np.sqrt(good)).any()  # distances where their squares belong


# --------------------------------------------------------------------------------------------- conformations


def test_atoms_are_assigned_at_the_least_cost():
    """Sorting within an element costs what scipy's Hungarian method finds for the matrix of eq. 14."""
    x = squared(points(2))
    z = np.repeat([6, 8, 1], [7, 2, 10])
    mean = x.mean(axis=2)
    cost = np.where(z[:, None] == z, np.abs(mean[0][:, None] - mean[1]), 1e6)
    best = cost[linear_sum_assignment(cost)].sum()
    ours = sum(np.abs(np.sort(mean[0][z == one]) - np.sort(mean[1][z == one])).sum() for one in (6, 8, 1))
    assert ours == pytest.approx(best)


def test_a_conformation_is_itself_however_it_stands():
    one = molecule("CH3CH2OH")
    heavy = heavy_points(packed(one, shuffled(one), shuffled(one, mirror=True)))
    assert heavy.shape == (3, 3, 3)
    assert farthest_atom(heavy[0], heavy[1:]) == pytest.approx(0, abs=1e-6)
    assert near(heavy[0], heavy[1:]) and distinct(heavy).tolist() == [True, False, False]


def test_mirror_images_are_one_conformation_and_need_a_reflection():
    x = RNG.normal(size=(6, 3))
    x -= x.mean(axis=0)
    image = x * [1, 1, -1]
    assert farthest_atom(x, image[None])[0] == pytest.approx(0, abs=1e-6)
    rotated = Rotation.align_vectors(image, x)[0].apply(x)
    assert np.linalg.norm(rotated - image, axis=1).max() > 0.1


def test_the_largest_distance_by_hand():
    """Two atoms 2 angstrom apart against 3: each is 0.5 off."""
    near_pair, far_pair = np.array([[1.0, 0, 0], [-1.0, 0, 0]]), np.array([[0, 1.5, 0], [0, -1.5, 0]])
    assert farthest_atom(near_pair, far_pair[None]) == pytest.approx([0.5])
    assert near(near_pair, far_pair[None], cutoff=0.51) and not near(near_pair, far_pair[None], cutoff=0.49)


def test_the_short_cut_loses_no_neighbour():
    one = RNG.normal(size=(9, 3))
    others = one + 0.35 * RNG.normal(size=(300, 9, 3))
    others -= others.mean(axis=1, keepdims=True)
    one = one - one.mean(axis=0)
    close = farthest_atom(one, others) <= 0.6
    assert 0 < close.sum() < 300
    assert [near(one, other[None]) for other in others] == close.tolist()


def test_other_molecules_are_not_compared():
    with pytest.raises(DataError, match="number"):
        heavy_points(packed(molecule("CH4"), molecule("C6H6")))
    with pytest.raises(DataError, match="elements"):
        heavy_points(packed(molecule("H2CO"), molecule("NH3")))


# -------------------------------------------------------------------------------------------------- energies


def test_energy_of_water_and_its_relaxation():
    """GFN2-xTB's water: tblite's own documentation gives -137.968 eV for ASE's geometry."""
    z, x, cell = molecule("H2O")
    given = energies(packed((z, x, cell)), relax=False)
    assert given == pytest.approx([-137.96777625229421], abs=1e-5)
    stretched = packed((z, x * 1.1, cell))
    assert energies(stretched, relax=False)[0] > energies(stretched)[0]
    assert energies(stretched)[0] == pytest.approx(energies(packed((z, x, cell)))[0], abs=2e-3)


def test_what_does_not_relax_has_no_energy(monkeypatch):
    monkeypatch.setattr(judged, "STEPS", 0)
    z, x, cell = molecule("H2O")
    assert np.isnan(energies(packed((z, x * 1.3, cell)))).all()
