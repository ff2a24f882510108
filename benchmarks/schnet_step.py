"""SchNet: a training step and inference, ours against PyG's, on molecules of QM9.

    python benchmarks/schnet_step.py

Same sizes (64 features and filters, 6 interactions, 50 Gaussians, cutoff 5 angstrom) and the same ready edges for both,
so that the networks are compared and not their neighbour lists; one thread. PyG's filter network ends without the
activation that the authors' code and ours have, so the outputs are not the same and its work is a little less.
schnetpack 2.0.4 cannot be compared: it does not import with torch 2.13.
"""

import numpy as np
import torch
from common import OURS, Missing, keep, peer, rows, seconds

from replimat.datasets import load
from replimat.models.schnet import SchNet
from replimat.representations.cutoff_graph import CutoffGraph
from replimat.training.graphs import CutoffGraphs

MOLECULES = (32, 256)  # per batch
SIZES = {"features": 64, "filters": 64, "interactions": 6, "gaussians": 50, "cutoff": 5.0}


def main() -> None:
    structures = load("qm9").structures
    torch.set_num_threads(1)
    results = []
    for molecules in MOLECULES:
        chosen = structures.take(np.linspace(0, len(structures) - 1, molecules).astype(int))
        arrays = {name: torch.from_numpy(a) for name, a in CutoffGraph(SIZES["cutoff"])(chosen).items()}
        batch = CutoffGraphs(arrays, torch.zeros(molecules)).inputs(torch.arange(molecules))
        networks = implementations(batch)
        steps = {name: training_step(*network) for name, network in networks.items()}
        results += rows("SchNet", f"training step on {molecules}", _milliseconds(steps), "ms")
        answers = {name: torch.no_grad()(energies) for name, (_, energies) in networks.items()}
        results += rows("SchNet", f"inference on {molecules}", _milliseconds(answers), "ms")
    keep(results)


def implementations(batch: dict) -> dict:
    """Name -> (network, function that gives the energies of the batch)."""
    ours = SchNet(**SIZES)
    found = {OURS: (ours, lambda: ours(**batch))}
    try:
        found["torch_geometric"] = _pyg(batch)
    except Missing as reason:
        print(f"left out: {reason}")
    return found


def _pyg(batch: dict):
    def ready_edges(pos, _):
        j, i = batch["edge_index"]
        return batch["edge_index"], (pos[j] - pos[i]).norm(dim=-1)

    network = peer("torch_geometric.nn.models.schnet").SchNet(
        hidden_channels=SIZES["features"],
        num_filters=SIZES["filters"],
        num_interactions=SIZES["interactions"],
        num_gaussians=SIZES["gaussians"],
        cutoff=SIZES["cutoff"],
        interaction_graph=ready_edges,
    )
    return network, lambda: network(batch["z"], batch["pos"], batch["batch"])[:, 0]


def training_step(network: torch.nn.Module, energies):
    """One Adam step on a ready batch."""
    optimiser = torch.optim.Adam(network.parameters(), 1e-6)

    def step():
        optimiser.zero_grad()
        energies().square().mean().backward()
        optimiser.step()

    return step


def _milliseconds(calls: dict) -> dict[str, float]:
    return {name: 1000 * t for name, t in seconds(calls, repeats=5).items()}


if __name__ == "__main__":
    main()
