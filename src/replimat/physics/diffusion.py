"""Mean squared displacement and self-diffusion coefficient of a trajectory (Einstein: <|dr(t)|^2> = 6 D t)."""

from dataclasses import dataclass

import numpy as np

FIT = (0.1, 0.5)  # lags used, as shares of a block: shorter ones are ballistic, longer ones have few time origins
CM2_PER_S = 1e-4  # 1 angstrom^2/ps in cm^2/s


@dataclass(frozen=True)
class Diffusion:
    """coefficient and its standard error from independent blocks, cm^2/s; lags in ps [L]; msd in angstrom^2 [L]."""

    coefficient: float
    error: float
    lags: np.ndarray
    msd: np.ndarray


def mean_squared_displacement(positions: np.ndarray) -> np.ndarray:
    """<|r(t0 + t) - r(t0)|^2> over all atoms and all time origins t0, for every lag t of F frames [F].

    positions: unwrapped, in any length [F, N, 3]. By FFT, O(N F log F) (Calandrini et al., Collection SFN 12, 201
    (2011), section 4.2): sum_t0 |r(t0+t)|^2 + |r(t0)|^2 comes from running sums, the cross term is a correlation.
    """
    frames = len(positions)
    x = positions - positions.mean(axis=0)  # the result does not change, and the two terms cancel less  [F, N, 3]
    spectrum = np.fft.rfft(x, n=2 * frames, axis=0)
    cross = np.fft.irfft((np.abs(spectrum) ** 2).sum(axis=(1, 2)), n=2 * frames)[:frames]  # [F]
    square = (x**2).sum(axis=(1, 2))  # [F]
    running = np.concatenate([[0.0], np.cumsum(square)])  # [F + 1]
    lag = np.arange(frames)
    ends = running[frames - lag] + running[-1] - running[lag]
    # Rounding may leave the difference of large sums just below zero.
    return np.maximum(ends - 2 * cross, 0.0) / ((frames - lag) * positions.shape[1])


def diffusion(positions: np.ndarray, frame_ps: float, masses: np.ndarray | None = None, blocks: int = 5) -> Diffusion:
    """Self-diffusion coefficient: slope of the mean squared displacement over FIT of a block, divided by 6.

    positions: unwrapped, angstrom [F, N, 3]; frame_ps: time between frames; masses: any unit [N], all equal if None.
    The motion of the centre of mass is removed. The error is that of the mean of `blocks` blocks, each fitted over the
    same lags as the whole. Not corrected for the size of the box (Yeh and Hummer, J. Phys. Chem. B 108, 15873 (2004)).
    Raises ValueError for blocks too short to fit.
    """
    frames, atoms, _ = positions.shape
    length = frames // blocks
    first, last = max(1, int(FIT[0] * length)), int(FIT[1] * length)
    if blocks < 2 or last - first < 2:
        raise ValueError(f"{frames} frames are too few for a diffusion coefficient from {blocks} blocks.")
    weights = np.full(atoms, 1 / atoms) if masses is None else masses / masses.sum()  # [N]
    x = positions - np.einsum("n,fnd->fd", weights, positions)[:, None]
    whole = mean_squared_displacement(x)
    parts = [mean_squared_displacement(x[b * length : (b + 1) * length]) for b in range(blocks)]
    lags = np.arange(frames) * frame_ps
    slopes = [np.polyfit(lags[first : last + 1], msd[first : last + 1], 1)[0] for msd in (whole, *parts)]
    coefficient, *of_blocks = np.array(slopes) / 6 * CM2_PER_S
    return Diffusion(float(coefficient), float(np.std(of_blocks, ddof=1) / np.sqrt(blocks)), lags, whole)
