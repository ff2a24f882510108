"""Crystal system from a powder pattern (N. Corriero et al., J. Appl. Cryst. 56, 409 (2023)).

Trees see a list of lines, a network sees the pattern. Of the paper only the abstract could be read: that there are a
random forest, extremely randomised trees "available from the literature" and a convolutional network. What they see
and how the network is built was not found and is chosen here.

Lines, after Suzuki et al., Sci. Rep. 10, 21790 (2020), whose trees know the first ten and how many there are:

    q_i = (2 sin theta_i / lambda)^2 = 1 / d_i^2      features  q_1 .. q_10,  q_2 / q_1 .. q_10 / q_1,  number of lines

Differs from Suzuki et al., who take positions from the crystal: here lines are found in the pattern, as they must be
in a measured one, so close ones merge and faint ones are missed. The ratios, which do not change with the size of the
cell, are added here.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.signal import find_peaks
from torch import Tensor, nn

from replimat.representations.powder_pattern import ConstantWavelength, minimum_to_maximum

LINES = 10
OVER_NOISE = 8.0  # prominence of a line in standard deviations of the noise; at 5 noise itself is taken for lines
GAUSSIAN = 0.6745  # median of |x| of a normal distribution of standard deviation 1
STRIDES = (4, 2, 2, 2)  # by how much each stage of the network shortens the pattern


def line_features(pattern: np.ndarray, instrument: ConstantWavelength, faintest: float) -> np.ndarray:
    """What trees see of patterns [n, P] with their highest point at 1: [n, 2 LINES], 1/angstrom^2 and numbers.

    faintest: prominence that a line has at least. A line that is not there has position and ratio 0. Raises ValueError
    if the patterns are not on the instrument's axis.
    """
    if pattern.shape[1] != instrument.points:
        raise ValueError(f"Patterns of {pattern.shape[1]} points on an axis of {instrument.points}.")
    q, number = np.zeros((len(pattern), LINES)), np.zeros((len(pattern), 1))
    prominence = np.maximum(faintest, OVER_NOISE * noise(pattern))
    for row, (one, least) in enumerate(zip(pattern, prominence, strict=True)):
        places = line_places(one, least)
        theta = np.radians(instrument.start + instrument.step * places[:LINES]) / 2
        q[row, : len(theta)] = (2 * np.sin(theta) / instrument.wavelength) ** 2
        number[row] = len(places)
    return np.hstack([q, q[:, 1:] / np.maximum(q[:, :1], np.finfo(float).tiny), number])


def line_places(pattern: np.ndarray, prominence: float) -> np.ndarray:
    """Maxima of one pattern [P] in points from its start, each the top of the parabola through three points."""
    at, _ = find_peaks(pattern, prominence=prominence)
    left, top, right = pattern[at - 1], pattern[at], pattern[at + 1]
    bend = left - 2 * top + right
    return at + np.where(bend < 0, 0.5 * (left - right) / np.where(bend < 0, bend, -1.0), 0.0)  # a flat top: its middle


def noise(pattern: np.ndarray) -> np.ndarray:
    """Standard deviation of the noise of patterns [n, P], from the median second difference [n]."""
    return np.median(np.abs(np.diff(pattern, 2, axis=1)), axis=1) / np.sqrt(6) / GAUSSIAN


class PatternCNN(nn.Module):
    """Logits of the crystal systems [B, K] from patterns [B, P] of any scale.

    Three convolutions with batch normalisation and ReLU, strided instead of pooled but for one maximum pool, then two
    dense layers: not averaged over the axis, for it matters where a line lies. The square root of the intensity between
    0 and 1 is seen, so that weak lines count.
    """

    def __init__(
        self, points: int, classes: int, channels: Sequence[int] = (16, 32, 64), hidden: int = 128, dropout: float = 0.3
    ):
        super().__init__()
        first, second, third = channels
        length = points
        for stride in STRIDES:
            length = -(-length // stride)
        self.convolutions = nn.Sequential(
            *_convolution(1, first, 25, STRIDES[0]),
            nn.MaxPool1d(STRIDES[1], ceil_mode=True),
            *_convolution(first, second, 9, STRIDES[2]),
            *_convolution(second, third, 5, STRIDES[3]),
        )
        self.dense = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(third * length, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )

    def forward(self, pattern: Tensor) -> Tensor:
        seen = torch.sqrt(minimum_to_maximum(pattern))[:, None]  # [B, 1, P]
        return self.dense(self.convolutions(seen))  # [B, K]


def _convolution(inputs: int, outputs: int, width: int, stride: int) -> list[nn.Module]:
    """A convolution that makes ceil(P / stride) points of P, normalised and rectified."""
    convolution = nn.Conv1d(inputs, outputs, width, stride, padding=width // 2, bias=False)
    return [convolution, nn.BatchNorm1d(outputs), nn.ReLU()]
