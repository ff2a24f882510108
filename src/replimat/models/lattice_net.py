"""Lattice lengths from a powder pattern (Chitturi et al., J. Appl. Cryst. 54, 1799 (2021)).

    y [9000] -> max pool 3 -> 5 x [convolution, ReLU, convolution, ReLU, max pool] -> 80 -> 50 -> 10 -> 3 lengths

One network for each crystal system; its lengths ascend, angles are not predicted. What the symmetry makes equal is made
equal afterwards (`by_symmetry`).

Differs from the authors' code (src47/DeepLPnet): their source file computes the first pool and then feeds the unpooled
pattern to the first block, so that the released models are of two sizes. Both are here, the pooled one is what the
paper means. Their tetragonal, trigonal and hexagonal cells average the first two lengths or the last two, whichever
are closer, but measure the distance of the last two by that of the first and third; here each pair is measured by
itself.
"""

import numpy as np
import torch
from torch import Tensor, nn

BLOCKS = ((5, 3, 2), (10, 3, 2), (15, 5, 3), (20, 5, 2), (30, 5, 5))  # filters, kernel, pool
DENSE = (80, 50, 10)
POINTS = 9000
FREE = {"cubic": 1, "tetragonal": 2, "trigonal": 2, "hexagonal": 2, "orthorhombic": 3, "monoclinic": 3, "triclinic": 3}


class LatticeNet(nn.Module):
    """Patterns [B, points], highest point 1, to lengths [B, 3] in angstrom, ascending where it has learned to.

    pool: of the pattern before the first block, 1 is none; centre, spread: of the lengths to be learned, angstrom: the
    units of the last layer, which stays linear. Raises ValueError when the patterns are too short.
    """

    def __init__(self, points: int = POINTS, pool: int = 3, centre: Tensor | float = 0.0, spread: Tensor | float = 1.0):
        super().__init__()
        blocks, length, before = [], points // pool, 1
        for filters, kernel, reduction in BLOCKS:
            for channels in (before, filters):
                blocks += [nn.Conv1d(channels, filters, kernel, padding=kernel // 2), nn.ReLU()]
            blocks.append(nn.MaxPool1d(reduction))
            length, before = length // reduction, filters
        if length < 1:
            raise ValueError(f"Patterns of {points} points are too short for this network.")
        widths = (before * length, *DENSE)
        dense = [layer for pair in zip(widths, DENSE, strict=False) for layer in (nn.Linear(*pair), nn.ReLU())]
        self.pool = pool
        self.network = nn.Sequential(*blocks, nn.Flatten(), *dense, nn.Linear(DENSE[-1], 3))
        self.register_buffer("centre", torch.as_tensor(centre, dtype=torch.float32).expand(3).clone())
        self.register_buffer("spread", torch.as_tensor(spread, dtype=torch.float32).expand(3).clone())
        self.apply(_start)

    def forward(self, pattern: Tensor) -> Tensor:
        seen = nn.functional.max_pool1d(pattern[:, None], self.pool)  # [B, 1, P / pool]
        return self.centre + self.spread * self.network(seen)


def _start(layer: nn.Module) -> None:
    """He's weights and no bias. With Glorot's, which Keras takes, a signal halves in each of 13 layers, and training
    stayed at the mean for 1,800 steps.
    """
    if isinstance(layer, nn.Conv1d | nn.Linear):
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)


def by_symmetry(lengths: np.ndarray, system: str) -> np.ndarray:
    """Lengths [n, 3] with what the crystal system makes equal averaged: all of a cubic cell, of cells with one axis the
    two that are closest; ascending.
    """
    lengths = np.sort(lengths, axis=1)
    if FREE[system] == 3:
        return lengths
    if FREE[system] == 1:
        return np.repeat(lengths.mean(axis=1, keepdims=True), 3, axis=1)
    single, pair = _single_and_pair(lengths)
    return np.sort(np.stack([single, pair, pair], axis=1), axis=1)


def free_lengths(lengths: np.ndarray, system: str) -> np.ndarray:
    """The lengths that a cell of this system is free in [n, 1 to 3]: its only one; single and equal ones; or all three,
    ascending.
    """
    lengths = np.sort(lengths, axis=1)
    if FREE[system] == 2:
        return np.stack(_single_and_pair(lengths), axis=1)
    return lengths.mean(axis=1, keepdims=True) if FREE[system] == 1 else lengths


def _single_and_pair(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of ascending lengths [n, 3] the one that stands alone [n], and the mean of the two that are closest [n]."""
    first = lengths[:, 1] - lengths[:, 0] < lengths[:, 2] - lengths[:, 1]  # the closest are neighbours when sorted
    single = np.where(first, lengths[:, 2], lengths[:, 0])
    return single, (lengths.sum(axis=1) - single) / 2
