"""Training of a network on symmetry functions, which are computed once: they do not depend on the weights.

    F_j = - sum_i sum_k dE_i/dg_k  dg_k/dx_j

The derivatives dg/dx of all training frames are kept in memory (single precision); an epoch is then products of
matrices, many times faster than one that computes the functions anew. The functions are strongly correlated, so the
network is trained on decorrelated ones (eigenvectors of their covariance, each divided by its spread) and the linear
map is put into the first layer at the end: the same family of networks, better conditioned (LeCun et al., Efficient
BackProp, 1998, section 4.3).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from replimat.models.nnp import Nnp
from replimat.training.graphs import Graphs, eval_loader
from replimat.training.task import Diverged

NOUGHT = 1e-10  # range below which a function says nothing: its slopes vanish in single precision
FLOOR = 1e-4  # of the largest variance: decorrelated functions that vary less are not stretched to the same spread


class Frames(NamedTuple):
    """A batch of frames, functions computed: functions [N, K]; slopes, dg/dvec of each atom's edges [N, 3 M, K];
    sender of each edge [N, M], the atom itself where it has fewer; frame of each atom [N]; atoms of each frame [B];
    energy: in eV, without the offset [B]; forces: eV/angstrom [N, 3].
    """

    functions: Tensor
    slopes: Tensor
    sender: Tensor
    frame: Tensor
    sizes: Tensor
    energy: Tensor
    forces: Tensor


def fit_network(
    model: Nnp,
    graphs: Graphs,
    rows: Tensor,
    seed: int,
    *,
    epochs: int,
    weights: dict[str, float],
    lr: float = 5e-3,
    batch: int = 4,
) -> None:
    """Set the ranges, the energy offset and the network of `model`, in place, from the given rows.

    graphs: with total energies in eV and forces in eV/angstrom; weights: w_E and w_F in the loss of a batch,
    mean (w_E (E - E') / n)^2 + mean (w_F (F - F'))^2; Adam with a learning rate that falls to zero as a cosine.
    The seed decides the first weights and the batches. Raises Diverged when the loss is no longer finite.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = rows[torch.randperm(len(rows), generator=generator)]
    per_atom = graphs.target[rows] / (graphs.offsets[1:] - graphs.offsets[:-1])[rows]
    model.energy_offset.fill_(per_atom.mean())
    frames = prepared(model, graphs, rows, batch)
    network, basis, mean = decorrelated(model, frames, generator)
    _adam(network, frames, epochs, weights, lr, generator)
    _fold(model, network, basis, mean)


def prepared(model: Nnp, graphs: Graphs, rows: Tensor, batch: int) -> list[Frames]:
    """Batches of frames with functions scaled by their ranges, which are set in `model`.

    A function that is nought everywhere (the narrowest Gaussians see no neighbour) is left as it is.
    """
    raw = [_computed(model, *both) for both in eval_loader(graphs, rows, batch)]
    everything = torch.cat([one.functions for one in raw])
    lowest, highest = everything.amin(0), everything.amax(0)
    model.set_ranges(lowest, torch.where(highest - lowest > NOUGHT, highest, lowest + 1))
    return [_mapped(one, torch.diag(1 / model.spread), model.lowest) for one in raw]


def _computed(model: Nnp, inputs: dict, target: dict) -> Frames:
    z, n_atoms = inputs["z"], len(inputs["z"])
    vec, edge_index = model.near(z, inputs["pos"], inputs["edge_index"], inputs.get("offset"))
    with torch.no_grad():
        functions = model.functions(vec, edge_index, n_atoms)
        by_edge = model.derivatives(vec, edge_index, n_atoms)  # [E, K, 3]
    counts = torch.bincount(edge_index[1], minlength=n_atoms)
    slot = torch.arange(len(vec)) - (counts.cumsum(0) - counts)[edge_index[1]]
    most = int(counts.max())
    slopes = torch.zeros(n_atoms, most, 3, functions.shape[1])
    slopes[edge_index[1], slot] = by_edge.mT.float()
    sender = torch.arange(n_atoms)[:, None].repeat(1, most)
    sender[edge_index[1], slot] = edge_index[0]
    sizes = torch.bincount(inputs["batch"], minlength=inputs["n_graphs"])
    energy = target["energy"] - sizes * model.energy_offset
    return Frames(
        functions, slopes.flatten(1, 2), sender, inputs["batch"], sizes, energy.float(), target["forces"].float()
    )


