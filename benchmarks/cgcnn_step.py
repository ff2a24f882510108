"""CGCNN: building graphs, batching and a training step, ours against the authors' code.

    python benchmarks/cgcnn_step.py --author-code PATH          # github.com/txie-93/cgcnn at f42ab233

Both build the graphs of the same crystals (12 neighbours within 8 angstrom) and train the network of the paper (64
wide, 4 convolutions, 32 hidden, SGD) on one batch of 256, on one thread. Their code reads CIF files; "without CIF"
gives it ready structures. Our forward pass must equal theirs on their graphs (the tests also compare the released
weights).
"""

import argparse
import csv
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import OURS, keep, rows, seconds

from replimat.datasets import load
from replimat.datasets.base import Structures
from replimat.models.cgcnn import CGCNN
from replimat.models.elements import read_element_features
from replimat.representations.crystal_graph import CrystalGraph
from replimat.sources import store
from replimat.training.graphs import CrystalGraphs

CRYSTALS = 256  # one batch of the paper's size
AUTHOR = "authors' code (f42ab233)"
EQUAL = 1e-4  # outputs of order one, single precision, weights that were never trained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--author-code", type=Path)
    author_code = parser.parse_args().author_code
    if author_code:
        sys.path.insert(0, str(author_code))
    else:
        print("left out: the authors' code (give its checkout with --author-code)")
    structures = load("mp_flla").structures
    structures = structures.take(np.linspace(0, len(structures) - 1, CRYSTALS).astype(int))
    table = store.fetch("cgcnn_weights") / "atom_init.json"
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the authors' code warns for every rounded coordinate
        theirs = Author(Path(folder), structures, table) if author_code else None
        keep(graph_building(structures, theirs) + batches_and_steps(structures, table, theirs))


class Author:
    """The authors' dataset of the given crystals, in their order."""

    def __init__(self, folder: Path, structures: Structures, table: Path):
        from pymatgen.core import Structure
        from pymatgen.io.cif import CifWriter

        self.folder = folder
        self.crystals = [
            Structure(cell, numbers, positions, coords_are_cartesian=True)
            for numbers, positions, cell in map(structures.__getitem__, range(len(structures)))
        ]
        names = [f"{s:04d}" for s in range(len(structures))]
        for name, crystal in zip(names, self.crystals, strict=True):
            CifWriter(crystal, significant_figures=15).write_file(folder / f"{name}.cif")
        with open(folder / "id_prop.csv", "w", newline="") as stream:
            csv.writer(stream).writerows([name, 0.0] for name in names)
        (folder / "atom_init.json").write_bytes(table.read_bytes())

    def graphs(self) -> list:
        """All graphs, from CIF files, as in the first epoch of the authors' code (later ones find them cached)."""
        from cgcnn.data import CIFData

        data = CIFData(str(self.folder))
        data.id_prop_data = sorted(data.id_prop_data)  # it shuffles when it reads
        return [data[row] for row in range(len(data))]

    def graphs_without_cif(self) -> list:
        """The same with ready structures in place of CIF files."""
        from pymatgen.core import Structure

        original = Structure.from_file
        Structure.from_file = lambda path: self.crystals[int(Path(path).stem)]
        try:
            return self.graphs()
        finally:
            Structure.from_file = original


def graph_building(structures: Structures, theirs: Author | None) -> list[dict]:
    calls = {OURS: lambda: CrystalGraph()(structures, progress=False)}
    if theirs:
        calls |= {AUTHOR: theirs.graphs, f"{AUTHOR}, without CIF": theirs.graphs_without_cif}
    times = {name: 1000 * t / CRYSTALS for name, t in seconds(calls, repeats=2).items()}
    return rows("CGCNN", "graph building", times, "ms/crystal")


def batches_and_steps(structures: Structures, table: Path, theirs: Author | None) -> list[dict]:
    arrays = {name: torch.from_numpy(array) for name, array in CrystalGraph()(structures, progress=False).items()}
    graphs, everything = CrystalGraphs(arrays, torch.zeros(CRYSTALS)), torch.arange(CRYSTALS)
    model = CGCNN(read_element_features(table))
    collate = {OURS: lambda: graphs.inputs(everything)}
    forward = {OURS: partial(_ours, model, graphs.inputs(everything))}
    if theirs:
        from cgcnn.data import collate_pool

        cached = theirs.graphs_without_cif()  # the same graphs, with the atoms in our order
        collate[AUTHOR] = lambda: collate_pool(cached)
        forward[AUTHOR] = partial(_theirs, twin(model, cached[0][0]), collate_pool(cached)[0])
        check_equal(model, forward[AUTHOR], graphs, collate_pool(cached)[0])
    results = rows("CGCNN", f"batch of {CRYSTALS}", _milliseconds(collate), "ms")
    steps = {name: training_step(call) for name, call in forward.items()}
    results += rows("CGCNN", f"training step on {CRYSTALS}", _milliseconds(steps), "ms")
    answers = {name: partial(inference, call) for name, call in forward.items()}
    return results + rows("CGCNN", f"inference on {CRYSTALS}", _milliseconds(answers), "ms")


def twin(model: CGCNN, graph: tuple) -> torch.nn.Module:
    """The authors' network with our weights; the parameters have the same names."""
    from cgcnn.model import CrystalGraphConvNet

    network = CrystalGraphConvNet(graph[0].shape[1], graph[1].shape[2], atom_fea_len=64, n_conv=4, h_fea_len=32, n_h=1)
    network.load_state_dict(model.state_dict())
    return network


def check_equal(model: CGCNN, theirs: partial, graphs: CrystalGraphs, batch: tuple) -> None:
    """Refuse to time different computations. Their neighbours replace ours, as ties are settled otherwise there."""
    inputs = graphs.inputs(torch.arange(CRYSTALS)) | {"neighbours": batch[2]}
    ours, other = inference(partial(_ours, model, inputs)), inference(theirs)
    if not torch.allclose(ours, other, atol=EQUAL, rtol=0):
        raise SystemExit(f"outputs differ by {(ours - other).abs().max():.2g}: not the same network")


def training_step(call: partial):
    """One SGD step on a ready batch; the rate is so small that the weights stay what they are."""
    optimiser = torch.optim.SGD(call.args[0].parameters(), 1e-9, momentum=0.9)

    def step():
        call.args[0].train()
        optimiser.zero_grad()
        call().square().mean().backward()
        optimiser.step()

    return step


@torch.no_grad()
def inference(call: partial) -> torch.Tensor:
    call.args[0].eval()
    return call()


def _ours(model, inputs):
    return model(**inputs)


def _theirs(model, inputs):
    return model(*inputs)[:, 0]


def _milliseconds(calls: dict) -> dict[str, float]:
    return {name: 1000 * t for name, t in seconds(calls, repeats=5).items()}


if __name__ == "__main__":
    main()
