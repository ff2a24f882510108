"""Units of the claims, one spelling each, and conversion inside a family of compatible ones.

A unit that stands alone in its family converts only to itself: eV and eV/atom are different things, and so are GPa and
log10(GPa). The factors come from CODATA through scipy.constants.
"""

from functools import cache

from replimat.errors import DataError

ALONE = (
    "log10(GPa)",
    "muB",
    "m_e",
    "K",
    "ppm",
    "eV/cell",
    "MB",
    "g/cm^3",
    "mol/kg",
    "m^2/g",
    "m^2/cm^3",
    "C/N",
    "C/m^2",
    "10^21 V/m^2",
    "uV/K",
    "uW/m/K^2",
    "W/m/K",
    "cm^-2",
    "J^2/mol^2/K^2",
    "ms/atom/step",
    "unstated",  # the source prints a number without a unit, and none can be inferred
)


@cache
def families() -> tuple[dict[str, float], ...]:
    """Families of compatible units: each unit with its size in the family's first unit."""
    from scipy import constants as si

    angstrom, ev = si.angstrom, si.eV
    bohr = si.value("Bohr radius") / angstrom
    hartree = si.value("Hartree energy in eV")
    kj_per_mol = si.kilo / si.N_A / ev
    kcal_per_mol = kj_per_mol * si.calorie
    debye = 1e-21 / si.c  # C m
    shared = (
        {"eV": 1, "meV": 1e-3, "kcal/mol": kcal_per_mol, "kJ/mol": kj_per_mol, "hartree": hartree},
        {"eV/atom": 1, "meV/atom": 1e-3},
        {"eV/angstrom": 1, "meV/angstrom": 1e-3, "kcal/mol/angstrom": kcal_per_mol, "hartree/bohr": hartree / bohr},
        {"angstrom": 1, "nm": 10, "pm": 1e-2, "bohr": bohr},
        {"angstrom^2": 1, "bohr^2": bohr**2},
        {"angstrom^3": 1, "bohr^3": bohr**3},
        {"debye": 1, "e*angstrom": si.e * angstrom / debye},
        {"GPa": 1, "kbar": 0.1, "eV/angstrom^3": ev / angstrom**3 / si.giga},
        {"J/mol/K": 1, "cal/mol/K": si.calorie},
        {"cm^-1": 1, "THz": si.tera / si.c * si.centi},
        {"s": 1, "ms": 1e-3, "min": 60, "h": 3600},
        {"1": 1, "%": 1e-2, "million": 1e6},
    )
    return shared + tuple({unit: 1} for unit in ALONE)


def convert(value: float, source: str, target: str) -> float:
    """`value` given in unit `source`, expressed in unit `target`.

    Raises DataError when a unit is unknown or the two are not of one family.
    """
    family = _family(source)
    if _family(target) is not family:
        raise DataError(f"Cannot convert {source} to {target}: {source} goes with {', '.join(family)} only.")
    return value * (family[source] / family[target])


def _family(unit: str) -> dict[str, float]:
    for family in families():
        if unit in family:
            return family
    raise DataError(f"Unknown unit {unit!r}. Known: {', '.join(name for family in families() for name in family)}.")