def _mapped(one: Frames, basis: Tensor, origin: Tensor) -> Frames:
    """Functions (g - origin) basis, and their slopes."""
    return one._replace(functions=(one.functions - origin) @ basis, slopes=one.slopes @ basis.float())


def decorrelated(model: Nnp, frames: list[Frames], generator: torch.Generator) -> tuple[nn.Sequential, Tensor, Tensor]:
    """A new network like the model's with random weights, and the basis [K, K] and the mean [K] of its inputs; `frames`
    are mapped to them in place.
    """
    functions = torch.cat([one.functions for one in frames])
    mean = functions.mean(0)
    variance, vectors = torch.linalg.eigh(torch.cov(functions.T))
    basis = vectors / (variance.clamp(min=0) + FLOOR * variance[-1]).sqrt()
    for k, one in enumerate(frames):
        moved = _mapped(one, basis, mean)
        frames[k] = moved._replace(functions=moved.functions.float())
    sizes = [(layer.in_features, layer.out_features) for layer in model.network if isinstance(layer, nn.Linear)]
    layers = []
    for inputs, outputs in sizes:
        layer = nn.Linear(inputs, outputs)
        with torch.no_grad():
            layer.weight.normal_(0, 1 / math.sqrt(inputs), generator=generator)
            layer.bias.zero_()
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1]), basis, mean


def energies_and_forces(network: nn.Module, one: Frames) -> tuple[Tensor, Tensor]:
    """Energies without the offset [B] and forces [N, 3]; differentiable in the weights."""
    functions = one.functions.detach().requires_grad_()
    atoms = network(functions)[:, 0]  # [N]
    (slope,) = torch.autograd.grad(atoms.sum(), functions, create_graph=True)  # [N, K]
    by_edge = (one.slopes @ slope[:, :, None]).reshape(*one.sender.shape, 3)  # dE_i/dvec  [N, M, 3]
    forces = by_edge.sum(1).index_add(0, one.sender.flatten(), -by_edge.flatten(0, 1))
    return atoms.new_zeros(len(one.sizes)).index_add(0, one.frame, atoms), forces


def _adam(network, frames: list[Frames], epochs: int, weights, lr: float, generator) -> None:
    optimiser = torch.optim.Adam(network.parameters(), lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * len(frames))
    for _ in range(epochs):
        for k in torch.randperm(len(frames), generator=generator).tolist():
            optimiser.zero_grad()
            loss = _loss(network, frames[k], weights)
            loss.backward()
            optimiser.step()
            schedule.step()
        if not torch.isfinite(loss):
            raise Diverged(f"The loss of the network became {loss.item()}; the learning rate is {lr:g}.")


def _loss(network: Callable, one: Frames, weights: dict[str, float]) -> Tensor:
    energy, forces = energies_and_forces(network, one)
    per_atom = weights["energy"] * (energy - one.energy) / one.sizes
    return per_atom.square().mean() + (weights["forces"] * (forces - one.forces)).square().mean()


def _fold(model: Nnp, network: nn.Sequential, basis: Tensor, mean: Tensor) -> None:
    """The trained weights into the model, the map of the inputs into its first layer."""
    with torch.no_grad():
        for ours, trained in zip(model.network.parameters(), network.parameters(), strict=True):
            ours.copy_(trained)
        first = model.network[0]
        first.weight.copy_(first.weight @ basis.T)
        first.bias.sub_(first.weight @ mean)
