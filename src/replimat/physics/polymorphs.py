"""Other lattices of the same element: how far they lie above the ground state."""

from replimat.errors import ReplimatError
from replimat.physics.crystals import Crystal, of_volume
from replimat.physics.found import Found
from replimat.physics.relaxation import energy_per_atom, relaxed_crystal

LATTICES = ("fcc", "bcc", "hcp", "sc", "diamond", "beta-tin")
VOLUMES = {"fcc": 1.0, "bcc": 1.0, "hcp": 1.0, "sc": 1.12, "beta-tin": 1.06, "diamond": 1.4}  # to start from, per atom


def polymorphs(calculator, crystal: Crystal, lattices: tuple[str, ...] = LATTICES, fmax: float = 1e-4) -> Found:
    """polymorph_<lattice> [eV/atom]: energy of each lattice, relaxed in its space group, minus that of `crystal`.

    Negative where the potential prefers another lattice than the one given. A lattice that has no minimum near its
    usual volume gets no value; curves: lattice constants of those found, the reason for each that was not.
    """
    ground = relaxed_crystal(calculator, crystal, fmax)
    reference, known = energy_per_atom(calculator, ground), _volume(ground) / VOLUMES[ground.lattice]
    values, constants, failed = {}, {crystal.lattice: _constants(ground)}, {}
    for lattice in lattices:
        if lattice == crystal.lattice:
            continue
        try:
            start = of_volume(crystal.symbol, lattice, known * VOLUMES[lattice])
            found = relaxed_crystal(calculator, start, fmax)
            values[f"polymorph_{lattice}"] = float(energy_per_atom(calculator, found) - reference)
            constants[lattice] = _constants(found)
        except (ReplimatError, RuntimeError) as error:
            failed[lattice] = str(error)
    if not values:
        raise ReplimatError(f"{crystal.symbol}: no other lattice could be relaxed: {failed}")
    return Found(values, dict.fromkeys(values, "eV/atom"), {"lattice_constants": constants, "not_found": failed})


def _volume(crystal: Crystal) -> float:
    """Cubic angstrom per atom."""
    cell = crystal.primitive()
    return float(cell.get_volume() / len(cell))


def _constants(crystal: Crystal) -> list[float]:
    return [crystal.a] if crystal.c is None else [crystal.a, crystal.c]
