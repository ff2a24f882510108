"""A crystal from first principles: the last check of a candidate that a generator made.

GPAW (J. J. Mortensen et al., J. Chem. Phys. 160, 092503 (2024)) in plane waves with PBE, from Debian's own packages
with their PAW data, run by the Python that has it: see engines/gpaw_job.py. For crystals of a few atoms.

How far to trust it: MgO has a = 4.255 angstrom and B = 150 GPa by its energies, 4.260 relaxed by its stress (Materials
Project, PBE by VASP: 4.254, 151); its formation energy moves by 0.007 eV/atom from a cutoff of 500 eV to 800.

Not done: +U, spin-orbit coupling, dispersion, any order of moments but the ferromagnetic one. There are PAW data
of 68 elements: none of technetium, lanthanum, the lanthanides and the actinides.
"""

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
from ase import Atoms, units

from replimat.errors import DataError, ReplimatError
from replimat.files import sha256_json, write_json
from replimat.physics.element_references import Reference, reference

JOB = Path(__file__).parent / "engines" / "gpaw_job.py"
PYTHON = "REPLIMAT_DFT_PYTHON"  # environment variable: the Python that has GPAW
USUAL = ("/usr/bin/python3",)  # where Debian's packages put it
PROBE = """
import json, pathlib, gpaw
files = [file.name.split(".") for folder in gpaw.setup_paths for file in pathlib.Path(folder).glob("*.PBE*")]
print(json.dumps({"gpaw": gpaw.__version__, "elements": sorted({name[0] for name in files if name[1] == "PBE"})}))
"""
MISSING = (
    "no Python with GPAW was found ({tried}). Debian, Ubuntu: `apt install gpaw gpaw-data`; or use the image "
    f"(`make image VARIANT=dft`); or name a Python that has it in {PYTHON}."
)
LARGEST = 40  # atoms in the primitive cell: beyond, a check takes hours
CLOSEST = 0.5  # angstrom, as the validity of generated crystals has it
SAME = 0.01  # angstrom: sites that far apart are one by symmetry
MOMENTS = {"V": 5.0, "Cr": 5.0, "Mn": 5.0, "Fe": 5.0, "Co": 5.0, "Ni": 5.0}  # Bohr magnetons to start from, as in MP
OTHER_MOMENT = 0.6  # of the other elements beside one of these


@dataclass(frozen=True)
class Settings:
    """cutoff, smearing (Fermi-Dirac) in eV; kpoint_density: points per 1/angstrom, grids centred at Gamma;
    energy_tolerance: eV per valence electron between iterations; fmax: largest force after relaxation, eV/angstrom.
    """

    xc: str = "PBE"
    cutoff: float = 800.0  # at 500 MgO has an energy smooth to 5 meV only, and a stress off by 6 GPa
    kpoint_density: float = 3.0
    smearing: float = 0.1
    energy_tolerance: float = 1e-5
    max_iterations: int = 150
    fmax: float = 0.05
    max_steps: int = 60


@dataclass(frozen=True)
class Engine:
    """A Python that has GPAW, the version of GPAW and the elements it has PBE data for."""

    python: str
    version: str
    elements: frozenset[str]


def candidate(path: Path) -> Atoms:
    """The primitive cell of a CIF file. Raises DataError for what no calculation should be spent on."""
    from pymatgen.core import Structure

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about tags a CIF may lack
            crystal = Structure.from_file(path)
    except Exception as error:  # pymatgen raises many kinds
        raise DataError(f"{path}: no crystal could be read from it ({error}).") from None
    if not crystal.is_ordered:
        raise DataError(f"{path}: partly occupied sites; a calculation needs every site to be one atom.")
    crystal = crystal.get_primitive_structure(tolerance=SAME)
    if len(crystal) > LARGEST:
        raise DataError(f"{path}: {len(crystal)} atoms in the primitive cell, at most {LARGEST} are checked here.")
    neighbours = chain.from_iterable(crystal.get_all_neighbors(CLOSEST))
    nearest = min((one.nn_distance for one in neighbours), default=CLOSEST)
    if nearest < CLOSEST:
        raise DataError(f"{path}: atoms {nearest:.2f} angstrom apart; below {CLOSEST} it is not a crystal.")
    return Atoms(crystal.atomic_numbers, positions=crystal.cart_coords, cell=crystal.lattice.matrix, pbc=True)


