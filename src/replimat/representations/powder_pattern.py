"""From reflections to powder patterns, many at once, on CPU or GPU: positions, geometry, peak shapes, and what an
experiment adds.

    y(x) = sum_r I_r L(d_r) exp(-B / (2 d_r^2)) P_r(texture) shape(x - x_r - shift; width(d_r)) + background + noise

x is 2 theta in degrees (ConstantWavelength) or the logarithm of the time of flight (TimeOfFlight), L(d) the
Lorentz(-polarisation) factor. Peaks are pseudo-Voigt with the mixing of Thompson, Cox and Hastings (J. Appl. Cryst. 20,
79 (1987)), at constant wavelength with

    Gauss   fwhm^2 = U tan^2(theta) + V tan(theta) + W         Lorentz   fwhm = X tan(theta) + Y / cos(theta)

and by time of flight with a fwhm proportional to the time. Texture is March's (Dollase, J. Appl. Cryst. 19, 267
(1986)).

Needs torch alone: patterns are made where they are learned from.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

REACH = 12.0  # half-widths at half maximum to which a peak is drawn; a Lorentzian has 5 % of its area beyond
NARROWEST = 1e-3  # of an axis step: no peak is narrower, whatever U, V and W say
PEAKS_AT_ONCE = 1 << 22  # points of peaks computed in one step: bounds memory to about 100 MB


@dataclass(frozen=True)
class ConstantWavelength:
    """A diffractometer at one wavelength (angstrom): `points` from start to stop (2 theta, degree), both included.

    polarised: multiply by (1 + k cos^2 2 theta) / (1 + k), for X-rays of a tube; k = cos^2 of the monochromator's 2
    theta (degree), 1 without one. Neutrons and a synchrotron's vertical plane have none.
    """

    wavelength: float
    start: float
    stop: float
    points: int
    polarised: bool = True
    monochromator: float = 0.0

    @property
    def step(self) -> float:
        return (self.stop - self.start) / (self.points - 1)

    @property
    def d_range(self) -> tuple[float, float]:
        """Spacings (angstrom) whose peaks lie on the axis."""
        return tuple(self.wavelength / 2 / math.sin(math.radians(max(end, 0.1)) / 2) for end in (self.stop, self.start))

    def axis(self, **on) -> Tensor:
        """2 theta of every point, degree [P]."""
        return torch.linspace(self.start, self.stop, self.points, **on)

    def positions(self, d: Tensor) -> Tensor:
        """2 theta, degree; NaN where d is too small for the wavelength."""
        return 2 * torch.rad2deg(torch.asin(self.wavelength / 2 / d))

    def geometry(self, d: Tensor) -> Tensor:
        """Lorentz(-polarisation) factor, any unit."""
        theta = torch.asin(self.wavelength / 2 / d)
        lorentz = 1 / (torch.sin(theta) ** 2 * torch.cos(theta))
        if not self.polarised:
            return lorentz
        k = math.cos(math.radians(self.monochromator)) ** 2
        return lorentz * (1 + k * torch.cos(2 * theta) ** 2) / (1 + k)

    def widths(self, d: Tensor, shape: "PeakShape") -> tuple[Tensor, Tensor]:
        """fwhm (degree) and Lorentzian share of every peak [R]; shape: of every peak [R]."""
        theta = torch.asin(self.wavelength / 2 / d)
        tan, cos = torch.tan(theta), torch.cos(theta)
        gauss = torch.sqrt((shape.u * tan**2 + shape.v * tan + shape.w).clamp(min=0))
        return thompson_cox_hastings(gauss, shape.x * tan + shape.y / cos, NARROWEST * self.step)


@dataclass(frozen=True)
class TimeOfFlight:
    """A detector bank of a pulsed neutron source: `points` of constant dt/t between two spacings (angstrom).

    t = difc d + difa d^2 + zero (microseconds). The peaks' asymmetry of a real moderator is not modelled. L = d^4.
    """

    difc: float
    d_start: float
    d_stop: float
    points: int
    difa: float = 0.0
    zero: float = 0.0

    def time(self, d: Tensor | float) -> Tensor:
        """Time of flight, microseconds."""
        return self.difc * d + self.difa * d**2 + self.zero

    @property
    def start(self) -> float:
        return math.log(self.time(self.d_start))

    @property
    def stop(self) -> float:
        return math.log(self.time(self.d_stop))

    @property
    def step(self) -> float:
        return (self.stop - self.start) / (self.points - 1)

    @property
    def d_range(self) -> tuple[float, float]:
        return self.d_start, self.d_stop

    def axis(self, **on) -> Tensor:
        """Logarithm of the time of every point [P]."""
        return torch.linspace(self.start, self.stop, self.points, **on)

    def positions(self, d: Tensor) -> Tensor:
        return torch.log(self.time(d))

    def geometry(self, d: Tensor) -> Tensor:
        return d**4

    def widths(self, d: Tensor, shape: "PeakShape") -> tuple[Tensor, Tensor]:
        """Relative fwhm: Gauss sqrt(W + U d^2), Lorentz Y + X d, both dt/t."""
        gauss = torch.sqrt((shape.w + shape.u * d**2).clamp(min=0))
        return thompson_cox_hastings(gauss, shape.y + shape.x * d, NARROWEST * self.step)


Instrument = ConstantWavelength | TimeOfFlight


@dataclass(frozen=True)
class PeakShape:
    """Caglioti's U, V, W and the Lorentzian X, Y; each a number, or a Tensor of one value a peak."""

    u: Tensor | float = 0.0
    v: Tensor | float = 0.0
    w: Tensor | float = 0.01
    x: Tensor | float = 0.0
    y: Tensor | float = 0.0

    def of(self, rows: Tensor) -> "PeakShape":
        """Shape of every peak from that of every pattern; rows: pattern of each peak [R]."""
        return PeakShape(*(v[rows] if isinstance(v, Tensor) else v for v in (self.u, self.v, self.w, self.x, self.y)))


