"""Decomposition in water: against pymatgen's whole diagram, and what is known of magnesium and manganese."""

import numpy as np
import pytest

from replimat.errors import DataError
from replimat.physics.pourbaix import CONCENTRATION, ENTROPY, NERNST, decomposition_energies, ions_of

ELEMENTS = ["Mg", "Mn", "O"]
SOLIDS = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 1], [0, 1, 1], [0, 1, 2], [0, 3, 4], [0, 2, 3], [1, 2, 4]])
# measured enthalpies of formation, eV per formula unit (NBS tables); that of the spinel is near enough
FORMATION = np.array([0, 0, -6.235, -3.993, -5.389, -14.38, -9.94, -17.0]) / SOLIDS.sum(axis=1)
MGO, MNO2, SPINEL = 2, 4, 7


def decompose(rows, acidities, potential, formation=FORMATION):
    return decomposition_energies(
        SOLIDS[rows], formation[rows], SOLIDS, FORMATION, ELEMENTS, acidities, potential
    )  # fmt: skip


def test_agrees_with_the_whole_diagram_of_pymatgen():
    from pymatgen.analysis.pourbaix_diagram import PourbaixDiagram

    from replimat.physics.pourbaix import _solid

    solids = [_solid(c, e, ELEMENTS) for c, e in zip(SOLIDS, FORMATION, strict=True)]
    both = [*solids, *ions_of("Mg"), *ions_of("Mn")]
    concentration = {"Mg": CONCENTRATION, "Mn": CONCENTRATION}
    diagram = PourbaixDiagram(both, comp_dict={"Mg": 1 / 3, "Mn": 2 / 3}, conc_dict=concentration, filter_solids=False)
    for acidity in (0.0, 9.0):
        theirs = diagram.get_decomposition_energy(solids[SPINEL], pH=acidity, V=1.5 - NERNST * acidity)
        assert decompose([SPINEL], (acidity,), 1.5)[0, 0] == pytest.approx(theirs, abs=1e-6)


def test_magnesia_dissolves_in_acid_by_hand():
    """MgO + 2 H+ -> Mg2+ + H2O at pH 0: energies of the ion at 1e-6 mol/kg, of water and of the oxide."""
    ion, water, oxide = -4.705222 + NERNST * np.log10(CONCENTRATION), -2.4583, -6.235 + ENTROPY
    assert decompose([MGO], (0.0,), 0.0)[0, 0] == pytest.approx((oxide - ion - water) / 2, abs=1e-3)


def test_manganese_dioxide_survives_where_oxygen_evolves():
    at = decompose([MGO, MNO2], (0.0,), 1.5)[:, 0]
    assert at[MGO - 2] > 0.5 and at[1] == pytest.approx(0.0, abs=1e-6)


def test_the_potential_is_against_reversible_hydrogen():
    """MnO2 + 2 H+ + 2 e- -> MnO + H2O: what it gains does not depend on pH, and by 2 eV a volt on the potential."""
    gained = [3 * mno2 - 2 * mno for mno, mno2 in zip(*decompose([3, MNO2], (2.0, 9.0), 0.8), strict=True)]
    assert gained[0] == pytest.approx(gained[1], abs=1e-6)
    higher = decompose([3, MNO2], (2.0,), 0.9)[:, 0]
    assert 3 * higher[1] - 2 * higher[0] == pytest.approx(gained[0] - 2 * 0.1, abs=1e-6)


def test_less_stable_by_what_is_added():
    higher = FORMATION.copy()
    higher[SPINEL] += 0.1
    difference = decompose([SPINEL], (7.0,), 1.5, higher) - decompose([SPINEL], (7.0,), 1.5)
    assert difference[0, 0] == pytest.approx(0.1)


def test_unknown_energies_and_wrong_input():
    unknown = FORMATION.copy()
    unknown[MGO] = np.nan
    assert np.isnan(decompose([MGO], (7.0,), 1.5, unknown)).all()
    with pytest.raises(DataError, match="needs a metal"):
        decomposition_energies(np.array([[0, 0, 2]]), np.zeros(1), SOLIDS, FORMATION, ELEMENTS, (7.0,), 1.5)
    with pytest.raises(DataError, match="no ions"):
        ions_of("Xx")
