"""The gradient penalty of Wasserstein GANs (Gulrajani et al. 2017, arXiv:1704.00028)."""

from collections.abc import Callable

import torch
from torch import Tensor


def gradient_penalty(critic: Callable[..., Tensor], real: tuple[Tensor, ...], fake: tuple[Tensor, ...]) -> Tensor:
    """Mean over the batch of (|gradient of the critic| - 1)^2 between real and fake; the weight is the caller's.

    critic: (*inputs) -> scores [B]; real, fake: its inputs, each [B, ...]. One random point on the line between every
    real item and its fake one, the same for all inputs.
    """
    share = torch.rand(len(real[0]), device=real[0].device)
    mixed = [
        torch.lerp(b.detach(), a.detach(), share.view(-1, *[1] * (a.ndim - 1))).requires_grad_()
        for a, b in zip(real, fake, strict=True)
    ]
    slopes = torch.autograd.grad(critic(*mixed).sum(), mixed, create_graph=True)
    squares = sum(slope.flatten(1).square().sum(dim=1) for slope in slopes)
    return ((squares + 1e-12).sqrt() - 1).square().mean()  # the root has no slope at zero
