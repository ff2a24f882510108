"""MEGNet: building graphs, a training step and inference, ours against the authors' package, on crystals.

    PYTHONPATH=PACKAGE:src python benchmarks/megnet_step.py        # PACKAGE: the unpacked megnet-1.2.9

Both build the graphs of the same crystals (all neighbours within 4 angstrom) and train the network of the paper (3
blocks, 64 and 32 wide, 100 Gaussians, 3 passes of Set2Set) on one batch of 128, on one thread, with the released
weights of the formation energy, on which both must agree. Theirs needs TensorFlow 2.15 and pymatgen 2023.5.10; its
training step is the compiled one of Keras (train_on_batch) with distances already expanded, ours expands them in it.
"""

import os

import numpy as np
import torch
from common import OURS, Missing, keep, peer, rows, seconds

from replimat.datasets import load
from replimat.models.megnet import load_author_model
from replimat.representations.cutoff_graph import CutoffGraph
from replimat.sources import store
from replimat.training.graphs import CutoffGraphs

CRYSTALS = 128  # one batch of the paper's size
WEIGHTS = "mp-2018.6.1/formation_energy.hdf5"
CUTOFF = 4.0  # angstrom
EQUAL = 1e-4  # eV/atom; single precision
LARGEST = 30  # atoms; a larger crystal would outweigh the rest
AUTHOR = "megnet"


def main() -> None:
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    structures = load("mp_flla").structures
    small = np.flatnonzero(np.diff(structures.offsets) <= LARGEST)
    chosen = bonded(structures.take(small[np.linspace(0, len(small) - 1, 2 * CRYSTALS).astype(int)]))
    weights = store.fetch("megnet_weights") / WEIGHTS
    try:
        theirs = Author(weights, chosen)
    except Missing as reason:
        print(f"left out: {reason}")
        theirs = None
    build = {OURS: lambda: CutoffGraph(CUTOFF)(chosen, progress=False)}
    model, _ = load_author_model(weights)
    arrays = {name: torch.from_numpy(array) for name, array in build[OURS]().items()}
    batch = CutoffGraphs(arrays, torch.zeros(CRYSTALS)).inputs(torch.arange(CRYSTALS))
    answer, train = {OURS: torch.no_grad()(lambda: model(**batch))}, {OURS: training_step(model, batch)}
    if theirs:
        difference = np.abs(answer[OURS]().numpy() - theirs.answer()).max()
        if difference > EQUAL:
            raise SystemExit(f"The two disagree by {difference:.2g} eV/atom: nothing to compare.")
        build[AUTHOR], answer[AUTHOR], train[AUTHOR] = theirs.graphs, theirs.answer, theirs.train
    found = rows("MEGNet", "graph building", per(CRYSTALS, seconds(build, repeats=3)), "ms/crystal")
    found += rows("MEGNet", f"inference on {CRYSTALS}", per(1, seconds(answer, repeats=5)), "ms")
    keep(found + rows("MEGNet", f"training step on {CRYSTALS}", per(1, seconds(train, repeats=5)), "ms"))


class Author:
    """The authors' model and their graphs of the given crystals."""

    def __init__(self, weights, structures):
        tensorflow = peer("tensorflow")
        tensorflow.config.threading.set_intra_op_parallelism_threads(1)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)
        from pymatgen.core import Structure

        self.model = peer("megnet.models").MEGNetModel.from_file(str(weights))
        self.crystals = [
            Structure(cell, numbers, positions, coords_are_cartesian=True)
            for numbers, positions, cell in map(structures.__getitem__, range(len(structures)))
        ]
        flat = self.model.graph_converter.get_flat_data(self.graphs())
        self.inputs = self.model._create_generator(*flat, batch_size=CRYSTALS, is_shuffle=False)[0]
        self.model.model.compile(tensorflow.keras.optimizers.Adam(1e-6), "mse")

    def graphs(self) -> list:
        return [self.model.graph_converter.convert(crystal) for crystal in self.crystals]

    def answer(self) -> np.ndarray:
        return self.model.model.predict_on_batch(self.inputs)[0, :, 0]

    def train(self) -> None:
        self.model.model.train_on_batch(self.inputs, np.zeros((1, CRYSTALS, 1)))


def bonded(structures):
    """The first CRYSTALS of them in which every atom has a neighbour: the authors' code refuses the others."""
    graph = CutoffGraph(CUTOFF)(structures, progress=False)
    counts, offsets = np.diff(graph["edge_offsets"]), structures.offsets
    starts = np.repeat(offsets[:-1], counts)
    neighbours = np.bincount(graph["edge_index"][1] + starts, minlength=offsets[-1])
    whole = np.minimum.reduceat(neighbours, offsets[:-1]) > 0
    return structures.take(np.flatnonzero(whole)[:CRYSTALS])


def training_step(model: torch.nn.Module, batch: dict):
    """One Adam step on a ready batch."""
    optimiser = torch.optim.Adam(model.parameters(), 1e-6)

    def step():
        optimiser.zero_grad()
        model(**batch).square().mean().backward()
        optimiser.step()

    return step


def per(count: int, times: dict[str, float]) -> dict[str, float]:
    """Milliseconds for one of `count`."""
    return {name: 1000 * t / count for name, t in times.items()}


if __name__ == "__main__":
    main()
