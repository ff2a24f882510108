"""Equality of crystals: symmetries, what must not match, uniqueness, novelty, CDVAE's own code."""

import numpy as np
import pytest

from cdvae_author import author, crystals, joined, one, rock_salt
from graph_models import rotation, supercell
from replimat.datasets.base import Structures
from replimat.errors import DataError
from replimat.evaluation.matching import match_rate, matches, novel, unique
from replimat.representations.conversion import as_pymatgen

NACL = rock_salt()


def changed(structures: Structures, positions=None, cell=None) -> Structures:
    z, x, own = structures[0]
    return Structures.pack([(z, x if positions is None else positions, own if cell is None else cell)], periodic=True)


def rms(made: Structures, true: Structures) -> float:
    return float(matches(made, true)[0])


def test_the_same_crystal_written_otherwise_matches():
    z, x, cell = NACL[0]
    turn, order = rotation(2), np.random.default_rng(0).permutation(8)
    larger = Structures.pack([supercell(z, x, cell, (1, 2, 1))], periodic=True)
    for other in (
        changed(NACL, x + np.array([0.3, 1.0, 2.0])),
        changed(NACL, x @ turn, cell @ turn),
        Structures.pack([(z[order], x[order], cell)], periodic=True),
        larger,
        rock_salt(edge=7.0),  # volumes are made equal first
    ):
        assert rms(NACL, other) == pytest.approx(0, abs=1e-5)


def test_displacement_in_units_of_the_length_per_atom():
    """One of CsCl's atoms moved by d: both are d/2 from the best place, over the cube root of the volume per atom."""
    edge, d = 4.0, 0.3
    straight = one("Cs Cl", [[0, 0, 0], [2, 2, 2]], edge * np.eye(3))
    moved = one("Cs Cl", [[0, 0, 0], [2 + d, 2, 2]], edge * np.eye(3))
    assert rms(moved, straight) == pytest.approx(d / 2 / (edge**3 / 2) ** (1 / 3), rel=1e-4)


def test_what_must_not_match():
    z, x, cell = NACL[0]
    assert np.isnan(rms(rock_salt("K K K K Cl Cl Cl Cl"), NACL))  # another element
    assert np.isnan(rms(Structures.pack([(z[1:], x[1:], cell)], periodic=True), NACL))  # an atom less
    assert np.isnan(rms(one("Na Cl", [[0, 0, 0], [2, 0.0, 0]], np.diag([4, 4, 30.0])), NACL))  # a layer
    assert np.isnan(rms(changed(NACL, x * np.nan), NACL))


def test_rows_that_are_not_usable_do_not_match():
    both = joined(NACL, NACL)
    assert np.isfinite(matches(both, both)).all()
    assert np.isnan(matches(both, both, usable=np.array([True, False]))).tolist() == [False, True]
    with pytest.raises(DataError, match="2 crystals made, 1 true"):
        matches(both, NACL)


def test_rate_is_over_all_and_displacement_over_matches():
    assert match_rate(np.array([0.1, np.nan, 0.3, np.nan])) == (50.0, pytest.approx(0.2))
    rate, mean = match_rate(np.array([np.nan]))
    assert rate == 0 and np.isnan(mean)


def test_unique_keeps_the_first_of_equals():
    cscl = one("Na Cl", [[0, 0, 0], [1.7, 1.7, 1.7]], 3.4 * np.eye(3))
    broken = changed(NACL, NACL.positions * np.nan)
    made = joined(NACL, rock_salt(edge=5.7), cscl, rock_salt("K K K K Cl Cl Cl Cl"), cscl, broken, broken)
    assert unique(made).tolist() == [True, False, True, True, False, True, True]


def test_novel_is_of_the_made_against_the_known():
    cscl = one("Na Cl", [[0, 0, 0], [1.7, 1.7, 1.7]], 3.4 * np.eye(3))
    made, known = joined(NACL, cscl, rock_salt("K K K K Cl Cl Cl Cl")), joined(rock_salt(edge=5.5))
    assert novel(made, known).tolist() == [False, True, True]
    assert novel(known, made).tolist() == [False]  # the other way round it is another question
    assert novel(made, made).tolist() == [False] * 3


def test_reducing_once_is_like_reducing_every_time():
    from pymatgen.analysis.structure_matcher import StructureMatcher

    true, made = crystals("true"), crystals("made")
    same = [s for s in range(len(true)) if np.array_equal(true[s][0], made[s][0]) and author()["struct_valid"][s]]
    plain = StructureMatcher(stol=0.5, ltol=0.3, angle_tol=10)
    pairs = zip(as_pymatgen(true.take(same)), as_pymatgen(made.take(same)), strict=True)
    new = [novel(made.take([s]), true.take([s]))[0] for s in same]
    assert new == [not plain.fit(known, other) for known, other in pairs]
    assert 0 < sum(new) < len(same)


def test_author_code_agrees():
    true, made = crystals("true"), crystals("made")
    found = matches(made.take(np.arange(len(true))), true, author()["valid"][: len(true)])
    assert np.allclose(found, author()["rms"], equal_nan=True, atol=1e-9)
    rate, mean = match_rate(found)
    assert (rate / 100, mean) == pytest.approx(tuple(author()["match_rate"]))
    assert 0 < np.isnan(found).sum() < len(true)
