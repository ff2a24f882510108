"""Conditional deep-feature-consistent VAE and segmentation network of crystal voxels (Court et al., J. Chem. Inf.
Model. 60, 4518 (2020), doi:10.1021/acs.jcim.0c00464; architecture after their released code).

    z = mu(x, c) + exp(log_variance(x, c) / 2) e,  e ~ N(0, 1)        x' = decoder(z, c)
    loss = |x - x'|^2 + 0.5 sum_l |h_l(x) - h_l(x')|^2 + 0.0003 KL

x: density and coordinates of a grid; c: one-hot bin of the formation energy; h_l: what the segmentation network sees at
each depth on its way down (the perceptual loss). The segmentation network names the element of every voxel and says
whether it is part of an atom.

Sizes are theirs on a grid of 32^3; on smaller ones levels are left out at the coarse end, so that the encoder ends and
the decoder begins at a similar size.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, one_hot

CHANNELS = 4  # density and three coordinates
CLASSES = 95  # atomic numbers to 94, and 0 for no atom
NARROW = 4  # channels before the latent space
SLOPE = 0.3  # of leaky units, the default of their library
KERNEL = {"kernel_size": 3, "padding": 1}


class Decoded(NamedTuple):
    """Voxels as given back [B, 4, G, G, G]; mean and log_variance of their latent coordinates [B, L]."""

    reconstruction: Tensor
    mean: Tensor
    log_variance: Tensor


class VoxelVAE(nn.Module):
    """Voxels [B, 4, G, G, G] to a latent space of L dimensions and back, given one of `conditions` bins [B].

    grid: G; filters: of the encoder's convolutions, each followed by a pool, mirrored in the decoder. Raises ValueError
    for a grid that the pools leave nothing of.
    """

    def __init__(
        self, grid: int = 32, filters: Sequence[int] = (16, 32, 64, 128), latent: int = 256, conditions: int = 10
    ):
        super().__init__()
        *sizes, last = accumulate(filters, lambda size, _: -(-size // 2), initial=grid)  # rounded up
        if 2 ** len(filters) > grid:
            raise ValueError(f"A grid of {grid}^3 is too small for {len(filters)} pools.")
        self.grid, self.latent, self.conditions = grid, latent, conditions
        layers, width = [], CHANNELS + conditions
        for f in filters:
            layers += [
                nn.Conv3d(width, f, **KERNEL),
                nn.BatchNorm3d(f),
                nn.LeakyReLU(SLOPE),
                nn.MaxPool3d(2, ceil_mode=True),
            ]
            width = f
        layers += [nn.Conv3d(width, NARROW, **KERNEL), nn.LeakyReLU(SLOPE), nn.Flatten()]
        self.encoder = nn.Sequential(*layers, nn.Linear(NARROW * last**3, latent), nn.ReLU())
        self.mean, self.log_variance = nn.Linear(latent, latent), nn.Linear(latent, latent)
        self.sizes = sizes[::-1]
        width = max(1, latent // self.sizes[0] ** 3)
        self.start = nn.Linear(latent + conditions, width * self.sizes[0] ** 3)
        self.decoder = nn.ModuleList()
        for f in reversed(filters):
            self.decoder.append(nn.Sequential(nn.Conv3d(width, f, **KERNEL), nn.BatchNorm3d(f), nn.LeakyReLU(SLOPE)))
            width = f
        self.out = nn.Sequential(nn.Conv3d(width, CHANNELS, **KERNEL), nn.BatchNorm3d(CHANNELS), nn.ReLU())

    def forward(self, voxels: Tensor, condition: Tensor) -> Decoded:
        """In training z is drawn anew, in evaluation it is the mean."""
        mean, log_variance = self.encode(voxels, condition)
        spread = torch.exp(log_variance / 2) * torch.randn_like(mean) if self.training else 0.0
        return Decoded(self.decode(mean + spread, condition), mean, log_variance)

    def encode(self, voxels: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latent coordinates [B, L]. Raises ValueError for another grid."""
        if voxels.shape[1:] != (CHANNELS, *3 * (self.grid,)):
            raise ValueError(f"Voxels of shape {tuple(voxels.shape)}, expected [B, {CHANNELS}, {self.grid}^3].")
        bins = one_hot(condition, self.conditions).to(voxels.dtype)[:, :, None, None, None]
        hidden = self.encoder(torch.cat([voxels, bins.expand(-1, -1, *voxels.shape[2:])], dim=1))
        return self.mean(hidden), self.log_variance(hidden)

    def decode(self, z: Tensor, condition: Tensor) -> Tensor:
        """Voxels [B, 4, G, G, G] of latent coordinates [B, L]."""
        hidden = self.start(torch.cat([z, one_hot(condition, self.conditions).to(z.dtype)], dim=1))
        hidden = hidden.view(len(z), -1, *3 * (self.sizes[0],))
        for size, layer in zip(self.sizes, self.decoder, strict=True):
            hidden = layer(interpolate(hidden, size=3 * (size,)))
        return self.out(hidden)


class Segmented(NamedTuple):
    """Logits of the element of each voxel [B, 95, G, G, G], and of being part of an atom [B, G, G, G]."""

    species: Tensor
    presence: Tensor


class AtomUNet(nn.Module):
    """Names the atoms in voxels [B, 4, G, G, G]; width: channels of the first convolution, doubled with each of
    `levels` pools.
    """

    def __init__(self, width: int = 32, levels: int = 3):
        super().__init__()
        channels, self.down, self.up = CHANNELS, nn.ModuleList(), nn.ModuleList()
        for level in range(levels):
            self.down.append(_Pair(channels, width * 2**level, width * 2 ** (level + 1)))
            channels = width * 2 ** (level + 1)
        self.bottom = _Pair(channels, 2 * channels, 2 * channels)
        channels *= 2
        for level in reversed(range(levels)):
            first, last = width * 2 ** (level + 2), width * 2 ** max(level + 1, 2)
            self.up.append(_Pair(channels + width * 2 ** (level + 1), first, last))
            channels = last
        self.species, self.presence = nn.Conv3d(channels, CLASSES, 1), nn.Conv3d(channels, 1, 1)

    def forward(self, voxels: Tensor) -> Segmented:
        _, kept, hidden = self._descend(voxels)
        for layer in self.up:
            skip = kept.pop()
            hidden, _ = layer(torch.cat([skip, interpolate(hidden, size=skip.shape[2:])], dim=1))
        return Segmented(self.species(hidden), self.presence(hidden)[:, 0])

    def features(self, voxels: Tensor) -> list[Tensor]:
        """What it sees at every depth on its way down, largest first: the activations of each second convolution."""
        return self._descend(voxels)[0]

    def _descend(self, voxels: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        seen, kept, hidden = [], [], voxels
        for layer in self.down:
            hidden, active = layer(hidden)
            seen.append(active)
            kept.append(hidden)
            hidden = nn.functional.max_pool3d(hidden, 2)
        hidden, active = self.bottom(hidden)
        return [*seen, active], kept, hidden


class _Pair(nn.Module):
    """Two convolutions; returns their output and the last activation before its normalisation."""

    def __init__(self, channels: int, first: int, last: int):
        super().__init__()
        self.first = nn.Sequential(nn.Conv3d(channels, first, **KERNEL), nn.ReLU(), nn.BatchNorm3d(first))
        self.last = nn.Sequential(nn.Conv3d(first, last, **KERNEL), nn.ReLU())
        self.normalise = nn.BatchNorm3d(last)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        active = self.last(self.first(hidden))
        return self.normalise(active), active
