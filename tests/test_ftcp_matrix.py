"""The matrix of Ren et al. and its way back to the crystal."""

import numpy as np
import pytest

from ftcp_crystals import TABLE, crystals, perovskite, rotation, same
from replimat.datasets.base import Structures
from replimat.errors import DataError
from replimat.representations.ftcp import (
    COORDINATES,
    ELEMENTS,
    FTCP,
    LATTICE,
    POINTS,
    PROPERTIES,
    OrderedCrystals,
    RowScale,
    by_electronegativity,
    cell_of,
    cell_parameters,
    reciprocal_points,
)

# -------------------------------------------------------------------------------------------------- the matrix


def test_a_crystal_by_hand():
    found = FTCP(sites=20).encode(Structures.pack([perovskite()], periodic=True), TABLE)[0]
    assert found.shape == (240, 62)
    for column, z in enumerate((56, 22, 8)):
        assert found[:ELEMENTS, column].nonzero()[0].tolist() == [z - 1]
    assert found[LATTICE, :3].tolist() == [4, 4, 4]
    assert found[LATTICE + 1, :3] == pytest.approx([90, 90, 90])
    assert found[COORDINATES + 2, :3] == pytest.approx([0.5, 0.5, 0])
    assert found[COORDINATES + 20 : COORDINATES + 25, :3].tolist() == [[1, 0, 0], [0, 1, 0], *[[0, 0, 1]] * 3]
    assert found[145, :3].tolist() == [0, 0, 0]  # |g| has no entry in real space
    assert found[-2:].tolist() == np.zeros((2, 62)).tolist()
    first = 3  # hkl = (1, 0, 0)
    assert found[145, first] == pytest.approx(1 / 4)
    assert found[145, first + 5] == pytest.approx(1 / 4)  # (0, 0, -1), the last of the first shell
    by_hand = np.pi * (0.5 * TABLE[22] + 0.5 * TABLE[8] + 0.5 * TABLE[8])  # Ba and one O at x = 0
    assert found[146 : 146 + PROPERTIES, first] == pytest.approx(by_hand, rel=1e-5)


def test_points_are_in_the_authors_order():
    hkl, g = reciprocal_points(np.eye(3)[None] * 4.0)
    assert hkl[0, :8].tolist() == [
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 1],
        [0, 0, -1],
        [0, -1, 0],
        [-1, 0, 0],
        [2, 0, 0],
        [1, 1, 0],
    ]
    assert hkl.shape == (1, POINTS, 3)
    assert len({tuple(one) for one in hkl[0]}) == POINTS
    np.testing.assert_allclose(g[0], np.linalg.norm(hkl[0], axis=1) / 4.0)


def test_points_outside_the_sphere_are_passed_over():
    hkl, g = reciprocal_points(np.diag([2.0, 9.0, 9.0])[None])
    assert g.max() <= 1.297
    assert np.abs(hkl[0, :, 0]).max() == 2  # 2 / 2 A is inside, 3 / 2 A is not


def test_small_cells_take_the_wider_sphere():
    """An edge of 1.75 angstrom: 56 points with h^2 + k^2 + l^2 <= 5 within 1.297, 80 with <= 6 within 1.4."""
    hkl, g = reciprocal_points(np.stack([np.eye(3) * 1.75, np.eye(3) * 4.0]))
    assert (hkl[0] ** 2).sum(axis=1).max() == 6 and g[0].max() == pytest.approx(np.sqrt(6) / 1.75)
    assert g[1].max() <= 1.297


def test_a_cell_too_small_is_refused():
    with pytest.raises(DataError, match="fewer than 59 points"):
        reciprocal_points(np.eye(3)[None])


def test_neither_rotation_nor_supercells_of_coordinates_change_it():
    rng, (numbers, positions, cell) = np.random.default_rng(1), perovskite()
    turned = rotation(rng)
    moved = positions @ turned + rng.integers(-2, 3, (5, 3)) @ (cell @ turned)
    both = Structures.pack([perovskite(), (numbers, moved, cell @ turned)], periodic=True)
    one, other = FTCP().encode(both, TABLE)
    np.testing.assert_allclose(one, other, atol=1e-3)


