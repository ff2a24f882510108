"""Stability of solids in water at a pH and a potential (Persson et al., Phys. Rev. B 85, 235438 (2012)).

A solid M_x O_y may dissolve or turn into other solids with water, protons and electrons; its decomposition energy is
what it gains by that, zero for what is stable. Free energies of the species at a pH and a potential are pymatgen's; the
cheapest mix of them is found by a linear program, since pymatgen builds the whole diagram first, for every ratio of
metals anew (a test holds both to the same numbers). Measured free energies of ions come from ASE, which has them from
SUPCRT92 (Johnson, Oelkers and Helgeson 1992) and Pourbaix's atlas. Energies of solids are formation energies without
temperature; of the entropies only that of the oxygen gas is counted, which is by far the largest.

Differs from Persson et al.: energies of ions are not shifted by what theory gets wrong about a reference solid. For
MgO by CHGNet that is 0.05 eV/atom.
"""

from functools import cache

import numpy as np

from replimat.errors import DataError

ENTROPY = 205.15 * 298.15 / 2 / 96485.33  # eV per O: T S of O2 gas (CODATA), half a molecule, at 298.15 K
NERNST = 0.0591  # V per pH at 298.15 K
CONCENTRATION = 1e-6  # mol/kg of dissolved ions, at which a surface counts as corroding


def decomposition_energies(
    counts: np.ndarray,
    energies: np.ndarray,
    known_counts: np.ndarray,
    known_energies: np.ndarray,
    elements: list[str],
    acidities: tuple[float, ...],
    potential: float,
) -> np.ndarray:
    """Decomposition energies of solids in water, eV/atom [n, P], at each pH and a potential against the reversible
    hydrogen electrode in V; NaN where an energy is. Below zero for one more stable than any mix of the known species.

    counts: atoms of each element [n, E], O among the elements and one metal at least; energies: of formation, eV/atom
    [n]; known_*: of the solids it may turn into [m, E], [m].
    """
    found = np.full((len(energies), len(acidities)), np.nan)
    metals = [k for k, symbol in enumerate(elements) if symbol not in ("O", "H")]
    if "O" not in elements or (counts[:, metals].sum(axis=1) == 0).any():
        raise DataError("Decomposition in water is of oxides: every solid needs a metal, and O must be an element.")
    usable = np.isfinite(known_energies) & (known_counts[:, metals].sum(axis=1) > 0)
    species = [_solid(*one, elements) for one in zip(known_counts[usable], known_energies[usable], strict=True)]
    species += [ion for metal in metals for ion in ions_of(elements[metal])]
    content = np.array([[one.composition[elements[m]] for one in species] for m in metals])  # [metals, species]
    for column, acidity in enumerate(acidities):
        at = {"pH": acidity, "V": potential - NERNST * acidity}
        price = np.array([one.energy_at_conditions(**at) for one in species])
        for k in np.flatnonzero(np.isfinite(energies)):
            solid = _solid(counts[k], energies[k], elements).energy_at_conditions(**at)
            found[k, column] = (solid - _cheapest(price, content, counts[k, metals])) / counts[k].sum()
    return found


def _cheapest(price: np.ndarray, content: np.ndarray, wanted: np.ndarray) -> float:
    """The least free energy in eV of species that hold the wanted metals: a linear program.

    price: of a unit of each species, eV [S]; content: metal atoms in it [M, S]; wanted [M].
    """
    from scipy.optimize import linprog

    return float(linprog(price, A_eq=content, b_eq=wanted).fun)


@cache
def ions_of(metal: str) -> tuple:
    """PourbaixEntries of a metal's ions in water. Raises DataError where none is known."""
    from ase.phasediagram import solvated
    from pymatgen.analysis.pourbaix_diagram import IonEntry, PourbaixEntry
    from pymatgen.core.ion import Ion

    found = []
    for name, energy in solvated(metal):
        formula = name.removesuffix("(aq)")
        bare = formula.rstrip("+-")
        if metal not in bare:
            continue  # water and the proton
        charge = formula.count("+") - formula.count("-")
        ion = Ion.from_formula(f"{bare}[{charge:+d}]" if charge else f"{bare}(aq)")
        found.append(PourbaixEntry(IonEntry(ion, energy), entry_id=name, concentration=CONCENTRATION))
    if not found:
        raise DataError(f"{metal}: no ions in water are known.")
    return tuple(found)


def _solid(counts: np.ndarray, energy: float, elements: list[str]):
    from pymatgen.analysis.pourbaix_diagram import PourbaixEntry
    from pymatgen.core import Composition
    from pymatgen.entries.computed_entries import ComputedEntry

    whole = Composition({symbol: int(n) for symbol, n in zip(elements, counts, strict=True) if n})
    free = energy * counts.sum() + ENTROPY * counts[elements.index("O")]
    return PourbaixEntry(ComputedEntry(whole, free))
