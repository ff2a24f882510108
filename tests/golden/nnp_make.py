"""Makes tests/golden/nnp_dscribe.json: symmetry functions by dscribe. Run by hand, never by the tests.

    python tests/golden/nnp_make.py

In an environment with dscribe and ase. dscribe's G2 and G4 are n2p2's types 2 and 3.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from ase import Atoms
from dscribe.descriptors import ACSF

HERE = Path(__file__).parent
CUTOFF = 5.2  # angstrom
RADIAL = [(0.036, 0.0), (0.18, 2.0), (0.36, 4.0)]  # eta in 1/angstrom^2, shift in angstrom
ANGULAR = [(0.036, -1, 1), (0.036, 1, 1), (0.07, -1, 2), (0.07, 1, 4), (0.18, -1, 16), (0.18, 1, 16)]


def main() -> None:
    acsf = ACSF(
        r_cut=CUTOFF,
        species=["Mo"],
        g2_params=[list(one) for one in RADIAL],
        g4_params=[[eta, zeta, lam] for eta, lam, zeta in ANGULAR],
        periodic=True,
        dtype="float64",
    )
    structures = crystals()
    document = {
        "provenance": {name: version(name) for name in ("dscribe", "ase", "numpy")},
        "cutoff": CUTOFF,
        "radial": RADIAL,
        "angular": ANGULAR,
        "crystals": [
            {
                "positions": one.positions.tolist(),
                "cell": one.cell.array.tolist(),
                "functions": acsf.create(one)[:, 1:].tolist(),  # the first is G1, which n2p2 does not use
            }
            for one in structures
        ],
    }
    (HERE / "nnp_dscribe.json").write_text(json.dumps(document, indent=1) + "\n")


def crystals() -> list[Atoms]:
    """Triclinic crystals without symmetry, of 2, 5 and 8 atoms."""
    rng = np.random.default_rng(7)
    found = []
    for count in (2, 5, 8):
        cell = np.diag(rng.uniform(5.0, 6.0, 3)) + rng.uniform(-0.6, 0.6, (3, 3))
        grid = np.stack(np.meshgrid(*[np.arange(2)] * 3), -1).reshape(-1, 3)[:count] / 2
        found.append(Atoms(["Mo"] * count, positions=(grid + rng.uniform(-0.06, 0.06, (count, 3))) @ cell, cell=cell))
        found[-1].pbc = True
    return found


if __name__ == "__main__":
    main()