def test_the_order_of_sites_matters_but_not_that_of_the_file():
    numbers, positions, cell = perovskite()
    both = Structures.pack([(numbers, positions, cell), (numbers[::-1], positions[::-1], cell)], periodic=True)
    assert not np.allclose(*FTCP().encode(both, TABLE))
    ordered = by_electronegativity(both)
    assert ordered.numbers.tolist() == [56, 22, 8, 8, 8] * 2  # 0.89, 1.54, 3.44


@pytest.mark.parametrize("sites, elements", [(20, 3), (40, 4)])
def test_it_leads_back_to_the_crystal(sites, elements):
    made, ftcp = crystals(200, most=sites), FTCP(sites, elements)
    matrices = ftcp.encode(made, TABLE)
    scale = RowScale.fit(matrices)
    scaled = scale.apply(matrices)
    assert scaled.min() >= 0 and scaled.max() <= 1 + 1e-6
    for there in (matrices, scale.undo(scaled)):
        back, failed = ftcp.decode(there)
        assert not failed
        assert same(made, back)


def test_an_independent_matcher_agrees():
    from pymatgen.analysis.structure_matcher import StructureMatcher

    from replimat.representations.conversion import as_pymatgen

    made = crystals(5)
    back, _ = FTCP().decode(FTCP().encode(made, TABLE))
    for one, other in zip(as_pymatgen(made), as_pymatgen(back), strict=True):
        assert StructureMatcher(ltol=1e-3, stol=1e-3, angle_tol=0.1).fit(one, other)


def test_a_planted_error_is_seen():
    made = crystals(3)
    matrices = FTCP().encode(made, TABLE)
    matrices[1, COORDINATES, 0] += 0.01
    assert not same(made, FTCP().decode(matrices)[0])


def test_empty_sites_are_left_out_and_hydrogen_is_kept():
    numbers = np.array([11, 11, 1])
    made = Structures.pack([(numbers, np.eye(3), 5 * np.eye(3))], periodic=True)
    matrices = FTCP().encode(made, TABLE)
    matrices[0, COORDINATES + 20 + 1] = 0.04  # below the threshold, and not the last one
    assert FTCP().decode(matrices)[0].numbers.tolist() == [11, 1]


def test_what_is_no_crystal_is_named():
    matrices = np.repeat(FTCP().encode(crystals(1), TABLE), 4, axis=0)
    matrices[0, LATTICE + 1, :3] = 170, 20, 20
    matrices[1, COORDINATES + 20 : COORDINATES + 40] = 0
    matrices[2, LATTICE, 0] = 0
    back, failed = FTCP().decode(matrices)
    assert len(back) == 1
    assert failed == {0: "no cell has these lengths and angles", 1: "no site is filled", 2: failed[0]}
    assert FTCP().decode(matrices[:3])[0] is None


def test_cells_by_their_parameters():
    rng = np.random.default_rng(2)
    lengths, angles = rng.uniform(3, 10, 3), rng.uniform(65, 115, 3)
    cell = cell_of(lengths, angles)
    np.testing.assert_allclose(np.concatenate(cell_parameters(cell[None])[0]), lengths)
    np.testing.assert_allclose(cell_parameters(cell[None])[1][0], angles)
    assert cell[0, 1:].tolist() == [0, 0] and cell[1, 2] == 0
    assert cell_of(lengths, np.array([10.0, 90, 90])) is not None
    assert cell_of(lengths, np.array([10.0, 90, 40])) is None


def test_crystals_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="room for 4"):
        FTCP(sites=4).encode(Structures.pack([perovskite()], periodic=True), TABLE)
    with pytest.raises(DataError, match="3 elements; the matrix has room for 2"):
        OrderedCrystals(20, 2)(Structures.pack([perovskite()], periodic=True))
    heavy = Structures.pack([(np.array([101, 8]), np.eye(3)[:2], 4 * np.eye(3))], periodic=True)
    with pytest.raises(DataError, match="Z = 1 to 100"):
        FTCP().encode(heavy, TABLE)


def test_rows_are_scaled_by_the_training_crystals():
    scale = RowScale.fit(np.array([[[1.0, 3.0], [2.0, 2.0]]]))
    assert scale.apply(np.array([[[2.0, 5.0], [2.0, 3.0]]])).tolist() == [[[0.5, 2.0], [0.0, 1.0]]]
