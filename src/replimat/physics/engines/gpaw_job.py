"""One calculation by GPAW, run by a Python that has it:  [mpiexec -n N] python3 gpaw_job.py JOB.json RESULT.json

JOB.json:    atoms {numbers, positions, cell, magmoms or null} in angstrom and Bohr magnetons, periodic; molecule
             (true: the Gamma point alone); relax "none", "atoms" or "cell"; settings of replimat.physics.dft.
RESULT.json: energy (eV, smearing extrapolated to zero), forces (eV/angstrom), stress (eV/angstrom^3, Voigt), gap (eV,
             of the k-points used), moments, steps, converged, the atoms at the end, versions, PAW data, seconds.
             What GPAW could not bring to self-consistency has converged false and says why in `failed`.

RESULT.json.last keeps the geometry after every step of a relaxation: a killed one goes on from there. Written for
GPAW 22.8 with ASE 3.22 (Debian 12) and later.
"""

import json
import os
import sys
import time
from pathlib import Path

import ase
import gpaw
from ase import Atoms
from ase.dft.bandgap import bandgap
from ase.optimize import BFGS
from ase.parallel import parprint, world
from gpaw import GPAW, PW, KohnShamConvergenceError

try:
    from ase.filters import UnitCellFilter
except ImportError:  # ASE before 3.23
    from ase.constraints import UnitCellFilter

LARGEST_STEP = 0.1  # angstrom; generated crystals start far from any minimum
EMPTY = 0.5  # eV above the gap to which empty bands are converged, so that the gap can be read


def main(job_file: str, result_file: str) -> None:
    """Reads a job, runs it and writes its result, whole or not at all."""
    started = time.time()
    job = json.loads(Path(job_file).read_text())
    last = Path(f"{result_file}.last")
    atoms, before = _start(job, last)
    atoms.calc = calculator(job, str(Path(result_file).with_suffix(".txt")))
    result = {"converged": False, "failed": "", "steps": before}
    try:
        if job["relax"] != "none":
            result["relaxed"], result["steps"] = relax(atoms, job, before, last)
            atoms.calc = calculator(job, str(Path(result_file).with_suffix(".txt")))  # plane waves of the last cell
        result.update(describe(atoms), converged=True)
    except KohnShamConvergenceError as error:
        result["failed"] = f"no self-consistency after {job['settings']['max_iterations']} iterations ({error})".strip()
    result.update(atoms=_plain(atoms), versions=versions(), paw_data=paw_data(atoms.calc))
    result.update(processes=world.size, seconds=round(time.time() - started, 1))
    _write(Path(result_file), result)
    if world.rank == 0:
        last.unlink(missing_ok=True)


def calculator(job: dict, log: str) -> GPAW:
    """GPAW in plane waves as the job's settings say."""
    chosen = job["settings"]
    spin = job["atoms"]["magmoms"] is not None
    return GPAW(
        mode=PW(chosen["cutoff"], dedecut="estimate"),  # the stress as if the cutoff stayed while the cell moves
        xc=chosen["xc"],
        kpts={"size": (1, 1, 1)} if job["molecule"] else {"density": chosen["kpoint_density"], "gamma": True},
        occupations={"name": "fermi-dirac", "width": chosen["smearing"]},
        convergence={"energy": chosen["energy_tolerance"], "bands": f"CBM+{EMPTY}"},
        maxiter=chosen["max_iterations"],
        spinpol=spin,
        txt=log,
    )


def relax(atoms: Atoms, job: dict, before: int, last: Path) -> tuple[bool, int]:
    """Whether atoms (and the cell) came to rest within max_steps, those of a killed run counted, and the steps."""
    chosen = job["settings"]
    moved = UnitCellFilter(atoms) if job["relax"] == "cell" else atoms
    optimiser = BFGS(moved, logfile=None, maxstep=LARGEST_STEP)
    started = time.time()

    def keep():
        steps = before + optimiser.nsteps
        force = (moved.get_forces() ** 2).sum(axis=1).max() ** 0.5
        _write(last, {"atoms": _plain(atoms), "steps": steps})
        energy, volume = atoms.get_potential_energy() / len(atoms), atoms.get_volume() / len(atoms)
        state = f"{energy:.4f} eV/atom, {volume:.2f} A^3/atom, largest force {force:.3f} eV/A"
        parprint(f"step {steps}: {state}, {time.time() - started:.0f} s", flush=True)

    optimiser.attach(keep)
    return bool(optimiser.run(chosen["fmax"], max(chosen["max_steps"] - before, 0))), before + optimiser.nsteps


def describe(atoms: Atoms) -> dict:
    """Energy, forces, stress, gap and moments of the atoms where they are."""
    energy = atoms.get_potential_energy()
    spin = atoms.calc.get_spin_polarized()
    parprint(f"self-consistent after {atoms.calc.get_number_of_iterations()} iterations", flush=True)
    return {
        "energy": float(energy),
        "forces": atoms.get_forces().tolist(),
        "stress": atoms.get_stress().tolist(),
        "gap": max(float(bandgap(atoms.calc, output=None)[0]), 0.0),
        "magmoms": atoms.get_magnetic_moments().tolist() if spin else None,  # within the atoms' spheres
        "magnetic_moment": float(atoms.get_magnetic_moment()) if spin else None,
        "iterations": int(atoms.calc.get_number_of_iterations()),
        "kpoints": [int(n) for n in atoms.calc.wfs.kd.N_c],
    }


def versions() -> dict:
    return {"gpaw": gpaw.__version__, "ase": ase.__version__, "python": sys.version.split()[0]}


def paw_data(calc: GPAW) -> dict:
    """Element -> hash of the projector-augmented-wave data used for it."""
    return {setup.symbol: setup.data.fingerprint for setup in calc.setups}


def _start(job: dict, last: Path) -> tuple[Atoms, int]:
    """Atoms to begin with and steps already taken: those of a killed relaxation, where it left any."""
    kept = json.loads(last.read_text()) if last.exists() else {"atoms": job["atoms"], "steps": 0}
    plain = kept["atoms"]
    atoms = Atoms(plain["numbers"], positions=plain["positions"], cell=plain["cell"], pbc=True)
    if job["atoms"]["magmoms"] is not None:
        atoms.set_initial_magnetic_moments(job["atoms"]["magmoms"])
    if kept["steps"]:
        parprint(f"goes on after step {kept['steps']}", flush=True)
    return atoms, kept["steps"]


def _plain(atoms: Atoms) -> dict:
    return {
        "numbers": [int(z) for z in atoms.numbers],
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.array.tolist(),
    }


def _write(path: Path, value: dict) -> None:
    if world.rank == 0:
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(json.dumps(value))
        os.replace(temporary, path)
    world.barrier()


if __name__ == "__main__":
    main(*sys.argv[1:])
