"""Convolutional network on a powder pattern (after C. Garcia-Cardona et al., IEEE Big Data 2019).

    y -> sqrt(y) -> [convolution, batch normalisation, ReLU] x 3 -> dense, ReLU -> dense -> phase or cell

Their architecture was not found; this is a standard one. The convolutions are strided and nothing is pooled, because
a cell is read from where the peaks lie. The square root lets weak peaks count and makes the noise of counting even.
"""

import torch
from torch import Tensor, nn

FIRST = (16, 4)  # kernel and stride
LATER = ((7, 2), (5, 2))


class PatternNetwork(nn.Module):
    """Patterns [B, points], highest point 1, to outputs [B, outputs]: logits of classes, or scaled cell parameters.

    channels: of the first convolution, the later ones have twice as many; hidden: width of the dense layer. Raises
    ValueError when the patterns are too short.
    """

    def __init__(self, points: int, outputs: int, channels: int = 16, hidden: int = 64):
        super().__init__()
        layers, length = [], points
        before = 1
        for width, (kernel, stride) in zip((channels, 2 * channels, 2 * channels), (FIRST, *LATER), strict=True):
            layers += [nn.Conv1d(before, width, kernel, stride, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
            length, before = (length - kernel) // stride + 1, width
        if length < 1:
            raise ValueError(f"Patterns of {points} points are too short for this network.")
        self.convolutions = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(before * length, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
        )

    def forward(self, pattern: Tensor) -> Tensor:
        seen = torch.sqrt(pattern.clamp(min=0))  # noise goes below zero
        return self.head(self.convolutions(seen[:, None]))  # [B, 1, P] to [B, outputs]
