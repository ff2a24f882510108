"""Makes the golden files of CGCNN: runs the authors' own code with their own weights. Run by hand, never by the tests.

    python tests/golden/cgcnn_make.py --author-code CHECKOUT --flla-2015 flla_2015.csv

CHECKOUT: github.com/txie-93/cgcnn at commit f42ab233 (it holds the checkpoints); flla_2015.csv: out of matminer 0.4.2.

cgcnn_crystals.safetensors: the crystals as the authors' code read them, and the graphs it built of them.
cgcnn_official.json: what its networks answered, with provenance.
"""

import argparse
import ast
import csv
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter
from safetensors.numpy import save_file

from replimat.files import atomic, sha256, write_json

HERE = Path(__file__).parent
COMMIT = "f42ab233c4ee0c416879d6bc2d22a264418413ad"
EVERY, COUNT = 39, 100  # of the rows of flla_2015.csv, in file order
PADDED = Structure(
    Lattice.cubic(8.1), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
)  # 8 neighbours within 8 A, 4 places left
UNITS = {
    "band-gap": "eV",
    "bulk-moduli": "log10(GPa)",
    "efermi": "eV",
    "final-energy-per-atom": "eV/atom",
    "formation-energy-per-atom": "eV/atom",
    "poisson-ratio": "1",
    "semi-metal-classification": "probability of class 1",
    "shear-moduli": "log10(GPa)",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--author-code", type=Path, required=True)
    parser.add_argument("--flla-2015", type=Path, required=True)
    options = parser.parse_args()
    sys.path.insert(0, str(options.author_code))
    samples = options.author_code / "data" / "sample-regression"

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rounding of CIF coordinates; padding is visible in the graphs
        ids = gather(Path(folder), samples, options.flla_2015)
        data = author_dataset(Path(folder))
        graphs = [author_graph(data, row) for row in range(len(ids))]
        outputs = {
            path.name.removesuffix(".pth.tar"): predict(path, data)
            for path in sorted((options.author_code / "pre-trained").glob("*.pth.tar"))
        }

    arrays = {name: np.concatenate([graph[name] for graph in graphs]) for name in graphs[0]}
    arrays["offsets"] = np.cumsum([0, *(len(graph["numbers"]) for graph in graphs)])
    with atomic(HERE / "cgcnn_crystals.safetensors") as temporary:
        save_file(
            arrays, temporary, metadata={"licence": "sample CIFs: MIT (authors' repository); MP crystals: CC-BY 4.0"}
        )
    write_json(
        HERE / "cgcnn_official.json", {"provenance": provenance(options, samples), "ids": ids, "outputs": outputs}
    )


def gather(folder: Path, samples: Path, flla: Path) -> list[str]:
    """Put all crystals into one folder as the authors' code wants it; returns their ids."""
    for path in samples.glob("*.cif"):
        (folder / path.name).write_bytes(path.read_bytes())
    ids = sorted(path.stem for path in samples.glob("*.cif"))
    with open(flla, newline="") as stream:
        rows = list(csv.DictReader(line for line in stream if not line.startswith("#")))
    for row in rows[::EVERY][:COUNT]:
        stored = ast.literal_eval(row["structure"])  # a Python literal, not JSON
        species = [site["species"][0]["element"] for site in stored["sites"]]
        crystal = Structure(Lattice(stored["lattice"]["matrix"]), species, [site["abc"] for site in stored["sites"]])
        CifWriter(crystal, significant_figures=15).write_file(folder / f"{row['material_id']}.cif")
        ids.append(row["material_id"])
    ids.append("padded-CsCl")
    CifWriter(PADDED).write_file(folder / "padded-CsCl.cif")
    (folder / "id_prop.csv").write_text("".join(f"{name},0\n" for name in ids))
    (folder / "atom_init.json").write_bytes((samples / "atom_init.json").read_bytes())
    return ids


def author_dataset(folder: Path):
    """The authors' dataset, back in the order of the file (it shuffles when it reads)."""
    from cgcnn.data import CIFData

    data = CIFData(str(folder))
    with open(folder / "id_prop.csv") as stream:
        data.id_prop_data = list(csv.reader(stream))
    return data


def author_graph(data, row: int) -> dict[str, np.ndarray]:
    """Crystal and graph of one row as the authors' code sees them; the distances must give its own bond features."""
    (_, bond_features, index), _, name = data[row]
    crystal = Structure.from_file(f"{data.root_dir}/{name}.cif")
    near = [sorted(n.nn_distance for n in site)[:12] for site in crystal.get_all_neighbors(data.radius)]
    distance = np.array([d + [data.radius + 1.0] * (12 - len(d)) for d in near])
    assert torch.equal(torch.Tensor(data.gdf.expand(distance)), bond_features), name
    return {
        "numbers": np.array(crystal.atomic_numbers, np.int16),
        "fractional": crystal.frac_coords,
        "cells": crystal.lattice.matrix[None],
        "neighbour_index": index.numpy().astype(np.int16),
        "distance": distance.astype(np.float32),
    }


def predict(path: Path, data) -> dict:
    """Outputs of one checkpoint for all crystals, as the authors' predict.py computes them."""
    from cgcnn.data import collate_pool
    from cgcnn.model import CrystalGraphConvNet

    stored = load_plain(path)
    inputs, _, _ = collate_pool([data[row] for row in range(len(data))])
    arguments = {name: stored["args"][name] for name in ("atom_fea_len", "n_conv", "h_fea_len", "n_h")}
    classify = stored["args"]["task"] == "classification"
    model = CrystalGraphConvNet(inputs[0].shape[1], inputs[1].shape[2], classification=classify, **arguments)
    model.load_state_dict(stored["state_dict"])
    with torch.no_grad():
        raw = model.eval()(*inputs)
    mean, std = (float(stored["normalizer"][name]) for name in ("mean", "std"))
    values = raw.exp()[:, 1].double() if classify else raw[:, 0].double() * std + mean
    assert values.isfinite().all(), path
    return {
        "sha256": sha256(path),
        "unit": UNITS[path.name.removesuffix(".pth.tar")],
        "mean": mean,
        "std": std,
        "values": [float(f"{value:.9g}") for value in values.tolist()],
    }


def load_plain(path: Path) -> dict:
    """The checkpoint without running what else a pickle may hold: tensors, plain values and NumPy scalars only."""
    scalar = np.float64(0.0).__reduce__()[0]
    allowed = [(scalar, "numpy.core.multiarray.scalar"), np.dtype, type(np.dtype(np.float64))]
    with torch.serialization.safe_globals(allowed):
        return torch.load(path, map_location="cpu", weights_only=True)


def provenance(options: argparse.Namespace, samples: Path) -> dict:
    n_samples = len(list(samples.glob("*.cif")))
    return {
        "made_by": "tests/golden/cgcnn_make.py",
        "code": f"github.com/txie-93/cgcnn at {COMMIT}, unchanged; float32, CPU, evaluation mode",
        "code_sha256": {name: sha256(options.author_code / "cgcnn" / name) for name in ("data.py", "model.py")},
        "atom_init_sha256": sha256(samples / "atom_init.json"),
        "crystals": f"the {n_samples} CIFs of data/sample-regression (data/sample-classification holds the same), then "
        f"rows 0, {EVERY}, {2 * EVERY}, ... of flla_2015.csv (matminer 0.4.2), {COUNT} in all, "
        "written as P1 CIF with 15 digits, then CsCl stretched to a = 8.1 A, whose atoms lack neighbours",
        "flla_2015_sha256": sha256(options.flla_2015),
        "licence": "sample CIFs: MIT (authors' repository); Materials Project crystals: CC-BY 4.0",
        "packages": {name: version(name) for name in ("torch", "numpy", "pymatgen")},
        "values": "target's unit: network output x std + mean (in float64); classifier: exp(log-softmax) of class 1",
    }


if __name__ == "__main__":
    main()
