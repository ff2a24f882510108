"""What a step of dynamics costs: time of energy, forces and stress per atom, neighbour list included, on one core."""

import time

import numpy as np

from replimat.physics.crystals import Crystal
from replimat.physics.found import Found

ATOMS = 100  # at least: small cells would measure the call and not the work
DISPLACED = 0.05  # angstrom: a perfect crystal has neighbours exactly on shells
TIMES = 5


def cost(calculator, crystal: Crystal, times: int = TIMES) -> Found:
    """Milliseconds per atom and step of a supercell of ATOMS atoms or more: the fastest of `times` steps.

    The fastest, because whatever else the machine does only adds to it. The atoms move a little before every step, so
    that nothing is remembered from the one before.
    """
    repeats = int(np.ceil(np.cbrt(ATOMS / len(crystal.conventional()))))
    atoms = crystal.supercell(repeats)
    rng = np.random.default_rng(0)
    atoms.calc, seconds = calculator, []
    for _ in range(times + 1):  # the first warms up
        atoms.positions += rng.normal(scale=DISPLACED, size=atoms.positions.shape) / np.sqrt(times)
        started = time.process_time()
        atoms.get_forces()
        seconds.append(time.process_time() - started)
    return Found(
        {"cost": 1e3 * min(seconds[1:]) / len(atoms)},
        {"cost": "ms/atom/step"},
        {"atoms": len(atoms), "seconds": seconds},
    )
