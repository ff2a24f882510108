"""The vacancy: what it costs to make one and to move it to a neighbouring site.

    E_v = E(N-1) - (N-1)/N E(N),    E_m = E(saddle) - E(N-1),    E_a = E_v + E_m

The path is a nudged elastic band with a climbing image (Henkelman, Uberuaga, Jonsson, J. Chem. Phys. 113, 9901 (2000)).

Differs from the authors of mlearn: they relax the cell of the end states for the migration though not for the formation
(relax_cell=True does that), minimise by damped dynamics without and then with the climbing image, and round the final
state to 0.001 angstrom; here the image climbs from the start, and a band that LBFGS cannot converge goes to FIRE.
"""

from itertools import pairwise

import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from ase.mep import NEB
from ase.optimize import FIRE, LBFGS

from replimat.errors import ReplimatError
from replimat.physics.crystals import Crystal
from replimat.physics.found import Found
from replimat.physics.relaxation import relax, relaxed_crystal

REPEATS = {"fcc": 3, "bcc": 3, "diamond": 2, "sc": 4}  # conventional cells along each axis, as the authors of mlearn
SPRING = 1.0  # eV/angstrom^2 between images: their constant
STIFFNESS = 30.0  # eV/angstrom^2, to begin with: three times fewer steps than FIRE for vacancies of copper
TIE = 0.05  # of the nearest distance: neighbours closer together than this are one shell


def vacancy_formation(calculator, crystal: Crystal, repeats: int | None = None, fmax: float = 0.005) -> Found:
    """vacancy_formation_energy [eV] at the volume of the perfect crystal at zero pressure.

    repeats: conventional cells along each axis (REPEATS where none are given); fmax: eV/angstrom.
    """
    perfect = _perfect(calculator, crystal, repeats)
    start, _ = _ends(perfect)
    return _found(_formation(perfect, start, fmax), {"atoms": len(start)})


def vacancy(
    calculator,
    crystal: Crystal,
    repeats: int | None = None,
    images: int = 7,
    fmax: float = 0.005,
    fmax_path: float = 0.02,
    relax_cell: bool = False,
    max_steps: int = 500,
) -> Found:
    """vacancy_formation_energy, vacancy_migration_energy, vacancy_diffusion_barrier (their sum) [eV].

    images: with both ends; fmax, fmax_path: eV/angstrom for the end states and for the band; relax_cell: the end states
    take zero pressure, keeping the cell's shape, for the migration. curves: energies along the path, from the
    starting state, against the length of the path in angstrom.
    Raises ReplimatError when the band has not converged after max_steps, or its highest image is an end.
    """
    perfect = _perfect(calculator, crystal, repeats)
    start, end = _ends(perfect)
    values = _formation(perfect, start, fmax)
    if relax_cell:
        relax(start, fmax, cell=True, hydrostatic=True)
        end.set_cell(start.cell, scale_atoms=True)
    relax(end, fmax)  # the ends are mirror images, so their cells are the same
    along, energies = _path(start, end, images, fmax_path, max_steps)
    top = int(np.argmax(energies))
    if not 0 < top < images - 1:
        raise ReplimatError(
            f"{crystal.symbol}: no barrier between neighbouring vacancies; the end states are no minima."
        )
    values["vacancy_migration_energy"] = float(energies[top])
    values["vacancy_diffusion_barrier"] = values["vacancy_formation_energy"] + values["vacancy_migration_energy"]
    return _found(values, {"atoms": len(start), "path": along.tolist(), "energies": energies.tolist()})


def _found(values: dict, curves: dict) -> Found:
    return Found(values, dict.fromkeys(values, "eV"), curves)


def _perfect(calculator, crystal: Crystal, repeats: int | None) -> Atoms:
    if not crystal.cubic:
        raise ValueError(f"{crystal.lattice}: the vacancy's jump is defined for cubic crystals only.")
    atoms = relaxed_crystal(calculator, crystal).supercell(repeats or REPEATS[crystal.lattice])
    atoms.calc = calculator
    return atoms


def _formation(perfect: Atoms, start: Atoms, fmax: float) -> dict[str, float]:
    """Relaxes `start` at fixed cell."""
    whole = perfect.get_potential_energy()
    relax(start, fmax)
    return {"vacancy_formation_energy": float(start.get_potential_energy() - len(start) / len(perfect) * whole)}


def _ends(perfect: Atoms) -> tuple[Atoms, Atoms]:
    """The vacancy at atom 0, and at its nearest neighbour: atoms in the same order, one of them moved."""
    vectors, distances = find_mic(perfect.positions[1:] - perfect.positions[0], perfect.cell, perfect.pbc)
    neighbour = int(np.flatnonzero(distances < distances.min() * (1 + TIE))[0])
    start = perfect[1:]
    end = start.copy()
    end.positions[neighbour] -= vectors[neighbour]  # into the hole
    for one in (start, end):
        one.calc = perfect.calc
    return start, end


def _path(start: Atoms, end: Atoms, images: int, fmax: float, max_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Length along the path (angstrom) and energy above its start (eV) of every image of the converged band."""
    chain = [start, *(start.copy() for _ in range(images - 2)), end]
    for image in chain[1:-1]:
        image.calc = start.calc
    band = NEB(chain, k=SPRING, climb=True, method="improvedtangent", allow_shared_calculator=True)
    band.interpolate(mic=True)
    fast, safe = LBFGS(band, logfile=None, maxstep=0.1, alpha=STIFFNESS), FIRE(band, logfile=None)
    if not (fast.run(fmax=fmax, steps=max_steps // 2) or safe.run(fmax=fmax, steps=max_steps)):
        name = start.get_chemical_formula()
        raise ReplimatError(f"{name}: the path is not at {fmax:g} eV/angstrom after {max_steps} steps.")
    energies = np.array([image.get_potential_energy() for image in chain])
    moves = [after.positions - before.positions for before, after in pairwise(chain)]
    steps = [np.linalg.norm(find_mic(move, start.cell)[0]) for move in moves]
    return np.concatenate([[0.0], np.cumsum(steps)]), energies - energies[0]
