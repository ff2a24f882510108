"""Validity of generated crystals: by hand, against the plain loop over oxidation states, against CDVAE's own code."""

import itertools

import numpy as np
import pytest

from cdvae_author import author, crystals, joined, one, rock_salt
from graph_models import crystal, rotation, supercell
from replimat.datasets.base import Structures
from replimat.evaluation import validity
from replimat.evaluation.validity import closest, compositionally_valid, formulas, has_cell, structurally_valid

CUBE = 4.0 * np.eye(3)


def pair(distance: float, cell=CUBE) -> Structures:
    return one("Na Cl", [[0, 0, 0], [distance, 0, 0]], cell)


def composition(**counts: int) -> bool:
    symbols = " ".join(symbol for symbol, count in counts.items() for _ in range(count))
    n = sum(counts.values())
    return bool(compositionally_valid(one(symbols, np.zeros((n, 3)), CUBE))[0])


# ---------------------------------------------------------------- structure


def test_distance_and_volume_at_their_limits():
    assert structurally_valid(pair(0.51))[0] and not structurally_valid(pair(0.49))[0]
    assert structurally_valid(one("Na", [0, 0, 0], np.diag([1, 1, 0.11])))[0]  # its own images do not count
    assert not structurally_valid(one("Na", [0, 0, 0], np.diag([1, 1, 0.09])))[0]


def test_distance_is_over_periodic_images():
    assert closest(pair(3.9))[0] == pytest.approx(0.1)
    assert closest(one("Na Cl", [[0.1, 0, 0], [7.8, 8, -4]], CUBE))[0] == pytest.approx(0.3)
    skew = np.array([[4, 0, 0], [11.9, 4, 0], [0, 0, 4.0]])  # as good as the cube, with an odd second vector
    assert closest(one("Na Cl", [[0, 0, 0], [0, 4, 0]], skew))[0] == pytest.approx(0.1)


def test_distance_by_a_plain_loop():
    z, x, cell = crystal(3)
    images = np.array(list(itertools.product(range(-2, 3), repeat=3))) @ cell
    plain = min(np.linalg.norm(x[i] - x[j] + shift) for i, j in itertools.combinations(range(5), 2) for shift in images)
    same = [(z, x, cell), (z, x @ rotation(1), cell @ rotation(1)), (z, x * [1, 1, -1], cell * [1, 1, -1])]
    found = closest(Structures.pack(same, periodic=True))
    assert found == pytest.approx(plain)
    assert closest(Structures.pack([supercell(z, x, cell, (2, 1, 1))], periodic=True)) == pytest.approx(plain)


def test_broken_crystals_are_not_valid():
    inside = np.array([np.nan, 0, 0])
    flat = np.array([[4, 0, 0], [0, 4, 0], [4, 4, 0.0]])
    broken = joined(
        one("Na Cl", [[0, 0, 0], inside], CUBE),
        one("Na Cl", [[0, 0, 0], [2, 0, 0]], np.full((3, 3), np.inf)),
        pair(2.0, flat),
        pair(2.0, np.zeros((3, 3))),
        pair(2.0),
    )
    assert structurally_valid(broken).tolist() == [False] * 4 + [True] == has_cell(broken).tolist()
    assert np.isnan(closest(broken)[:4]).all()
    empty = Structures(np.array([], dtype=np.int16), np.zeros((0, 3)), CUBE[None], np.array([0, 0]), True)
    assert not structurally_valid(empty)[0] and not compositionally_valid(empty)[0]


# -------------------------------------------------------------- composition


def test_formulas_are_reduced_and_sorted():
    assert formulas(rock_salt()) == [((11, 1), (17, 1))]
    assert formulas(one("O Ti O O Ti O", np.zeros((6, 3)), CUBE)) == [((8, 2), (22, 1))]


def test_compositions_by_hand():
    assert composition(Na=1, Cl=1) and composition(Na=4, Cl=4) and composition(Sr=1, Ti=1, O=3)
    assert composition(Fe=7) and composition(O=3)  # one element
    assert composition(Cu=3, Au=1) and composition(Li=1, Ge=5)  # metals
    assert not composition(Na=1, Cl=3)  # no Na(III)
    assert not composition(O=1, F=1, N=1, H=40)
    assert not composition(Ne=1, O=1)  # no states at all


def test_cations_are_less_electronegative_than_anions():
    """At 1.0 and 3.0, each with both signs, the first is the cation and not the second; of equals, neither can be."""
    both = ((2, -2), (2, -2))

    def allowed(*scale) -> list:
        choices = validity._assignments(both, scale)
        return [states for states in choices if 0 in validity._charges(states, [1, 1])]

    assert allowed(1.0, 3.0) == [[[2], [-2]]] and allowed(3.0, 1.0) == [[[-2], [2]]]
    assert allowed(2.0, 2.0) == []
    assert len(allowed(2.0, None)) == 2  # what is not known passes
    assert composition(O=1, F=2) and not composition(Na=1, I=2)


def test_atomic_numbers_without_data_fail():
    unknown = Structures(
        np.array([0, 8, 110, 8], dtype=np.int16), np.zeros((4, 3)), np.stack([CUBE] * 2), np.array([0, 2, 4]), True
    )
    assert not compositionally_valid(unknown).any()


def plain_loop(formula) -> bool:
    """Every combination of states, the test of pairs in order, as the protocol has it."""
    import smact

    elements = [smact.Element(smact.ordered_elements(z, z)[0]) for z, _ in formula]
    counts = [count for _, count in formula]
    if len(formula) == 1 or all(element.symbol in smact.metals for element in elements):
        return True
    for states in itertools.product(*[element.oxidation_states_smact14 or [] for element in elements]):
        if np.dot(states, counts) == 0 and pairs_pass(states, [element.pauling_eneg for element in elements]):
            return True
    return False


def pairs_pass(states, scale) -> bool:
    for (q1, x1), (q2, x2) in itertools.combinations(zip(states, scale, strict=True), 2):
        if q1 * q2 < 0 and (x1 is None or x2 is None):
            return True
        if (q1 > 0 > q2 and x1 >= x2) or (q1 < 0 < q2 and x1 <= x2):
            return False
        if x1 is None or x2 is None:
            return False
    return True


@pytest.mark.parametrize("pool", [list(range(1, 104)), [1, 3, 8, 9, 11, 17, 35, 61, 86, 103]])
def test_all_combinations_of_states_give_the_same_answer(pool):
    """The second pool is rich in elements without an electronegativity."""
    rng, answers = np.random.default_rng(len(pool)), []
    for _ in range(60):
        z = np.sort(rng.choice(pool, rng.integers(2, 5), replace=False))
        counts = rng.integers(1, 7, len(z))
        counts = counts // np.gcd.reduce(counts)
        formula = tuple(zip(z.tolist(), counts.tolist(), strict=True))
        answers.append(validity._balances(formula))
        assert answers[-1] == plain_loop(formula), formula
    assert 5 < sum(answers) < 55


def test_many_elements_take_no_time():
    """Twelve elements have more than 10^7 combinations of states."""
    assert composition(Mn=3, V=5, Cr=2, Cl=3, Br=4, I=7, N=5, S=3, P=2, Ru=1, Os=3, O=11)


# ------------------------------------------------------------- CDVAE's code


def test_author_code_agrees():
    made = crystals("made")
    structure, composed = structurally_valid(made), compositionally_valid(made)
    assert np.array_equal(structure, author()["struct_valid"])
    assert np.array_equal(composed, author()["comp_valid"])
    assert np.array_equal(structure & composed, author()["valid"])
    assert 50 < author()["valid"].sum() < len(made) - 10  # both answers occur
