"""Structure factors of many crystals: every reflection a powder shows, with its intensity before geometry.

    F(hkl) = sum_j o_j f_j(s) exp(2 pi i (h x_j + k y_j + l z_j)),   s = sin(theta) / lambda = 1 / (2 d)

over the atoms j of the cell with occupancy o_j. For X-rays f_j(s) = Z - 41.78214 s^2 sum_k a_k exp(-b_k s^2), for
neutrons f_j is the bound coherent scattering length. Tables of both are pymatgen's. Anomalous dispersion and absorption
are left out, so |F(hkl)| = |F(-hkl)| and half of reciprocal space is enough.

The exponential is a product of three, exp(2 pi i h x) exp(2 pi i k y) exp(2 pi i l z), each from a small table, so the
hot loop is one complex matrix product per crystal and element over the box of indices, and takes no sine.
"""

from functools import cache
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from replimat.datasets.base import Structures
from replimat.errors import DataError

Radiation = Literal["xray", "neutron"]
SAME_SPACING = 1e-6  # relative: reflections whose 1/d differ by less are one peak (1e-4 degree at the most)
PLACES_AT_ONCE = 1 << 16  # places of index boxes in a chunk of crystals: small enough to stay in the processor's cache
PHASES_AT_ONCE = 1 << 22  # complex numbers in one product of tables: bounds memory to 64 MB


class Reflections(NamedTuple):
    """Reflections of n crystals packed end to end, by falling d in each.

    d: spacing, angstrom [R]; intensity: |F|^2 of all equivalent or overlapping hkl together, electrons^2 or fm^2 [R];
    hkl: one of them [R, 3]; offsets [n + 1].
    """

    d: Tensor
    intensity: Tensor
    hkl: Tensor
    offsets: Tensor


def reflections(
    structures: Structures,
    d_min: float,
    radiation: Radiation = "xray",
    *,
    b_iso: dict[int, float] | None = None,
    equivalents: bool = False,
    device: str = "cpu",
) -> Reflections:
    """All reflections with d >= d_min (angstrom) of each crystal.

    b_iso: Debye-Waller B by atomic number, angstrom^2; equivalents: keep hkl of one spacing apart, each with the |F|^2
    of itself and its opposite. Raises DataError for an element without scattering factors, or for no crystal.
    """
    if not structures.periodic or (np.abs(np.linalg.det(structures.cells)) < 1e-6).any():
        raise DataError("Only crystals diffract: a structure here has no cell, or a flat one.")
    form_factor_table(radiation, tuple(np.unique(structures.numbers).tolist()))  # refuses an unknown element at once
    found = []
    for rows in _chunks(structures, d_min):
        part = _chunk(structures.take(rows), d_min, radiation, b_iso or {}, device)
        found.append(part if equivalents else merged(part))
    sizes = torch.cat([part.offsets.diff() for part in found])
    offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    return Reflections(*(torch.cat([part[k] for part in found]) for k in range(3)), offsets)


def merged(found: Reflections) -> Reflections:
    """Reflections of one spacing as one, their intensities added."""
    sizes = found.offsets.diff()
    owner = torch.repeat_interleave(torch.arange(len(sizes), device=found.d.device), sizes)
    new = torch.ones(len(found.d), dtype=torch.bool, device=found.d.device)
    new[1:] = (found.d[:-1] - found.d[1:] > SAME_SPACING * found.d[:-1]) | (owner[1:] != owner[:-1])
    peak = new.cumsum(0) - 1
    intensity = found.intensity.new_zeros(int(new.sum())).index_add(0, peak, found.intensity)
    counts = torch.bincount(owner[new], minlength=len(sizes))
    return Reflections(found.d[new], intensity, found.hkl[new], torch.cat([counts.new_zeros(1), counts.cumsum(0)]))


def form_factor(table: Tensor, element: Tensor, s2: Tensor) -> Tensor:
    """Scattering of atoms at s^2 = 1 / (4 d^2), 1/angstrom^2: electrons, or fm for neutrons [P].

    table: of form_factor_table [E, 9]; element: row of it [P].
    """
    constant, a, b = table[:, 0], table[:, 1:5], table[:, 5:]
    decay = b[element].mul_(-s2[:, None]).exp_()  # [P, 4], in place: memory is what this costs
    return constant[element] - 41.78214 * s2 * torch.linalg.vecdot(a[element], decay)


