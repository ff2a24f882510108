"""What measuring does to a powder pattern, done to simulated ones: five modifications of points, many patterns at once.

After Chitturi et al., J. Appl. Cryst. 54, 1799 (2021), in their order: zero shift, intensities, impurities, noise of
the baseline, broadening. Each draws anew for every pattern, where they draw shift, number of impurities and width once
for a batch. Needs torch alone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from replimat.representations.powder_pattern import minimum_to_maximum

BLOCKS = 100  # of a pattern, each with its own change of intensity
PADDING = 72  # points: a peak at one end does not reach the other when broadened; 9072 has only small factors


@dataclass(frozen=True)
class Modifications:
    """How strong each is; 0 leaves it out.

    shift: largest number of points to either side; intensity: largest relative change; impurities: at most so many
    other patterns, each with a share of impurity_share; noise: three standard deviations of the baseline's; broadening:
    standard deviation in points, from 1 to this.
    """

    shift: int = 7
    intensity: float = 0.3
    impurities: int = 3
    impurity_share: tuple[float, float] = (0.05, 0.1)
    noise: float = 0.002
    broadening: float = 5.0


NONE = Modifications(shift=0, intensity=0.0, impurities=0, noise=0.0, broadening=0.0)


def modify(pattern: Tensor, others: Tensor, how: Modifications, generator: torch.Generator | None = None) -> Tensor:
    """Patterns [n, P] between 0 and 1 with all modifications; others: what impurities are taken from [m, P].

    Everything random is drawn from `generator`, torch's own by default, on the patterns' device.
    """
    n = len(pattern)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, device=pattern.device, generator=generator)

    if how.shift:
        pattern = shifted(pattern, uniform(-how.shift - 0.5, how.shift + 0.5, n).round().long())
    if how.intensity:
        pattern = minimum_to_maximum(rescaled(pattern, 1 + uniform(-how.intensity, how.intensity, n, BLOCKS)))
    if how.impurities:
        share = uniform(*how.impurity_share, n, how.impurities)
        number = uniform(0, how.impurities, n).ceil().clamp(min=1)
        share = share * (torch.arange(how.impurities, device=pattern.device) < number[:, None])
        which = uniform(0, len(others), n, how.impurities).long().clamp(max=len(others) - 1)
        for k in range(how.impurities):
            pattern = minimum_to_maximum(pattern + share[:, k, None] * others[which[:, k]])
    if how.noise:
        noise = torch.randn(pattern.shape, device=pattern.device, generator=generator)
        pattern = pattern + (how.noise / 3) * noise.abs()
    if how.broadening:
        pattern = broadened(pattern, uniform(1.0, how.broadening, n))
    return minimum_to_maximum(pattern)


def shifted(pattern: Tensor, points: Tensor) -> Tensor:
    """Each pattern [n, P] moved by so many points [n] to the right; what enters is 0."""
    source = torch.arange(pattern.shape[1], device=pattern.device) - points[:, None]
    inside = (source >= 0) & (source < pattern.shape[1])
    return pattern.gather(1, source.clamp(0, pattern.shape[1] - 1)) * inside


def rescaled(pattern: Tensor, factors: Tensor) -> Tensor:
    """Each pattern [n, P] in K equal blocks, each times its factor [n, K]. Raises ValueError unless K divides P."""
    n, points = pattern.shape
    if points % factors.shape[1]:
        raise ValueError(f"{points} points are not {factors.shape[1]} equal blocks.")
    return (pattern.view(n, factors.shape[1], -1) * factors[:, :, None]).view(n, points)


def broadened(pattern: Tensor, sigma: Tensor) -> Tensor:
    """Each pattern [n, P] convolved with a Gaussian of standard deviation sigma (points) [n]."""
    length = pattern.shape[1] + PADDING
    frequency = torch.fft.rfftfreq(length, device=pattern.device)  # 1/points
    damping = sum(torch.exp(-2 * (torch.pi * sigma[:, None] * f) ** 2) for f in (frequency, 1 - frequency))  # sampled
    return torch.fft.irfft(torch.fft.rfft(pattern, length) * damping, length)[:, : pattern.shape[1]]