@cache
def find_engine() -> Engine:
    """The first of $REPLIMAT_DFT_PYTHON (alone, if set), this Python, Debian's and the one on the path that has GPAW.

    Raises ReplimatError, with what to do, when there is none.
    """
    named = os.environ.get(PYTHON)
    tried = [named] if named else [sys.executable, *USUAL, shutil.which("python3") or ""]
    for python in dict.fromkeys(filter(None, tried)):
        try:
            done = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, timeout=60)
            if done.returncode == 0:
                found = json.loads(done.stdout)
                return Engine(python, found["gpaw"], frozenset(found["elements"]))
        except (OSError, subprocess.SubprocessError, ValueError):
            continue
    raise ReplimatError("DFT: " + MISSING.format(tried=", ".join(dict.fromkeys(filter(None, tried)))))


def job_of(atoms: Atoms, settings: Settings, relax: str = "none", molecule: bool = False) -> dict:
    """What engines/gpaw_job.py reads. Spin-polarised where the atoms bring moments."""
    moments = atoms.get_initial_magnetic_moments()
    plain = {
        "numbers": [int(z) for z in atoms.numbers],
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.array.tolist(),
        "magmoms": moments.tolist() if moments.any() else None,
    }
    return {"atoms": plain, "molecule": molecule, "relax": relax, "settings": asdict(settings)}


def with_moments(atoms: Atoms) -> Atoms:
    """The same atoms with ferromagnetic moments to start from, where a 3d metal of MOMENTS is among them."""
    symbols = atoms.get_chemical_symbols()
    if MOMENTS.keys() & set(symbols):
        atoms.set_initial_magnetic_moments([MOMENTS.get(symbol, OTHER_MOMENT) for symbol in symbols])
    return atoms


def run_job(job: dict, folder: Path, name: str, processes: int = 1, say: Callable[[str], None] = print) -> dict:
    """The result of a job; what is already in `folder` for the same job and engine is not run again.

    A relaxation that was killed goes on from its last step. Raises ReplimatError when the engine is missing or fails.
    """
    engine = find_engine()
    key = sha256_json({"job": job, "gpaw": engine.version})[:16]
    asked, result = folder / f"{name}-{key}.job.json", folder / f"{name}-{key}.json"
    if result.exists():
        say(f"{name}: known, {result}")
        return json.loads(result.read_text())
    write_json(asked, job)
    say(f"{name}: {len(job['atoms']['numbers'])} atoms, relax {job['relax']}, GPAW {engine.version}")
    launcher = ["mpiexec", "-n", str(processes)] if processes > 1 else []
    told = folder / f"{name}-{key}.err"
    code = _run([*launcher, engine.python, str(JOB), str(asked), str(result)], told, say)
    if code or not result.exists():
        lines = [line for line in told.read_text().splitlines() if any(map(str.isalnum, line))]
        last = lines[-1].strip() if lines else f"exit code {code}"
        raise ReplimatError(f"DFT: {name} failed ({last}). Its whole message is in {told}, beside GPAW's log.")
    told.unlink()
    return json.loads(result.read_text())


