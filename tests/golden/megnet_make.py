"""Makes the golden files of MEGNet: runs the authors' own package and weights. Run by hand, never by the tests.

    PYTHONPATH=PACKAGE:src python tests/golden/megnet_make.py --package PACKAGE

PACKAGE: the unpacked source distribution megnet-1.2.9 (it holds the models), in an environment with TensorFlow 2.15 and
pymatgen 2023.5.10, the last that its code goes with; the datasets qm9, mp_flla, mp_elastic and mp_dielectric must have
been fetched and read once.

megnet_structures.safetensors: the molecules, then the crystals.
megnet_official.json: what the authors' models answered, with provenance.
"""

import argparse
import contextlib
import io
import os
from importlib.metadata import version
from pathlib import Path

import numpy as np
from pymatgen.core import Lattice, Molecule, Structure
from safetensors.numpy import save_file

from replimat import datasets
from replimat.files import atomic, sha256, write_json

HERE = Path(__file__).parent
MOLECULES, CRYSTALS = {"qm9": 25}, {"mp_flla": 11, "mp_elastic": 7, "mp_dielectric": 7}  # evenly over the rows
LARGEST = 40  # atoms: bigger crystals would only make the file bigger


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, required=True)
    options = parser.parse_args()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # before TensorFlow is imported
    import tensorflow

    tensorflow.config.run_functions_eagerly(True)  # else every size of graph is compiled anew
    models = options.package / "mvl_models"

    ids, molecules = gather(MOLECULES)
    more, crystals = gather(CRYSTALS)
    outputs = {}
    for path in sorted(models.glob("**/*.hdf5")):
        name = str(path.relative_to(models))
        outputs[name] = predict(
            path, molecules if name.startswith("qm9") else crystals, fidelities=name.startswith("mf")
        )
        print(name, flush=True)

    structures = [*molecules, *crystals]
    arrays = {
        "numbers": np.concatenate([z for z, _, _ in structures]).astype(np.int16),
        "positions": np.concatenate([x for _, x, _ in structures]),
        "cells": np.stack([cell for _, _, cell in structures]),
        "offsets": np.cumsum([0, *(len(z) for z, _, _ in structures)]),
    }
    licence = "QM9: CC0; Materials Project crystals: CC-BY 4.0"
    with atomic(HERE / "megnet_structures.safetensors") as temporary:
        save_file(arrays, temporary, metadata={"licence": licence})
    said = {"provenance": provenance(options.package, licence), "ids": ids + more, "molecules": len(ids)}
    write_json(HERE / "megnet_official.json", said | {"outputs": outputs})


def gather(counts: dict[str, int]) -> tuple[list[str], list[tuple]]:
    """Ids and structures (numbers, positions, cell), evenly from each dataset."""
    ids, structures = [], []
    for name, count in counts.items():
        data = datasets.load(name)
        small = np.flatnonzero(np.diff(data.structures.offsets) <= LARGEST)
        for row in small[np.linspace(0, len(small) - 1, count).astype(int)]:
            ids.append(str(data.ids[row]))
            structures.append(data.structures[row])
    return ids, structures


def predict(path: Path, structures: list[tuple], fidelities: bool) -> dict:
    """Predictions of one released model, as its users make them; a multi-fidelity one gets 0, 1, 2, 3, 0, ..."""
    from megnet.models import MEGNetModel

    model, values = MEGNetModel.from_file(str(path)), []
    for row, (numbers, positions, cell) in enumerate(structures):
        if cell.any():
            structure = Structure(Lattice(cell), numbers, positions, coords_are_cartesian=True)
        else:
            structure = Molecule(numbers, positions)
        if fidelities:
            structure.state = [row % 4]
        with contextlib.redirect_stdout(io.StringIO()):  # Keras draws a bar per structure
            values.append(float(model.predict_structure(structure).ravel()[0]))
    assert np.isfinite(values).all(), path
    return {"sha256": sha256(path), "values": [float(f"{value:.9g}") for value in values]}


def provenance(package: Path, licence: str) -> dict:
    code = (
        "models/base.py",
        "models/megnet.py",
        "layers/graph/megnet.py",
        "layers/readout/set2set.py",
        "data/graph.py",
    )
    return {
        "made_by": "tests/golden/megnet_make.py",
        "code": "megnet 1.2.9, unchanged; float32, CPU",
        "code_sha256": {name: sha256(package / "megnet" / name) for name in code},
        "structures": f"evenly over the rows of up to {LARGEST} atoms: "
        + ", ".join(f"{count} of {name}" for name, count in (MOLECULES | CRYSTALS).items()),
        "licence": licence,
        "packages": {name: version(name) for name in ("tensorflow-cpu", "numpy", "pymatgen")},
        "values": "what predict_structure returns: the target in the model's own unit, undone from its scaler",
    }


if __name__ == "__main__":
    main()