def thompson_cox_hastings(gauss: Tensor, lorentz: Tensor, narrowest: float) -> tuple[Tensor, Tensor]:
    """fwhm and Lorentzian share of the pseudo-Voigt nearest to the Voigt of these two widths."""
    g, l = gauss.clamp(min=narrowest), torch.as_tensor(lorentz, dtype=gauss.dtype, device=gauss.device)  # noqa: E741
    terms = g**5 + 2.69269 * g**4 * l + 2.42843 * g**3 * l**2 + 4.47163 * g**2 * l**3 + 0.07842 * g * l**4 + l**5
    fwhm = terms**0.2
    ratio = l / fwhm
    return fwhm, 1.36603 * ratio - 0.47719 * ratio**2 + 0.11116 * ratio**3


def pseudo_voigt(x: Tensor, fwhm: Tensor, share: Tensor) -> Tensor:
    """Peak of unit area at a distance x from its centre; share: Lorentzian, 0 to 1."""
    t = (2 * x / fwhm) ** 2
    gauss = math.sqrt(math.log(2) / math.pi) * torch.exp(-math.log(2) * t)
    return 2 / fwhm * ((1 - share) * gauss + share / (math.pi * (1 + t)))


def draw(instrument: Instrument, x: Tensor, area: Tensor, fwhm: Tensor, share: Tensor, row: Tensor, n: int) -> Tensor:
    """n patterns [n, P] from peaks at x with their area, fwhm and Lorentzian share, each of pattern `row` [R].

    A peak is drawn out to REACH half-widths; one whose centre is no number or far off the axis is not drawn.
    """
    step, points = instrument.step, instrument.points
    half = torch.clamp(REACH / 2 * fwhm / step, min=1.5).ceil()  # points to either side  [R]
    place = (x - instrument.start) / step
    usable = torch.isfinite(place) & (place + half >= 0) & (place - half <= points - 1)
    place, area, fwhm, share, row, half = (v[usable] for v in (place, area, fwhm, share, row, half))
    pattern = torch.zeros(n * points, dtype=area.dtype, device=area.device)
    for rows in _alike(half):
        reach = int(half[rows].max())
        centre = place[rows].round()
        at = centre[:, None] + torch.arange(-reach, reach + 1, device=area.device)  # [r, 2 reach + 1]
        height = area[rows, None] * pseudo_voigt((at - place[rows, None]) * step, fwhm[rows, None], share[rows, None])
        on = (at >= 0) & (at < points) & ((at - centre[:, None]).abs() <= half[rows, None])
        where = (row[rows, None] * points + at.clamp(0, points - 1).long()).flatten()
        pattern.index_add_(0, where, (height * on).flatten())
    return pattern.view(n, points)


def _alike(half: Tensor) -> list[Tensor]:
    """Peaks of like width together, few enough to be drawn in one step."""
    order = torch.argsort(half)
    groups, start = [], 0
    while start < len(order):
        at_once = max(1, int(PEAKS_AT_ONCE // (2 * half[order[start]] + 1)))
        stop = min(len(order), start + at_once)
        within = int(torch.searchsorted(half[order[start:stop]], 1.5 * half[order[start]], right=True))
        groups.append(order[start : start + max(1, within)])
        start += max(1, within)
    return groups


def march_dollase(cosine: Tensor, r: Tensor) -> Tensor:
    """Weight of a reflection whose normal makes an angle of this cosine with the preferred axis; r = 1: no texture."""
    squared = cosine**2
    return (r**2 * squared + (1 - squared) / r) ** -1.5


def cosines(hkl: Tensor, cells: Tensor, axis: Tensor) -> Tensor:
    """Cosine between each reflection's normal and the normal of its preferred axis.

    hkl: of the reflections [R, 3]; cells: of their crystals, angstrom [R, 3, 3]; axis: hkl of the preferred plane
    [R, 3].
    """
    reciprocal = torch.linalg.inv(cells)  # columns  [R, 3, 3]
    normal, preferred = (torch.einsum("rdc,rc->rd", reciprocal, one.to(cells.dtype)) for one in (hkl, axis))
    return torch.nn.functional.cosine_similarity(normal, preferred, dim=1)


def sample_height(instrument: ConstantWavelength, x: Tensor, height: Tensor, radius: float) -> Tensor:
    """2 theta (degree) of a sample displaced by `height` from the centre of a circle of `radius` (one unit, Bragg-
    Brentano)."""
    return x - torch.rad2deg(2 * height * torch.cos(torch.deg2rad(x) / 2) / radius)


def highest_is_one(pattern: Tensor) -> Tensor:
    """Each pattern [n, P] divided by its maximum."""
    return pattern / pattern.amax(dim=1, keepdim=True).clamp(min=torch.finfo(pattern.dtype).tiny)


def minimum_to_maximum(pattern: Tensor) -> Tensor:
    """Each pattern [n, P] between 0 and 1."""
    low = pattern.amin(dim=1, keepdim=True)
    return highest_is_one(pattern - low)