def _run(command: list[str], told: Path, say: Callable[[str], None]) -> int:
    """Exit code of a command; what it prints goes to `say` as it comes, its errors to the file `told`."""
    with open(told, "w") as errors:
        try:
            started = subprocess.Popen(
                command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        except OSError as error:
            raise ReplimatError(f"DFT: {command[0]} could not be started ({error.strerror}).") from None
        with started:
            for line in started.stdout:
                say(f"  {line.rstrip()}")
    return started.returncode


def check(
    atoms: Atoms,
    folder: Path,
    settings: Settings | None = None,
    relax: bool = False,
    processes: int = 1,
    say: Callable[[str], None] = print,
) -> dict:
    """As given and, if asked, relaxed: energy, formation energy, gap, forces, pressure, and whether it converged.

    folder: keeps every calculation, so that an interrupted check goes on and elements are calculated once.
    """
    settings, engine = settings or Settings(), find_engine()
    symbols = atoms.get_chemical_symbols()
    if unknown := sorted(set(symbols) - engine.elements):
        raise DataError(f"{atoms.get_chemical_formula()}: GPAW has no PAW data for {', '.join(unknown)}.")
    start = with_moments(atoms.copy())
    found = {"as_given": run_job(job_of(start, settings), folder, atoms.get_chemical_formula(), processes, say)}
    if relax:
        job = job_of(start, settings, "cell")
        found["relaxed"] = run_job(job, folder, atoms.get_chemical_formula() + "-relaxed", processes, say)
    elements = {}
    if any(result["converged"] for result in found.values()):
        elements = {symbol: element(symbol, folder, settings, processes, say) for symbol in sorted(set(symbols))}
    return {
        "formula": atoms.get_chemical_formula(),
        "n_atoms": len(atoms),
        "settings": asdict(settings),
        "engine": found["as_given"]["versions"] | {"name": "GPAW", "paw_data": found["as_given"]["paw_data"]},
        "spin_polarised": bool(start.get_initial_magnetic_moments().any()),
        "elements": elements,
    } | {name: summary(result, elements) for name, result in found.items()}


def element(symbol: str, folder: Path, settings: Settings, processes: int, say: Callable[[str], None]) -> dict:
    """energy (eV/atom) of an element at rest, calculated as the candidate is, and what to know of it; energy None and
    a reason where there is none.
    """
    try:
        chosen: Reference = reference(symbol)
    except DataError as error:
        return {"energy": None, "note": str(error)}
    job = job_of(chosen.atoms, settings, chosen.relax, chosen.molecule)
    result = run_job(job, folder, f"element-{symbol}", processes, say)
    if not result["converged"]:
        return {"energy": None, "note": result["failed"]}
    cell = Atoms(result["atoms"]["numbers"], cell=result["atoms"]["cell"])
    return {
        "energy": result["energy"] / len(chosen.atoms),
        "relaxed": result.get("relaxed"),
        "volume": None if chosen.molecule else float(cell.get_volume()) / len(cell),
        "magmoms": result["magmoms"],
        "seconds": result["seconds"],
        "note": chosen.note,
    }


def summary(result: dict, elements: dict) -> dict:
    """Per atom and in common units what a calculation gave: eV, angstrom, GPa, Bohr magnetons per cell."""
    plain = result["atoms"]
    atoms = Atoms(plain["numbers"], positions=plain["positions"], cell=plain["cell"], pbc=True)
    told = {"converged": result["converged"], "failed": result["failed"], "seconds": result["seconds"]}
    told |= {"relaxed": result.get("relaxed"), "steps": result["steps"], "processes": result["processes"]}
    told |= {"volume": float(atoms.get_volume()) / len(atoms), "cell": atoms.cell.cellpar().tolist(), "atoms": plain}
    if not result["converged"]:
        return told
    formation = formation_energy(result["energy"], atoms, elements)
    correction = anion_correction(atoms, result["energy"])
    corrected = None if None in (formation, correction) else formation + correction / len(atoms)
    return told | {
        "energy": result["energy"],
        "energy_per_atom": result["energy"] / len(atoms),
        "formation_energy": formation,
        "formation_energy_corrected": corrected,
        "band_gap": result["gap"],
        "max_force": float(np.linalg.norm(result["forces"], axis=1).max()),
        "pressure": -float(np.mean(result["stress"][:3])) / units.GPa,
        "magnetic_moment": result["magnetic_moment"],
        "kpoints": result["kpoints"],
    }


def formation_energy(energy: float, atoms: Atoms, elements: dict) -> float | None:
    """eV/atom above the elements at rest; None where one of them is missing."""
    at_rest = [elements[symbol]["energy"] for symbol in atoms.get_chemical_symbols()]
    return None if None in at_rest else (energy - sum(at_rest)) / len(atoms)


def anion_correction(atoms: Atoms, energy: float) -> float | None:
    """The anion part of the Materials Project's corrections of 2020 (A. Wang et al., Sci. Rep. 11, 15496 (2021)), eV
    per cell; None where its rules give none. Fitted to VASP's PBE: for comparison with numbers learned from there.

    Oxides and fluorides of some 3d metals have +U there and none here, so that these compare badly.
    """
    from pymatgen.entries.compatibility import CompatibilityError, MaterialsProject2020Compatibility
    from pymatgen.entries.computed_entries import ComputedStructureEntry
    from pymatgen.io.ase import AseAtomsAdaptor

    crystal = AseAtomsAdaptor.get_structure(atoms)
    rules = MaterialsProject2020Compatibility(check_potcar=False)
    anion = max(crystal.composition.elements, key=lambda one: one.X).symbol
    with_u = {
        symbol: value
        for symbol, value in rules.u_settings.get(anion, {}).items()
        if symbol in crystal.composition.as_dict()
    }
    kind = {"run_type": "GGA+U" if with_u else "GGA", "hubbards": with_u}
    try:
        parts = rules.get_adjustments(ComputedStructureEntry(crystal, energy, parameters=kind))
    except CompatibilityError:
        return None
    return float(sum(part.value for part in parts if "anion" in part.name))
