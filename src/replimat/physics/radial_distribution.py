"""Pair distribution function g(r) of a trajectory, with the first shell read off it (Allen, Tildesley, section 2.6)."""

from dataclasses import dataclass

import numpy as np

from replimat.errors import ReplimatError
from replimat.representations.neighbours import neighbours

SMOOTHING = 0.05  # angstrom: width of the Gaussian that hides counting noise from the search for peaks
PROMINENCE = 0.1  # a peak stands out by this share of the highest one, or it is noise


@dataclass(frozen=True)
class RadialDistribution:
    """g(r) and the mean number of atoms closer than the outer edge of each bin.

    r: middles of the bins, angstrom [K]; g: 1 where atoms are independent [K]; neighbours_within: running count [K].
    """

    r: np.ndarray
    g: np.ndarray
    neighbours_within: np.ndarray

    def first_shell(self) -> tuple[float, float]:
        """Place of the first peak in angstrom, and the number of atoms before the minimum behind it.

        Raises ReplimatError where g(r) has no peak, or none that is followed by another or by the end of the range.
        """
        from scipy.ndimage import gaussian_filter1d
        from scipy.signal import find_peaks

        smooth = gaussian_filter1d(self.g, SMOOTHING / (self.r[1] - self.r[0]))
        peaks, _ = find_peaks(smooth, height=1.0, prominence=PROMINENCE * smooth.max())
        if not len(peaks):
            raise ReplimatError(f"g(r) has no peak up to {self.r[-1]:.1f} angstrom: there is no shell of neighbours.")
        first = peaks[0]
        end = peaks[1] if len(peaks) > 1 else len(smooth)
        least = smooth[first:end].min()
        gap = first + np.flatnonzero(smooth[first:end] <= least)  # a crystal has a wide one where g is 0
        return _vertex(self.r, smooth, first), float(self.neighbours_within[gap[len(gap) // 2]])


def radial_distribution(
    positions: np.ndarray, cells: np.ndarray, r_max: float, bin_width: float = 0.02
) -> RadialDistribution:
    """g(r) averaged over the frames of one periodic box; images are counted, so r_max may exceed half the box.

    positions: angstrom, wrapped or not [F, N, 3]; cells: rows are lattice vectors, angstrom [F, 3, 3].
    Costs one neighbour list per frame. Raises ValueError for an r_max that holds fewer than two bins.
    """
    bins = round(r_max / bin_width)
    if bins < 2:
        raise ValueError(f"g(r) needs at least two bins, not r_max {r_max} with bins of {bin_width} angstrom.")
    edges = np.linspace(0.0, r_max, bins + 1)
    atoms = positions.shape[1]
    counts, ideal = np.zeros(bins), np.zeros(bins)
    shells = 4.0 / 3.0 * np.pi * np.diff(edges**3)  # [K]
    for x, cell in zip(positions, cells, strict=True):
        wrapped = (x @ np.linalg.inv(cell) % 1.0) @ cell
        counts += np.histogram(neighbours(wrapped, cell, r_max).distance, edges)[0]
        ideal += atoms * atoms / abs(np.linalg.det(cell)) * shells
    within = np.cumsum(counts) / (atoms * len(positions))
    return RadialDistribution(0.5 * (edges[1:] + edges[:-1]), counts / ideal, within)


def _vertex(r: np.ndarray, g: np.ndarray, k: int) -> float:
    """Where the parabola through the bins k - 1, k, k + 1 has its vertex, angstrom."""
    low, mid, high = g[k - 1 : k + 2]
    return float(r[k] + 0.5 * (r[1] - r[0]) * (low - high) / (low - 2 * mid + high))
