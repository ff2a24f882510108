"""Are two crystals the same? pymatgen's StructureMatcher with the tolerances of CDVAE (arXiv:2110.06197).

Both crystals are reduced to primitive cells of one common volume; the distances of their atoms are in units of the
cube root of the volume per atom. Tolerances so wide accept pairs that differ in space group (pymatgen issue 3796), and
"same" is neither symmetric nor transitive (issues 1665 and 4528): match rates are comparable with those of others who
use the same tolerances, and say little in absolute terms.
"""

from collections import defaultdict
from functools import cache

import numpy as np

from replimat.datasets.base import Structures
from replimat.errors import DataError
from replimat.evaluation.validity import formulas, has_cell

SITE, LENGTH, ANGLE = 0.5, 0.3, 10.0  # share of the length per atom, share of an edge, degree
UNMATCHABLE = (ValueError, ArithmeticError, LookupError, RuntimeError, np.linalg.LinAlgError)  # raised on odd cells


def matches(made: Structures, true: Structures, usable: np.ndarray | None = None) -> np.ndarray:
    """Normalised root mean square displacement of crystal s of `made` from crystal s of `true` [n], NaN: no match.

    usable: rows that may match at all [n], others do not (CDVAE: those valid in structure and composition). Raises
    DataError where the two are not pairs.
    """
    if len(made) != len(true):
        raise DataError(f"Matching needs pairs: {len(made)} crystals made, {len(true)} true ones.")
    found = np.full(len(made), np.nan)
    may = has_cell(made) & has_cell(true)
    if usable is not None:
        may &= np.asarray(usable, dtype=bool)
    for s, (ours, theirs) in enumerate(zip(formulas(made), formulas(true), strict=True)):
        if may[s] and ours == theirs:
            found[s] = _displacement(*_crystals(made, [s]), *_crystals(true, [s]))
    return found


def match_rate(rms: np.ndarray) -> tuple[float, float]:
    """Matches in % of all pairs, and the mean displacement of those that match (NaN if none); rms as of `matches`."""
    matched = np.isfinite(rms)
    return 100 * float(matched.mean()), float(rms[matched].mean()) if matched.any() else np.nan


def unique(made: Structures) -> np.ndarray:
    """True for the first of each set of equal crystals [n]; one without a cell is equal to none."""
    first = np.ones(len(made), dtype=bool)
    for rows in _by_formula(made).values():
        crystals = dict(zip(rows, _reduced(made, rows), strict=True))
        kept: list[int] = []
        for row in rows:
            first[row] = not any(_equal(crystals[before], crystals[row]) for before in kept)
            if first[row]:
                kept.append(row)
    return first


def novel(made: Structures, known: Structures) -> np.ndarray:
    """True for crystals that equal none of the known ones [n]."""
    new = np.ones(len(made), dtype=bool)
    there = _by_formula(known)
    for formula, rows in _by_formula(made).items():
        candidates = _reduced(known, there.get(formula, []))
        for row, crystal in zip(rows, _reduced(made, rows), strict=True):
            new[row] = not any(_equal(one, crystal) for one in candidates)
    return new


@cache
def _matcher():
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher(stol=SITE, ltol=LENGTH, angle_tol=ANGLE)


def _displacement(one, other) -> float:
    try:
        found = _matcher().get_rms_dist(one, other)
    except UNMATCHABLE:  # as CDVAE counts it
        return np.nan
    return np.nan if found is None else float(found[0])


def _equal(one, other) -> bool:
    """Whether two reduced crystals are the same; None, which could not be reduced, is like no other."""
    if one is None or other is None or len(one) != len(other):
        return False
    try:
        return bool(_matcher().fit(one, other, skip_structure_reduction=True))
    except UNMATCHABLE:
        return False


def _reduced(structures: Structures, rows: list[int]) -> list:
    """Primitive Niggli cells of some crystals, as the matcher would make them anew for every comparison."""
    found = []
    for crystal in _crystals(structures, rows):
        try:
            found.append(crystal.get_reduced_structure("niggli").get_primitive_structure())
        except UNMATCHABLE:
            found.append(None)
    return found


def _by_formula(structures: Structures) -> dict[tuple, list[int]]:
    """Rows of the crystals that have a cell, by reduced formula: those of different formulas never match."""
    groups = defaultdict(list)
    for row, (formula, good) in enumerate(zip(formulas(structures), has_cell(structures), strict=True)):
        if good:
            groups[formula].append(row)
    return groups


def _crystals(structures: Structures, rows: list[int]) -> list:
    from replimat.representations.conversion import as_pymatgen

    return as_pymatgen(structures.take(rows)) if len(rows) else []
