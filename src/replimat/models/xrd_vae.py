"""Variational autoencoder of powder patterns (Banko et al., npj Comput. Mater. 7, 104 (2021), doi:10.1038/s41524-021-
00575-9; after D. P. Kingma, M. Welling, arXiv:1312.6114).

    z = mu(y) + exp(log_variance(y) / 2) * e,   e ~ N(0, 1)            y' = decoder(z)

The architecture is that of a repository of the same group, likely the paper's: convolutions and average pools without
activation, dense layers with ReLU, two linear heads; the decoder mirrors it. The numbers of filters and the widths of
the layers were not found; those here are free choices.

Differs from that code: its standard deviation is exp of the head that its KL term takes for a log-variance, here it is
exp of half of it; and a pool drops the points that do not fill it, where theirs pads them, so that the decoder never
makes more points than the pattern has.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Decoded(NamedTuple):
    """Patterns as given back [B, P]; mean and log_variance of their latent coordinates [B, L]."""

    reconstruction: Tensor
    mean: Tensor
    log_variance: Tensor


class PatternVAE(nn.Module):
    """Patterns [B, P] to a latent space of L dimensions and back.

    points: P; filters: of each convolution, each followed by a pool of `pool` points; dense: widths from the patterns
    to the latent space, mirrored on the way back; dropout: before the dense layers. Raises ValueError when the patterns
    are too short for so many pools.
    """

    def __init__(
        self,
        points: int,
        latent: int = 2,
        filters: Sequence[int] = (8, 8),
        kernel: int = 5,
        pool: int = 2,
        dense: Sequence[int] = (256, 128, 64),
        dropout: float = 0.0,
    ):
        super().__init__()
        lengths = [points]
        for _ in filters:
            lengths.append((lengths[-1] - kernel + 1) // pool)
        if lengths[-1] < 1:
            raise ValueError(f"Patterns of {points} points are too short for {len(filters)} pools of {pool}.")
        self.points, self.latent = points, latent
        widths = [filters[-1] * lengths[-1], *dense]
        self.encoder = nn.Sequential(
            *(layer for a, b in pairwise([1, *filters]) for layer in (nn.Conv1d(a, b, kernel), nn.AvgPool1d(pool))),
            nn.Flatten(),
            nn.Dropout(dropout),
            *_dense(widths),
            nn.Linear(widths[-1], 2 * latent),  # both heads
        )
        self.decoder = nn.Sequential(
            *_dense([latent, *widths[::-1]]),
            nn.Unflatten(1, (filters[-1], lengths[-1])),
            *_expanding(points, lengths[-1], list(filters)[::-1], kernel, pool),
            nn.Flatten(),
        )

    def forward(self, pattern: Tensor) -> Decoded:
        """In training z is drawn anew, in evaluation it is the mean."""
        mean, log_variance = self.encode(pattern)
        spread = torch.exp(log_variance / 2) * torch.randn_like(mean) if self.training else 0.0
        return Decoded(self.decoder(mean + spread), mean, log_variance)

    def encode(self, pattern: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latent coordinates [B, L]. Raises ValueError for patterns of another length."""
        if pattern.ndim != 2 or pattern.shape[1] != self.points:
            raise ValueError(f"Patterns of shape {tuple(pattern.shape)}, expected [B, {self.points}].")
        return self.encoder(pattern[:, None]).chunk(2, dim=1)


def _dense(widths: Sequence[int]) -> list[nn.Module]:
    return [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]


def _expanding(points: int, length: int, filters: list[int], kernel: int, pool: int) -> list[nn.Module]:
    """From filters[0] channels of `length` to one of `points`: the kernel of the last convolution fills what lacks."""
    layers = []
    for a, b in pairwise(filters):
        layers += [nn.Upsample(scale_factor=pool), nn.ConvTranspose1d(a, b, kernel)]
        length = length * pool + kernel - 1
    last = points - length * pool + 1
    return [*layers, nn.Upsample(scale_factor=pool), nn.ConvTranspose1d(filters[-1], 1, last)]
