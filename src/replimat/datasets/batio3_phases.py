"""Simulated crystals of the four phases of BaTiO3: cubic Pm-3m, tetragonal P4mm, orthorhombic Amm2, rhombohedral R3m.

All in one setting, the pseudo-cubic cell of five atoms with barium at the origin, so that lengths and angles of the
phases compare: cubic (a), tetragonal (a, a, c), orthorhombic (a, b, b, alpha; the primitive cell of Amm2, whose axes
are a, b sqrt(2 - 2 cos alpha), b sqrt(2 + 2 cos alpha)), rhombohedral (a, alpha). An orthorhombic alpha above 90
degrees is the same lattice as its complement, so only those below are made: the polar axis is the longer diagonal.

The atoms sit at their measured displacements times a factor drawn for each crystal. "wide" crystals sweep the cell far
around BaTiO3; distortions are drawn evenly by their logarithm, because BaTiO3's own are a tenth of the largest.
"narrow" ones stay near BaTiO3 at any temperature between 150 and 445 K.

Displacements and cells: orthorhombic (190, 270 K) and rhombohedral (15, 130, 180 K) of G. H. Kwei et al., J. Phys.
Chem. 97, 2368 (1993), as the AMCSD has them (18583, 18588, 18591, 18592, 18596), all moved so that titanium goes up;
tetragonal displacements of J. Harada et al., Acta Cryst. A26, 336 (1970), recalled; tetragonal and cubic cells of the
CIFs beside XCA (P. M. Maffettone et al., 2021).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from replimat.cards import DatasetCard
from replimat.datasets.base import Dataset, Structures

PHASES = ("cubic", "tetragonal", "orthorhombic", "rhombohedral")
SPACE_GROUPS = (221, 99, 38, 160)
TRANSITIONS = (185.0, 280.0, 400.0)  # K: rhombohedral, orthorhombic, tetragonal, cubic
SWEEPS = ("wide", "narrow")
PER_PHASE = 4000  # crystals of each phase in each sweep
SEED = 20190

NUMBERS = np.array([56, 22, 8, 8, 8], dtype=np.int16)
IDEAL = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])  # fractional
DISPLACED = {  # fractional, of Ti and the three O
    "cubic": np.zeros((4, 3)),
    "tetragonal": np.array([[0, 0, 0.0135], [0, 0, -0.0150], [0, 0, -0.0150], [0, 0, -0.0250]]),
    "orthorhombic": np.array([[0, 0.0170, 0.0170], [0, -0.0110, -0.0110], [0, -0.0077, 0.0045], [0, 0.0045, -0.0077]]),
    "rhombohedral": np.array(
        [[0.0128] * 3, [-0.0193, -0.0109, -0.0109], [-0.0109, -0.0193, -0.0109], [-0.0109, -0.0109, -0.0193]]
    ),
}


@dataclass(frozen=True)
class Sweep:
    """Ranges: a of the cubic cell (angstrom), relative stretch of one length against the others, departure of an angle
    from 90 degrees, factor of the displacements. logarithmic: how stretch and angle are drawn; both_ways: they are
    taken with both signs.
    """

    length: tuple[float, float]
    stretch: tuple[float, float]
    shear: tuple[float, float]
    polar: tuple[float, float]
    logarithmic: bool
    both_ways: bool


RANGES = {
    "wide": Sweep((3.8, 4.2), (0.002, 0.05), (0.08, 4.0), (0.5, 1.5), True, True),
    "narrow": Sweep((3.98, 4.03), (0.003, 0.013), (0.06, 0.26), (0.5, 1.5), False, False),
}


def read(folder: Path, card: DatasetCard) -> Dataset:
    """All crystals; ids like wide-cubic-17. `phase` is the place in PHASES, `sweep` that in SWEEPS; the cell as a, b, c
    (angstrom), alpha, beta, gamma (degree).
    """
    names, phases, sweeps, cells, polar = [], [], [], [], []
    random = np.random.PCG64(SEED)
    for sweep, name in enumerate(SWEEPS):
        for phase, said in enumerate(PHASES):
            drawn, factor = draw_cells(said, RANGES[name], PER_PHASE, random)
            cells.append(drawn)
            polar.append(factor)
            phases.append(np.full(PER_PHASE, phase))
            sweeps.append(np.full(PER_PHASE, sweep))
            names += [f"{name}-{said}-{k}" for k in range(PER_PHASE)]
    cells, phases = np.concatenate(cells), np.concatenate(phases)
    targets = {"phase": phases, "sweep": np.concatenate(sweeps)} | dict(zip(CELL, cells.T, strict=True))
    return Dataset(
        name=card.name,
        ids=np.array(names),
        structures=crystals(phases, cells, np.concatenate(polar)),
        targets={target: values.astype(np.float64) for target, values in targets.items()},
        units={name: target.unit for name, target in card.targets.items()},
    )


CELL = ("a", "b", "c", "alpha", "beta", "gamma")


def draw_cells(phase: str, ranges: Sweep, n: int, random: np.random.PCG64) -> tuple[np.ndarray, np.ndarray]:
    """Cells (a, b, c in angstrom, alpha, beta, gamma in degree) [n, 6] and factors of the displacements [n]."""
    uniform = (random.random_raw(6 * n).reshape(6, n) >> np.uint64(11)) * 2.0**-53
    a = ranges.length[0] + uniform[0] * (ranges.length[1] - ranges.length[0])
    stretch = _distortion(uniform[1], uniform[2], ranges.stretch, ranges)
    shear = _distortion(uniform[3], uniform[4], ranges.shear, ranges)
    polar = ranges.polar[0] + uniform[5] * (ranges.polar[1] - ranges.polar[0])
    right = np.full(n, 90.0)
    return _cells(phase, a, a * (1 + stretch), right - shear), polar


def _distortion(size: np.ndarray, sign: np.ndarray, span: tuple[float, float], ranges: Sweep) -> np.ndarray:
    """A distortion in its range from uniform numbers [n]."""
    low, high = span
    drawn = low * (high / low) ** size if ranges.logarithmic else low + (high - low) * size
    return np.where(sign < 0.5, -drawn, drawn) if ranges.both_ways else drawn


def _cells(phase: str, a: np.ndarray, other: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Cells of a phase from a, its other length (angstrom) and its angle (degree) [n], as far as it has them [n, 6]."""
    right = np.full(len(a), 90.0)
    cells = {
        "cubic": (a, a, a, right, right, right),
        "tetragonal": (a, a, other, right, right, right),
        "orthorhombic": (a, other, other, np.minimum(alpha, 180 - alpha), right, right),
        "rhombohedral": (a, a, a, alpha, alpha, alpha),
    }
    return np.stack(cells[phase], axis=1)


