"""A generated crystal judged by first principles (physics/dft.py), beside what surrogates predict of it.

results/<scale>/dft/<name>.json has everything, table.csv and table.md one row a candidate, jobs/ every calculation.
"""

import io
import json
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
from ase import Atoms, units

from replimat.cards import project_root
from replimat.errors import ReplimatError
from replimat.files import write_json, write_text
from replimat.physics import dft

COLUMNS = {  # of the table: quantity -> unit; from the last calculation that converged
    "formation_energy": "eV/atom",
    "formation_energy_corrected": "eV/atom",
    "band_gap": "eV",
    "max_force": "eV/angstrom",
    "pressure": "GPa",
    "volume": "angstrom^3/atom",
}
CRYSTALS = "crystals"  # folder of a paper's results with what its generators made
NOTES = [
    "One row a calculation: the candidate as given, and relaxed where that was asked for. PBE; no +U, no dispersion.",
    "formation_energy: above the elements, calculated alike; formation_energy_corrected: with the anion corrections of "
    "the Materials Project (2020), which is what cgcnn (the authors' weights) was taught, with those of 2017.",
    "band_gap: of PBE, and of the k-points used. chgnet: CHGNet 0.3.0 on the same geometry.",
]


def check_candidate(
    path: Path,
    scale: str,
    settings: dft.Settings | None = None,
    relax: bool = False,
    processes: int = 1,
    say: Callable[[str], None] = print,
) -> dict:
    """Checks one CIF file and writes what was found; returns it. An interrupted check goes on where it was."""
    folder = project_root() / "results" / scale / "dft"
    atoms = dft.candidate(path)
    record = {"name": name_of(path), "file": path.name}
    record |= dft.check(atoms, folder / "jobs", settings, relax, processes, say)
    for stage in stages(record):
        record[stage]["surrogates"] = surrogates(_atoms(record[stage]["atoms"]))
    write_json(folder / f"{record['name']}.json", record)
    write_table(folder)
    return record


def name_of(path: Path) -> str:
    """`cgan-mg-mn-o-01-MgMnO2` for papers/cgan/crystals/mg-mn-o/01-MgMnO2.cif; the file's name for any other."""
    parts = path.resolve().parts
    if CRYSTALS in parts[2:-1]:
        at = max(place for place, part in enumerate(parts[:-1]) if part == CRYSTALS)
        return "-".join([parts[at - 1], *parts[at + 1 : -1], path.stem])
    return path.stem


def stages(record: dict) -> list[str]:
    """Which of the two calculations a record has."""
    return [stage for stage in ("as_given", "relaxed") if stage in record]


def surrogates(atoms: Atoms) -> dict:
    """What the CGCNN authors' weights and CHGNet say of the same atoms; a reason where they cannot."""
    told = {}
    for name, predict in {"cgcnn": _cgcnn, "chgnet": _chgnet}.items():
        try:
            with redirect_stdout(io.StringIO()), warnings.catch_warnings():  # CHGNet greets
                warnings.simplefilter("ignore")
                told[name] = predict(atoms)
        except (ReplimatError, ImportError, OSError, ValueError, RuntimeError) as error:
            told[name] = {"missing": str(error).splitlines()[0]}
    return told


def write_table(folder: Path) -> pd.DataFrame:
    """table.csv and table.md of every record in a folder; rows of what did not converge say so."""
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    table = pd.DataFrame([_row(record, stage) for record in records for stage in stages(record)])
    write_text(folder / "table.csv", table.to_csv(index=False))
    header = [f"{name} [{COLUMNS[name]}]" if name in COLUMNS else name for name in table]
    lines = [f"| {' | '.join(cells)} |" for cells in [header, ["---"] * len(header)]]
    lines += [f"| {' | '.join(_cell(value) for value in row)} |" for row in table.itertuples(index=False)]
    write_text(folder / "table.md", "\n".join(["# Candidates by DFT", "", *lines, "", *NOTES]) + "\n")
    return table


def _row(record: dict, stage: str) -> dict:
    found = record[stage]
    predicted = found["surrogates"]
    row = {"name": record["name"], "formula": record["formula"], "calculation": stage.replace("_", " ")}
    row["status"] = found["failed"] or ("not relaxed" if found["relaxed"] is False else "converged")
    for column in COLUMNS:
        row[column] = found.get(column)
        row |= {f"{column} by {name}": values[column] for name, values in predicted.items() if column in values}
    return row | {"seconds": found["seconds"]}


def _cell(value) -> str:
    if value is None or value != value:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _cgcnn(atoms: Atoms) -> dict:
    from replimat.datasets.base import Structures
    from replimat.experiments.properties import author_property
    from replimat.sources.store import fetch

    packed = Structures.pack([(atoms.numbers, atoms.positions, atoms.cell.array)], periodic=True)
    folder = fetch("cgcnn_weights")
    formation = float(author_property("formation_energy", packed, folder)[0])
    return {"formation_energy_corrected": formation, "band_gap": float(author_property("band_gap", packed, folder)[0])}


def _chgnet(atoms: Atoms) -> dict:
    from replimat.datasets.chgnet_relaxation import calculator

    judged = atoms.copy()
    judged.calc = calculator()
    return {
        "max_force": float(np.linalg.norm(judged.get_forces(), axis=1).max()),
        "pressure": -float(np.mean(judged.get_stress()[:3])) / units.GPa,
    }


def _atoms(plain: dict) -> Atoms:
    return Atoms(plain["numbers"], positions=plain["positions"], cell=plain["cell"], pbc=True)
