"""Lines through the Brillouin zone for phonon dispersions, in two and three dimensions.

The special points are those of Setyawan and Curtarolo (Comput. Mater. Sci. 49, 299 (2010)) as ASE finds them for any
cell, primitive, skewed or rotated. ASE's own paths are the default; those below are what phonon papers draw.
"""

from itertools import pairwise

import numpy as np
from ase import Atoms

PATHS = {
    "FCC": "GXU,KGL",
    "BCC": "GHPGN",
    "HEX": "GMKGALHA",
    "HEX2D": "GMKG",
    "SQR": "GXMG",
    "RECT": "GXSYG",
}


def legs(atoms: Atoms, path: str | None = None) -> list[tuple[str, str, np.ndarray, np.ndarray]]:
    """Straight lines between special points: names of start and end, and where they are, in the reciprocal cell [3].

    path: as in "GXU,KGL" (a comma jumps); None: the one in PATHS for the lattice, else ASE's. A direction that is not
    periodic has no q. Raises ValueError for a cell without a known lattice or a point it does not have.
    """
    from ase.dft.kpoints import parse_path_string

    lattice = atoms.cell.get_bravais_lattice(pbc=atoms.pbc)
    path = path or PATHS.get(lattice.name) or lattice.special_path
    points = atoms.cell.bandpath(path="G", npoints=1, pbc=atoms.pbc).special_points
    pieces = parse_path_string(path)
    if unknown := {name for piece in pieces for name in piece} - set(points):
        raise ValueError(f"the lattice {lattice.name} has no points {sorted(unknown)}; it has {sorted(points)}.")
    return [(a, b, points[a], points[b]) for piece in pieces for a, b in pairwise(piece)]
