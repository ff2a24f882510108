"""What variational autoencoders are trained and judged by."""

from torch import Tensor


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Of N(mean, exp(log_variance)) from N(0, 1), summed over the latent dimensions, nats [B]; inputs [B, L]."""
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(dim=1)


def reconstruction_errors(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Root mean square difference of each item over all it holds [B]; inputs [B, ...]."""
    return (reconstruction - target).square().flatten(1).mean(dim=1).sqrt()