@cache
def form_factor_table(radiation: Radiation, elements: tuple[int, ...]) -> Tensor:
    """Value at s = 0, a_1..4 and b_1..4 of each element, by atomic number [E, 9]; for neutrons a = b = 0.

    Raises DataError for an element without scattering factors.
    """
    from ase.data import chemical_symbols
    from pymatgen.analysis.diffraction.neutron import ATOMIC_SCATTERING_LEN
    from pymatgen.analysis.diffraction.xrd import ATOMIC_SCATTERING_PARAMS

    source = ATOMIC_SCATTERING_PARAMS if radiation == "xray" else ATOMIC_SCATTERING_LEN
    table = torch.zeros(len(elements), 9, dtype=torch.float64)
    for row, number in enumerate(elements):
        if chemical_symbols[number] not in source:
            raise DataError(f"No {radiation} scattering factor for {chemical_symbols[number]}.")
        value = torch.as_tensor(source[chemical_symbols[number]], dtype=torch.float64)
        table[row, 0] = number if radiation == "xray" else value
        if radiation == "xray":
            table[row, 1:] = value.T.flatten()
    return table


# ------------------------------------------------------------------ a chunk


def _chunks(structures: Structures, d_min: float) -> list[np.ndarray]:
    """Rows that are taken together."""
    boxes = _boxes(structures.cells, d_min)
    places = (boxes[:, 0] + 1) * (2 * boxes[:, 1] + 1) * (2 * boxes[:, 2] + 1)
    return np.split(np.arange(len(structures)), np.flatnonzero(np.diff(places.cumsum() // PLACES_AT_ONCE)) + 1)


def _boxes(cells: np.ndarray, d_min: float) -> np.ndarray:
    """Largest |h|, |k|, |l| with spacing d_min: |h| = |a . g| <= |a| / d_min  [n, 3]."""
    return (np.linalg.norm(cells, axis=2) / d_min).astype(int)


def _chunk(crystals: Structures, d_min: float, radiation: Radiation, b_iso: dict, device: str) -> Reflections:
    """Reflections of all crystals, hkl of one spacing apart."""
    on = {"dtype": torch.float64, "device": device}
    inverse = np.linalg.inv(crystals.cells)  # columns are reciprocal vectors, 1/angstrom  [n, 3, 3]
    order, elements, groups = _groups(crystals)
    fractional = np.einsum("nc,ncd->nd", crystals.positions, np.repeat(inverse, crystals.sizes, axis=0))[order]
    occupancy = np.ones(len(order)) if crystals.occupancies is None else crystals.occupancies[order]
    x, occupancy = torch.as_tensor(fractional, **on), torch.as_tensor(occupancy, **on)
    hkl, length, phases = [], [], []
    for row, box in enumerate(_boxes(crystals.cells, d_min)):
        place, *found = _half_sphere(inverse[row].T @ inverse[row], box, d_min)
        hkl.append(found[0])
        length.append(found[1])
        atoms = slice(*crystals.offsets[row : row + 2])
        phases += _phases(x[atoms], occupancy[atoms], box, groups[row], torch.as_tensor(place, device=device))
    counts = np.array([len(one) for one in length])
    reflection, element = (torch.as_tensor(one, device=device) for one in _pairs(counts, groups))
    length = torch.as_tensor(np.concatenate(length), device=device)
    s2 = (length / 2) ** 2
    scattering = form_factor(form_factor_table(radiation, elements).to(device), element, s2[reflection])
    if b_iso:
        b = torch.as_tensor([b_iso.get(number, 0.0) for number in elements], **on)
        scattering = scattering * torch.exp(-b[element] * s2[reflection])
    factor = torch.zeros(len(length), dtype=torch.complex128, device=device)
    factor.index_add_(0, reflection, scattering * torch.cat(phases))
    intensity = 2 * (factor.real**2 + factor.imag**2)  # twice: with the opposite half
    return _sorted(counts, length, intensity, torch.as_tensor(np.concatenate(hkl), device=device))


def _half_sphere(metric: np.ndarray, box: np.ndarray, d_min: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Half of all hkl with d >= d_min: their places in the box [R], hkl [R, 3] and 1/d [R].

    metric: of reciprocal space, 1/angstrom^2 [3, 3]; box: largest |h|, |k|, |l|; the box runs over h >= 0, l fastest.
    """
    top = [int(reach) for reach in box]
    h = np.arange(top[0] + 1.0)[:, None, None]
    k, l = np.arange(-top[1], top[1] + 1.0)[:, None], np.arange(-top[2], top[2] + 1.0)  # noqa: E741
    in_plane = k * (k * metric[1, 1] + (2 * metric[1, 2]) * l) + metric[2, 2] * (l * l)
    squared = h * (h * metric[0, 0] + (2 * metric[0, 1]) * k + (2 * metric[0, 2]) * l) + in_plane  # 1/d^2
    inside = squared <= 1 / d_min**2
    inside[0, : top[1]] = False
    inside[0, top[1], : top[2] + 1] = False
    place = np.flatnonzero(inside)
    rest, last = np.divmod(place, inside.shape[2])
    first, middle = np.divmod(rest, inside.shape[1])
    hkl = np.stack([first, middle - top[1], last - top[2]], axis=1)
    return place, hkl, np.sqrt(squared.ravel()[place])


def _groups(crystals: Structures) -> tuple[np.ndarray, tuple[int, ...], list[list[tuple[int, int]]]]:
    """Atoms in an order that puts those of one element together in their crystal [N]; the elements by atomic number;
    and of each crystal, in that order, (element, number of atoms).
    """
    elements, kind = np.unique(crystals.numbers, return_inverse=True)
    owner = np.repeat(np.arange(len(crystals)), crystals.sizes)
    order = np.lexsort((kind, owner))
    groups, counts = np.unique(owner * len(elements) + kind, return_counts=True)
    of_crystal = [[] for _ in range(len(crystals))]
    for group, count in zip(groups.tolist(), counts.tolist(), strict=True):
        of_crystal[group // len(elements)].append((group % len(elements), count))
    return order, tuple(elements.tolist()), of_crystal


def _phases(
    x: Tensor, occupancy: Tensor, box: np.ndarray, groups: list[tuple[int, int]], place: Tensor
) -> list[Tensor]:
    """sum_j o_j exp(2 pi i hkl . x_j) over the atoms of each element, at the given places of the box [E][R].

    x: fractional [A, 3], atoms of one element together.
    """
    h, k, l = _turns(x, box)  # noqa: E741
    h = h * occupancy
    at_once = max(1, PHASES_AT_ONCE // k.numel())
    sizes = [count for _, count in groups]
    columns = torch.split(l, sizes, dim=1)
    layers = []  # of the box, for each element
    for start in range(0, len(h), at_once):
        sheet = (h[start : start + at_once, None] * k).flatten(0, 1)  # [hk, A]
        layers.append([one @ other.T for one, other in zip(torch.split(sheet, sizes, dim=1), columns, strict=True)])
    if len(layers) == 1:
        return [one.flatten()[place] for one in layers[0]]
    return [torch.cat(parts).flatten()[place] for parts in zip(*layers, strict=True)]


def _turns(x: Tensor, box: np.ndarray) -> tuple[Tensor, ...]:
    """exp(2 pi i n x) along each axis: n = 0 ... H [H + 1, A], -K ... K [2 K + 1, A], -L ... L [2 L + 1, A].

    All three in one table: for small crystals the number of calls is what they cost.
    """
    first, second, third = (int(reach) for reach in box)
    n = np.concatenate([np.arange(first + 1), np.arange(-second, second + 1), np.arange(-third, third + 1)])
    sizes = [first + 1, 2 * second + 1, 2 * third + 1]
    along = x.T[np.repeat([0, 1, 2], sizes)]  # coordinate that each n multiplies  [H + 1 + 2 K + 1 + 2 L + 1, A]
    angle = along * torch.as_tensor(2 * np.pi * n, dtype=x.dtype, device=x.device)[:, None]
    return torch.split(torch.complex(angle.cos(), angle.sin()), sizes)


def _pairs(counts: np.ndarray, groups: list[list[tuple[int, int]]]) -> tuple[np.ndarray, np.ndarray]:
    """Every reflection with every element of its crystal, crystal by crystal and element by element: [P], [P]."""
    several = np.array([len(kinds) for kinds in groups])
    sizes = np.repeat(counts, several)  # reflections of each pair of crystal and element
    first = np.repeat(np.cumsum(counts) - counts, several)
    reflection = np.arange(sizes.sum()) + np.repeat(first - (np.cumsum(sizes) - sizes), sizes)
    return reflection, np.repeat([element for kinds in groups for element, _ in kinds], sizes)


def _sorted(counts: np.ndarray, length: Tensor, intensity: Tensor, hkl: Tensor) -> Reflections:
    """By falling d in each crystal."""
    order = torch.cat(
        [
            start + torch.argsort(part, stable=True)
            for start, part in zip(
                (np.cumsum(counts) - counts).tolist(), torch.split(length, counts.tolist()), strict=True
            )
        ]
    )
    offsets = torch.as_tensor(np.concatenate([[0], counts.cumsum()]), device=length.device)
    return Reflections(1 / length[order], intensity[order], hkl[order], offsets)
