"""Simulated powder patterns under varied conditions, many at once, on CPU or GPU. Needs torch alone.

A pattern is a weighted sum of the patterns of one or more crystals, measured under one set of conditions that is drawn
for every pattern anew (Conditions); how a peak looks and where it lies: replimat.representations.powder_pattern.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from replimat.representations.powder_pattern import (
    Instrument,
    PeakShape,
    cosines,
    draw,
    highest_is_one,
    march_dollase,
    sample_height,
)

Range = tuple[float, float]
NONE: Range = (0.0, 0.0)
ROWS_AT_ONCE = 64  # patterns made in one step when a whole set is wanted


@dataclass(frozen=True)
class Conditions:
    """Range of everything that differs between two measurements; each pattern draws uniformly from all of them.

    strain: relative change of all spacings of a crystal; u, v, w, x, y: widths, see powder_pattern; b_iso: overall
    Debye-Waller B, angstrom^2; march: r of March-Dollase, about the normal of one reflection of each crystal drawn at
    random (1 is no texture); shift: of the whole axis, in its unit; height: sample displacement over the radius of the
    goniometer; background: coefficients of 1, t, t^2, ... with t from -1 to 1 along the axis, and `hump`: height of a
    broad one at small angles, as of glass or air, all as shares of the highest peak; noise: standard deviation of
    Gaussian noise, as such a share.
    """

    strain: Range = NONE
    u: Range = NONE
    v: Range = NONE
    w: Range = (0.01, 0.01)
    x: Range = NONE
    y: Range = NONE
    b_iso: Range = NONE
    march: Range = (1.0, 1.0)
    shift: Range = NONE
    height: Range = NONE
    background: tuple[Range, ...] = ()
    hump: Range = NONE
    noise: Range = NONE


class Powders:
    """Reflections of n crystals on a device, packed: d, intensity [R], offsets [n + 1]; for texture hkl [R, 3] and
    cells [n, 3, 3].
    """

    def __init__(self, arrays: Mapping[str, np.ndarray | Tensor], device: str = "cpu"):
        """arrays: of replimat.representations.powder.PowderReflections."""
        self.d, self.intensity, self.offsets = (
            torch.as_tensor(arrays[name], device=device) for name in ("d", "intensity", "reflection_offsets")
        )
        self.hkl, self.cells = (
            torch.as_tensor(arrays[name], device=device) if name in arrays else None for name in ("hkl", "cells")
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def picked(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Reflections of the given crystals in order [R'], and the place in `rows` of each one's crystal [R']."""
        starts, sizes = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        owner = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), sizes)
        return torch.arange(len(owner), device=rows.device) + (starts - (sizes.cumsum(0) - sizes))[owner], owner


def simulate(
    powders: Powders,
    rows: Tensor,
    instrument: Instrument,
    conditions: Conditions,
    generator: torch.Generator | None = None,
    *,
    weights: Tensor | None = None,
    pattern: Tensor | None = None,
) -> Tensor:
    """Patterns [n, P], the highest point of each 1 before noise is added.

    rows: crystals [K]; pattern: which pattern each belongs to [K], one each by default; weights: of each crystal's
    intensities in its pattern [K]. Everything random is drawn from `generator`, torch's own by default.
    """
    device = powders.d.device
    rows = torch.as_tensor(rows, device=device)
    pattern = torch.arange(len(rows), device=device) if pattern is None else pattern.to(device)
    n = int(pattern.max()) + 1
    drawn = _Draw(n, device, generator)
    chosen, crystal = powders.picked(rows)
    of = pattern[crystal]  # pattern of each reflection  [R]
    d = powders.d[chosen] * (1 + _Draw(len(rows), device, generator)(conditions.strain)[crystal])
    shape = PeakShape(*(drawn(getattr(conditions, name)) for name in ("u", "v", "w", "x", "y"))).of(of)
    area = powders.intensity[chosen] * instrument.geometry(d)
    if weights is not None:
        area = area * weights.to(device, area.dtype)[crystal]
    if conditions.b_iso != NONE:
        area = area * torch.exp(-drawn(conditions.b_iso)[of] / (2 * d**2))
    if conditions.march != (1.0, 1.0):
        area = area * _texture(powders, rows, chosen, crystal, _Draw(len(rows), device, generator), conditions.march)
    at = instrument.positions(d)
    if conditions.height != NONE:
        at = sample_height(instrument, at, drawn(conditions.height)[of], 1.0)
    if conditions.shift != NONE:
        at = at + drawn(conditions.shift)[of]
    made = highest_is_one(draw(instrument, at, area, *instrument.widths(d, shape), of, n))
    made = highest_is_one(made + _background(made, conditions, drawn))
    return made if conditions.noise == NONE else made + drawn(conditions.noise)[:, None] * drawn.normal(made.shape)


def simulate_all(
    powders: Powders, rows: np.ndarray, instrument: Instrument, conditions: Conditions, seed: int
) -> Tensor:
    """One pattern of each crystal [n, P]; the same again for the same rows and seed."""
    generator = torch.Generator(powders.d.device).manual_seed(seed)
    parts = torch.split(torch.as_tensor(rows), ROWS_AT_ONCE)
    return torch.cat([simulate(powders, part, instrument, conditions, generator).cpu() for part in parts])


class _Draw:
    """Uniform values of n patterns from a range."""

    def __init__(self, n: int, device: torch.device, generator: torch.Generator | None):
        self.n, self.device, self.generator = n, device, generator

    def __call__(self, span: Range) -> Tensor | float:
        """[n]; a fixed value is drawn as well, so that other draws do not depend on which ranges are open."""
        low, high = span
        return low + (high - low) * torch.rand(self.n, device=self.device, generator=self.generator)

    def normal(self, shape: torch.Size) -> Tensor:
        return torch.randn(shape, device=self.device, generator=self.generator)


def _texture(powders: Powders, rows: Tensor, chosen: Tensor, crystal: Tensor, drawn: _Draw, march: Range) -> Tensor:
    """March-Dollase weight of every reflection [R]; the axis is the normal of one of its crystal's reflections."""
    if powders.hkl is None:
        raise ValueError("Texture needs reflections prepared with equivalents=True.")
    sizes = powders.offsets[rows + 1] - powders.offsets[rows]
    axis = powders.hkl[powders.offsets[rows] + (drawn((0.0, 1.0)) * sizes).long().clamp(max=sizes - 1)]  # [K, 3]
    r = drawn(march)[crystal]
    cosine = cosines(powders.hkl[chosen], powders.cells[rows][crystal], axis[crystal])
    return march_dollase(cosine, r).to(powders.d.dtype)


def _background(made: Tensor, conditions: Conditions, drawn: _Draw) -> Tensor:
    """Background of every pattern [n, P], as a share of its highest peak."""
    t = torch.linspace(-1, 1, made.shape[1], device=made.device)
    total = torch.zeros_like(made)
    for power, span in enumerate(conditions.background):
        total = total + drawn(span)[:, None] * t**power
    if conditions.hump != NONE:
        total = total + drawn(conditions.hump)[:, None] * torch.exp(-0.5 * ((t + 0.6) / 0.2) ** 2)
    return total.clamp(min=0)
