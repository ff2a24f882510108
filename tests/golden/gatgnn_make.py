"""Makes the golden file of GATGNN: runs the author's own code with random weights. Run by hand, never by the tests.

    python tests/golden/gatgnn_make.py --author-code CHECKOUT

CHECKOUT: github.com/superlouis/GATGNN at commit 3d3bad95. No weights were ever released, so random ones are drawn, for
a narrow network (the file stays small), on random element vectors and the crystals of cgcnn_crystals.safetensors,
whose graphs (8 A, 12 neighbours) the author builds in the same way.

gatgnn_author.safetensors: weights, outputs, the losses of STEPS optimiser steps, and the outputs after them.
The code runs unchanged in double precision on today's PyTorch Geometric; only torch_scatter, which it imports for
another variant of its attention, is replaced by an empty module.
"""

import argparse
import json
import sys
import types
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from pymatgen.core import Element
from safetensors.numpy import load_file, save_file

from replimat.files import atomic, sha256

HERE = Path(__file__).parent
COMMIT = "3d3bad954b671cae45ff808f3bf8889e07017dcb"
FEATURES, HEADS, LAYERS, SEED = 12, 3, 2, 0
STEPS, BATCH, LR, WEIGHT_DECAY = 5, 12, 5e-3, 0.1
PADDED_DISTANCE = 9.0  # angstrom: bonds that only fill up
UNUSED = ("prelu", "cluster_att", "embed_comp")  # parameters of the author that no output depends on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--author-code", type=Path, required=True)
    options = parser.parse_args()
    sys.path.insert(0, str(options.author_code))
    sys.modules["torch_scatter"] = types.SimpleNamespace(scatter_add=None)
    from gatgnn.model import GATGNN

    crystals = load_file(HERE / "cgcnn_crystals.safetensors")
    torch.manual_seed(SEED)
    table = torch.rand(101, 92)
    graphs = [graph(crystals, row, table) for row in range(len(crystals["offsets"]) - 1)]
    bonded = [graph(crystals, row, table, padding=False) for row in range(len(graphs))]
    target = torch.randn(len(graphs), dtype=torch.float64)

    network = GATGNN(HEADS, neurons=FEATURES, nl=LAYERS).double()
    liven(network, graphs[:-1])
    arrays = {"table": table.numpy(), "target": target.numpy()} | state(network)
    arrays |= {"output": outputs(network, graphs), "output_without_padding": outputs(network, bonded)}
    arrays["losses"] = train(network, graphs, target)
    arrays["output_after_training"] = outputs(network, graphs)
    with atomic(HERE / "gatgnn_author.safetensors") as temporary:
        save_file(arrays, temporary, metadata={"provenance": json.dumps(provenance(options.author_code))})


def graph(crystals: dict, row: int, table: torch.Tensor, padding: bool = True):
    """A crystal as the author's data loader hands it to the network; without padding its filling bonds are left out."""
    from gatgnn.data import ELEM_Encoder, GaussianDistance
    from torch_geometric.data import Data

    atoms = slice(crystals["offsets"][row], crystals["offsets"][row + 1])
    numbers, distance = crystals["numbers"][atoms], crystals["distance"][atoms].astype(np.float64)
    neighbours = torch.from_numpy(crystals["neighbour_index"][atoms].astype(np.int64))
    centre = torch.arange(len(numbers)).repeat_interleave(neighbours.shape[1])
    edges = torch.stack([centre, neighbours.reshape(-1)])
    features = torch.from_numpy(GaussianDistance(0, 8, 0.2).expand(distance)).view(-1, 41)
    kept = torch.from_numpy(distance.reshape(-1) < PADDED_DISTANCE) | padding
    kinds, counts = np.unique(numbers, return_counts=True)
    composition = {Element.from_Z(int(z)): int(count) for z, count in zip(kinds, counts, strict=True)}
    return Data(
        x=table[numbers.astype(np.int64)].double(),
        edge_index=edges[:, kept],
        edge_attr=features[kept],
        global_feature=ELEM_Encoder().encode(composition).double(),
        cluster=torch.zeros(len(numbers), dtype=torch.long),
    )


def liven(network, graphs: list) -> None:
    """Weights that tell crystals apart: larger, biases not zero, normalisations fitted to the crystals."""
    normalisations = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm1d)]
    with torch.no_grad():
        for name, weights in network.named_parameters():
            weights.normal_(std=0.3) if name.endswith("bias") else weights.mul_(2)
        for module in normalisations:
            module.momentum = 1.0
        network.train()(batch_of(graphs))
        for module in normalisations:
            module.momentum = 0.1


def batch_of(graphs: list):
    from torch_geometric.data import Batch

    return Batch.from_data_list(graphs)


def outputs(network, graphs: list) -> np.ndarray:
    with torch.no_grad():
        return network.eval()(batch_of(graphs)).numpy()


def train(network, graphs: list, target: torch.Tensor) -> np.ndarray:
    """STEPS steps as the author's script takes them, on consecutive batches; returns the losses."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    losses = []
    for step in range(STEPS):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        loss = torch.nn.SmoothL1Loss()(network.train()(batch_of(graphs[rows])), target[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return np.array(losses)


def state(network) -> dict[str, np.ndarray]:
    """Weights and running averages that outputs depend on, in double precision."""
    return {
        f"weights.{name}": value.numpy().copy()
        for name, value in network.state_dict().items()
        if not any(unused in name for unused in UNUSED)
    }


def provenance(code: Path) -> dict:
    return {
        "made_by": "tests/golden/gatgnn_make.py",
        "code": f"github.com/superlouis/GATGNN at {COMMIT}, unchanged; float64, CPU",
        "code_sha256": {name: sha256(code / "gatgnn" / name) for name in ("data.py", "model.py")},
        "network": {"neurons": FEATURES, "heads": HEADS, "layers": LAYERS, "seed": SEED},
        "training": {"steps": STEPS, "batch": BATCH, "lr": LR, "weight_decay": WEIGHT_DECAY, "loss": "smooth L1"},
        "crystals": "cgcnn_crystals.safetensors; the last one is padded",
        "packages": {name: version(name) for name in ("torch", "torch_geometric", "numpy")},
    }


if __name__ == "__main__":
    main()
