"""Makes the golden files of ALIGNN: runs the authors' own package. Run by hand, never by the tests.

    python tests/golden/alignn_make.py --weights FOLDER

In an environment with alignn 2023.7.1, dgl 1.1.3, jarvis-tools and pydantic 1; FOLDER: alignn/ff out of the source
distribution of that alignn.

alignn_crystals.safetensors: the crystals, and the bonds the authors' code found in them, canonised or not.
alignn_author.json: what its networks answered, with provenance.
"""

import argparse
import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from ase.build import molecule
from safetensors.numpy import load_file, save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from alignn_author import author_graph, author_network, author_predicts, bonds  # noqa: E402

FROM_MP = range(1, 111, 7)  # rows of cgcnn_crystals.safetensors
WEIGHTS = ("alignnff_wt01", "alignnff_wt1", "alignnff_wt10", "revised")
KINDS = ("canonised", "loose")
LICENCE = "Materials Project crystals: CC-BY 4.0; the others are made up"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    folder = parser.parse_args().weights
    torch.set_default_dtype(torch.float64)
    crystals = from_materials_project() | by_hand()
    graphs = {kind: [author_graph(*crystal, kind == "canonised") for crystal in crystals.values()] for kind in KINDS}
    with torch.no_grad():
        outputs = {"random": {"values": author_predicts(author_network(), graphs["canonised"])}}
    for name in WEIGHTS:
        network = force_field(folder / name)
        outputs[name] = {
            "sha256": hashlib.sha256((folder / name / "best_model.pt").read_bytes()).hexdigest(),
            "values": author_predicts(network, graphs["loose"]),
        }
    save_file(packed(crystals, graphs), HERE / "alignn_crystals.safetensors", metadata={"licence": LICENCE})
    document = {"provenance": provenance(), "ids": list(crystals), "outputs": outputs}
    (HERE / "alignn_author.json").write_text(json.dumps(document, indent=1) + "\n")


def from_materials_project() -> dict[str, tuple]:
    """Crystals of the CGCNN golden file by id: numbers [A], fractional [A, 3], cell [3, 3]."""
    stored = load_file(HERE / "cgcnn_crystals.safetensors")
    ids = json.loads((HERE / "cgcnn_official.json").read_text())["ids"]
    first = stored["offsets"]
    atoms = [slice(first[row], first[row + 1]) for row in range(len(ids))]
    return {
        ids[row]: (stored["numbers"][atoms[row]], stored["fractional"][atoms[row]], stored["cells"][row])
        for row in FROM_MP
    }


def by_hand() -> dict[str, tuple]:
    """One atom per cell (every bond ends at an own image), no symmetry at all, few neighbours, and a molecule."""
    rng = np.random.RandomState(0)
    skewed = np.diag([4.1, 5.2, 6.3]) + rng.uniform(-0.8, 0.8, (3, 3))
    isobutane = molecule("isobutane")
    box = np.eye(3) * 60.0
    lone = np.zeros((1, 3))
    return {
        "polonium": (np.array([84]), lone, np.eye(3) * 3.36),
        "copper": (np.array([29]), lone, 1.8075 * (1 - np.eye(3))),
        "triclinic": (np.array([3, 8, 22, 26, 8]), rng.uniform(0, 1, (5, 3)), skewed),
        "caesium": (np.array([55]), lone, np.eye(3) * 9.0),
        "isobutane": (isobutane.numbers, isobutane.positions @ np.linalg.inv(box), box),
    }


def force_field(folder: Path) -> torch.nn.Module:
    """A released ALIGNN-FF network; without gradients its energy is the same."""
    from alignn.models.alignn_atomwise import ALIGNNAtomWise, ALIGNNAtomWiseConfig

    config = json.loads((folder / "config.json").read_text())["model"]
    network = ALIGNNAtomWise(ALIGNNAtomWiseConfig(**config)).double()
    network.load_state_dict(torch.load(folder / "best_model.pt", map_location="cpu", weights_only=True))
    return network.eval()


def packed(crystals: dict, graphs: dict) -> dict[str, np.ndarray]:
    numbers, fractional, cells = zip(*crystals.values(), strict=True)
    arrays = {
        "numbers": np.concatenate(numbers).astype(np.int16),
        "fractional": np.concatenate(fractional),
        "cells": np.stack(cells),
        "offsets": np.cumsum([0, *map(len, numbers)]),
    }
    for kind, several in graphs.items():
        found = [bonds(graph) for graph, _ in several]
        arrays[f"{kind}.edge_index"] = np.concatenate([f["edge_index"] for f in found], axis=1).astype(np.int16)
        arrays[f"{kind}.vec"] = np.concatenate([f["vec"] for f in found])
        arrays[f"{kind}.edge_offsets"] = np.cumsum([0, *(len(f["vec"]) for f in found)])
        arrays[f"{kind}.line_edges"] = np.array([line.num_edges() for _, line in several])
    return arrays


def provenance() -> dict:
    from alignn import __version__

    return {
        "made_by": "tests/golden/alignn_make.py",
        "code": f"alignn {__version__}, unchanged; float64, CPU, evaluation mode",
        "crystals": "rows 1, 8, 15, ... of cgcnn_crystals.safetensors, then five made up",
        "values": "network output; random: weights by alignn_author.random_weights on canonised graphs; the others: "
        "released ALIGNN-FF weights, eV/atom, on graphs that are not canonised",
        "packages": {name: version(name) for name in ("dgl", "jarvis-tools", "torch", "numpy")},
    }


if __name__ == "__main__":
    main()
