"""The ALIGNN authors' package at work: its graphs and its networks, for the golden numbers and the live comparison.

Needs alignn with dgl and jarvis-tools, and nothing of replimat. Everything is in double precision.
"""

import zlib

import numpy as np
import torch

NEIGHBOURS, CUTOFF = 12, 8.0


def author_graph(numbers: np.ndarray, fractional: np.ndarray, cell: np.ndarray, canonise: bool):
    """Bond graph and line graph of one crystal, as the package builds them."""
    from alignn.graphs import Graph
    from jarvis.core.atoms import Atoms
    from jarvis.core.specie import atomic_numbers_to_symbols

    atoms = Atoms(lattice_mat=cell, coords=fractional, elements=atomic_numbers_to_symbols(numbers), cartesian=False)
    return Graph.atom_dgl_multigraph(
        atoms, neighbor_strategy="k-nearest", cutoff=CUTOFF, max_neighbors=NEIGHBOURS, use_canonize=canonise
    )


def bonds(graph) -> dict[str, np.ndarray]:
    """Edges of an authors' graph: edge_index sender, receiver [2, E]; vec from receiver to sender [E, 3], as ours."""
    sender, receiver = graph.edges()
    return {"edge_index": torch.stack([sender, receiver]).numpy(), "vec": -graph.edata["r"].detach().numpy()}


def author_network():
    """The network of the paper, untrained, with weights that depend on their names alone."""
    from alignn.models.alignn import ALIGNN, ALIGNNConfig

    network = ALIGNN(ALIGNNConfig(name="alignn")).double()
    network.load_state_dict(random_weights(network.state_dict()))
    return network.eval()


def author_predicts(network, graphs: list[tuple]) -> list[float]:
    """Outputs of a network, crystal by crystal. Releases from 2024 on want a lattice too, which they do not use."""
    from alignn import __version__

    more = () if int(__version__.split(".")[0]) < 2024 else (None,)
    found = [network((g.local_var(), lg.local_var(), *more)) for g, lg in graphs]
    return [float(out["out"] if isinstance(out, dict) else out) for out in found]


def random_weights(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of the size a trained network has, the same wherever names and shapes are the same."""
    return {name: _random(name, value) for name, value in state.items()}


def _random(name: str, value: torch.Tensor) -> torch.Tensor:
    if name.endswith(("centers", "num_batches_tracked")):
        return value
    noise = torch.from_numpy(np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(value.shape)))
    if value.dim() == 2:
        return noise / value.shape[1] ** 0.5
    positive = name.endswith(("weight", "running_var"))  # of a normalisation
    return (1 + 0.1 * noise.abs() if positive else 0.1 * noise).to(value.dtype)
