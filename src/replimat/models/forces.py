"""Forces as the exact gradient of a model's energy."""

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