def crystals(phases: np.ndarray, cells: np.ndarray, polar: np.ndarray) -> Structures:
    """Crystals of the given phases (place in PHASES) [n], cells [n, 6] and factors of the displacements [n]."""
    moved = np.stack([np.vstack([np.zeros(3), DISPLACED[name]]) for name in PHASES])  # [4, 5, 3]
    fractional = IDEAL + moved[phases] * polar[:, None, None]  # [n, 5, 3]
    vectors = cell_vectors(cells)
    return Structures(
        numbers=np.tile(NUMBERS, len(phases)),
        positions=(fractional @ vectors).reshape(-1, 3),
        cells=vectors,
        offsets=np.arange(len(phases) + 1, dtype=np.int64) * len(NUMBERS),
        periodic=True,
    )


def cell_vectors(cells: np.ndarray) -> np.ndarray:
    """Lattice vectors as rows, angstrom [n, 3, 3], c along z; cells: lengths (angstrom) and angles (degree) [n, 6]."""
    a, b, c = cells[:, :3].T
    cos_alpha, cos_beta, cos_gamma = np.cos(np.radians(cells[:, 3:])).T
    sin_alpha, sin_beta = np.sqrt(1 - cos_alpha**2), np.sqrt(1 - cos_beta**2)
    between = (cos_alpha * cos_beta - cos_gamma) / (sin_alpha * sin_beta)  # cosine of the reciprocal gamma
    zero = np.zeros(len(cells))
    rows = [
        [a * sin_beta, zero, a * cos_beta],
        [-b * sin_alpha * between, b * sin_alpha * np.sqrt(1 - between**2), b * cos_alpha],
        [zero, zero, c],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


# ------------------------------------------------------------------ against temperature


def phase_at(temperature: np.ndarray) -> np.ndarray:
    """Phase (place in PHASES) at temperatures in K [n], from the transitions of the literature."""
    return 3 - np.searchsorted(TRANSITIONS, temperature, side="right")


def cells_at(temperature: np.ndarray) -> np.ndarray:
    """Literature cell at temperatures in K [n]: lengths (angstrom) and angles (degree) [n, 6]. Rhombohedral and
    orthorhombic ones are interpolated; of the other two one cell each is known, without its temperature.
    """
    orthorhombic = [(3.9828, 5.6745, 5.6946), (3.9874, 5.6751, 5.6901)]  # of Amm2, angstrom, at 190 and 270 K
    first, second, third = (np.interp(temperature, (190, 270), values) for values in zip(*orthorhombic, strict=True))
    every = np.ones(len(temperature))
    known = {
        "cubic": (4.00919 * every, every, every),
        "tetragonal": (3.99818 * every, 4.02954 * every, every),
        "orthorhombic": (first, np.hypot(second, third) / 2, np.degrees(2 * np.arctan(second / third))),
        "rhombohedral": (
            np.interp(temperature, (130, 180), (4.00385, 4.0043)),
            every,
            np.interp(temperature, (130, 180), (89.843, 89.855)),
        ),
    }
    cells = np.stack([_cells(name, *known[name]) for name in PHASES])  # [4, n, 6]
    return cells[phase_at(temperature), np.arange(len(temperature))]
