"""Forces and stress as exact gradients of a model's energy."""

import torch
from torch import Tensor, nn


def energy_and_forces(model: nn.Module, inputs: dict, create_graph: bool = False) -> dict[str, Tensor]:
    """{"energy": [B], "forces": [N, 3]} with F = -dE/dx, in the energy's unit and per angstrom.

    inputs: those of `model`, among them `pos` [N, 3]; create_graph: keep what is needed to learn from the forces.
    Atoms of one structure do not move the energy of another, so one backward pass serves the whole batch.
    """
    with torch.enable_grad():
        positions = inputs["pos"].detach().requires_grad_()
        energy = model(**inputs | {"pos": positions})  # [B]
        (gradient,) = torch.autograd.grad(energy.sum(), positions, create_graph=create_graph)  # [N, 3]
    return {"energy": energy if create_graph else energy.detach(), "forces": -gradient}


def energy_forces_virial(model: nn.Module, inputs: dict) -> dict[str, Tensor]:
    """{"energy": [B], "forces": [N, 3], "virial": [B, 3, 3]}: the virial is dE/d(strain), in the energy's unit.

    The strain moves every vector x to x (1 + strain), positions and translations of images alike; divided by the
    cell's volume its derivative is the stress (positive when the crystal wants to shrink, as ASE counts).
    """
    with torch.enable_grad():
        positions = inputs["pos"].detach().requires_grad_()
        strain = positions.new_zeros(inputs["n_graphs"], 3, 3, requires_grad=True)
        of_atom = strain[inputs["batch"]]  # [N, 3, 3]
        moved = {"pos": positions + torch.einsum("ni,nij->nj", positions, of_atom)}
        if inputs.get("offset") is not None:
            of_edge = of_atom[inputs["edge_index"][1]]  # [E, 3, 3]
            moved["offset"] = inputs["offset"] + torch.einsum("ei,eij->ej", inputs["offset"], of_edge)
        energy = model(**inputs | moved)  # [B]
        gradient, virial = torch.autograd.grad(energy.sum(), (positions, strain))
    return {"energy": energy.detach(), "forces": -gradient, "virial": (virial + virial.transpose(1, 2)) / 2}
