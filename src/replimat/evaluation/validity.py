"""Could a generated crystal exist? CDVAE's two checks (T. Xie et al., ICLR 2022, arXiv:2110.06197).

Structure: no two atoms closer than 0.5 angstrom, a cell of at least 0.1 angstrom^3. Composition: some choice of one
oxidation state per element is neutral and gives every cation a smaller Pauling electronegativity than every anion;
elements alone and alloys of metals pass (SMACT: D. W. Davies et al., J. Open Source Softw. 4, 1361 (2019)).

Differs from the authors' code: they try every combination of states, we cut the elements by electronegativity and ask
which charges the two sides can reach, with the same answer. Their smact 2.2.1 lists Ir at -2, where 2.3.1 and ours list
-3, and has 0.33 for the electronegativity of Zr, a slip that ours has mended (1.33).
"""

from collections.abc import Iterator
from functools import cache

import numpy as np

from replimat.datasets.base import Structures

SMALLEST_DISTANCE = 0.5  # angstrom
SMALLEST_VOLUME = 0.1  # angstrom^3
ELEMENTS = 103  # SMACT's table ends with lawrencium


def structurally_valid(structures: Structures) -> np.ndarray:
    """Whether all atoms keep their distance in a cell that has a volume [n]; an atom's own images do not count."""
    return closest(structures) >= SMALLEST_DISTANCE  # NaN is not


def compositionally_valid(structures: Structures) -> np.ndarray:
    """Whether the elements can balance their charges at their counts [n]."""
    return np.array([_balances(formula) for formula in formulas(structures)], dtype=bool)


def closest(structures: Structures) -> np.ndarray:
    """Smallest distance between two atoms, over periodic images, angstrom [n].

    Infinite for a single atom, NaN where there is no atom, a number is not finite or the cell is below SMALLEST_VOLUME.
    """
    from pymatgen.core import Lattice

    found = np.full(len(structures), np.nan)
    for s in np.flatnonzero(has_cell(structures)):
        _, x, cell = structures[s]
        fractional = np.linalg.solve(cell.T, x.T).T
        between = Lattice(cell).get_all_distances(fractional, fractional)
        np.fill_diagonal(between, np.inf)
        found[s] = between.min()
    return found


def has_cell(structures: Structures) -> np.ndarray:
    """Whether a crystal can be worked with at all: atoms, finite numbers and a volume [n]."""
    finite = np.isfinite(structures.cells).all(axis=(1, 2))
    owners = np.repeat(np.arange(len(structures)), structures.sizes)
    broken = np.bincount(owners[~np.isfinite(structures.positions).all(axis=1)], minlength=len(structures))
    volumes = np.abs(np.linalg.det(np.where(finite[:, None, None], structures.cells, 0.0)))
    return finite & (broken == 0) & (structures.sizes > 0) & (volumes >= SMALLEST_VOLUME)


def formulas(structures: Structures) -> list[tuple[tuple[int, int], ...]]:
    """Reduced formula of each structure: (atomic number, count) by atomic number, counts without a common divisor."""
    made = []
    for s in range(len(structures)):
        elements, counts = np.unique(structures[s][0], return_counts=True)
        counts //= np.gcd.reduce(counts) if len(counts) else 1
        made.append(tuple(zip(elements.tolist(), counts.tolist(), strict=True)))
    return made


@cache
def _balances(formula: tuple[tuple[int, int], ...]) -> bool:
    """CDVAE's verdict on a reduced formula; False where an element is not in SMACT's table."""
    if not formula or not all(1 <= z <= ELEMENTS for z, _ in formula):
        return False
    elements = [_element(z) for z, _ in formula]
    if len(formula) == 1 or all(metal for _, _, metal in elements):
        return True
    states, scale, _ = zip(*elements, strict=True)
    counts = [count for _, count in formula]
    return any(0 in _charges(allowed, counts) for allowed in _assignments(states, scale))


@cache
def _element(z: int) -> tuple[tuple[int, ...], float | None, bool]:
    """Oxidation states (SMACT's of 2014), Pauling electronegativity (None: unknown) and whether it is a metal."""
    import smact

    element = smact.Element(smact.ordered_elements(z, z)[0])
    return tuple(element.oxidation_states_smact14 or ()), element.pauling_eneg, element.symbol in smact.metals


def _charges(states: list[list[int]], counts: list[int]) -> set[int]:
    """Every total charge that one state per element can give."""
    totals = {0}
    for possible, count in zip(states, counts, strict=True):
        totals = {total + count * state for total in totals for state in possible}
    return totals


def _assignments(states: tuple, scale: tuple) -> Iterator[list[list[int]]]:
    """Sets of states per element that together are all choices which pass the test of electronegativities.

    states, scale: of each element by atomic number. No state is zero, so a neutral choice has both signs; with all
    electronegativities known, it passes if they rise from every cation to every anion. Where one is missing the test
    compares pairs in order and ends at the first it cannot compare: passed if its charges differ, not if they agree.
    """
    if None not in scale:
        for cut in sorted(set(scale)):
            yield [_signed(own, 1 if at <= cut else -1) for own, at in zip(states, scale, strict=True)]
        return
    other = scale.index(None) or 1  # the pair that ends it: the first element and this one
    for sign in (1, -1):
        allowed = [_signed(states[0], sign)]
        for k, (own, at) in enumerate(zip(states[1:], scale[1:], strict=True), start=1):
            if k < other:
                rises = (at - scale[0]) * sign > 0
                allowed.append(list(own) if rises else _signed(own, sign))
            else:
                allowed.append(_signed(own, -sign) if k == other else list(own))
        yield allowed


def _signed(states: tuple[int, ...], sign: int) -> list[int]:
    return [state for state in states if state * sign > 0]
