"""Energies above the convex hull of a chemical system (pymatgen's PhaseDiagram)."""

import numpy as np

from replimat.errors import DataError


def above_hull(
    counts: np.ndarray, energies: np.ndarray, known_counts: np.ndarray, known_energies: np.ndarray, elements: list[str]
) -> np.ndarray:
    """Energies of phases above the hull of the known ones, eV/atom [n]; below it they are negative.

    counts: atoms of each element [n, E]; energies: eV/atom [n], any common reference; known_*: [m, E] and [m], the
    elements themselves among them. NaN where an energy is. Raises DataError where an element is missing.
    """
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition, Element

    def entry(row: np.ndarray, energy: float) -> PDEntry:
        whole = Composition(dict(zip(elements, row.tolist(), strict=True)))
        return PDEntry(whole, energy * row.sum())

    usable = np.isfinite(known_energies)
    alone = {elements[int(row.argmax())] for row in known_counts[usable] if (row > 0).sum() == 1}
    if missing := set(elements) - alone:
        raise DataError(f"A hull needs the elements themselves; missing: {', '.join(sorted(missing))}.")
    known = [entry(row, e) for row, e in zip(known_counts[usable], known_energies[usable], strict=True)]
    hull = PhaseDiagram(known, [Element(symbol) for symbol in elements])
    found = np.full(len(energies), np.nan)
    for k in np.flatnonzero(np.isfinite(energies)):
        one = entry(counts[k], energies[k])
        found[k] = energies[k] - hull.get_hull_energy_per_atom(one.composition)
    return found


def formation_energies(
    counts: np.ndarray, energies: np.ndarray, known_counts: np.ndarray, known_energies: np.ndarray, elements: list[str]
) -> np.ndarray:
    """From the lowest crystal of each element among the known ones, eV/atom [n]; arguments as of `above_hull`.

    Raises DataError where an element is missing.
    """
    total = known_counts.sum(axis=1)
    alone = [known_energies[(known_counts[:, k] > 0) & (total == known_counts[:, k])] for k in range(len(elements))]
    if missing := [symbol for symbol, values in zip(elements, alone, strict=True) if not len(values)]:
        raise DataError(f"No crystal of {', '.join(missing)} alone is known: no formation energies.")
    return energies - counts @ np.array([values.min() for values in alone]) / counts.sum(axis=1)


def element_counts(structures, numbers: list[int]) -> np.ndarray:
    """Atoms of each atomic number in each structure [n, E]."""
    return np.array([[(structures[s][0] == z).sum() for z in numbers] for s in range(len(structures))])
