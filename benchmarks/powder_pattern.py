"""Powder patterns of 1,000 crystals: ours against pymatgen's calculators.

    python benchmarks/powder_pattern.py [cpu | cuda]

Both give positions and intensities of all peaks up to 90 degrees of copper radiation; before they are timed, their sums
of intensities are compared. The patterns of 9,000 points that networks learn from are timed too: pymatgen has none, so
the peer there is its list of peaks under the same Gaussians, drawn peak by peak with numpy.
"""

import sys
import warnings
from functools import partial

import numpy as np
import torch
from common import OURS, keep, peer, rows, seconds

from replimat.datasets import load
from replimat.representations.powder import PowderReflections
from replimat.representations.powder_pattern import ConstantWavelength
from replimat.representations.simulation import Conditions, Powders, simulate_all
from replimat.representations.structure_factors import reflections

COPPER = ConstantWavelength(wavelength=1.54184, start=0.0, stop=90.0, points=9000)
D_MIN = COPPER.d_range[0]
SETS = {"1,000 of mp_flla": ("mp_flla", 1000), "1,000 of amcsd": ("amcsd", 1000)}
WIDTH = 0.01  # W, degree^2: a fwhm of 0.1 degree
RADIATION = {"xray": "X-ray", "neutron": "neutron"}
SHARE = 1e-3  # intensities of the two must agree to this share of the strongest peak


def main(device: str = "cpu") -> None:
    warnings.simplefilter("ignore")  # pymatgen on electronegativities
    torch.set_num_threads(1)
    keep([row for case, (name, count) in SETS.items() for row in measure(case, crystals(name, count), device)])


def measure(case: str, structures, device: str) -> list[dict]:
    """Milliseconds per crystal for peaks of both radiations, and for patterns."""
    case = f"{case}, {structures.sizes.mean():.0f} sites on average"
    theirs, new = in_pymatgen(structures), []
    for radiation, calculator in calculators().items():
        calls = {
            OURS: partial(reflections, structures, D_MIN, radiation, device=device),
            "pymatgen": partial(peaks, calculator, theirs),
        }
        check(calls[OURS](), calls["pymatgen"](), radiation)
        new += table(f"{RADIATION[radiation]} peaks, {case}", seconds(calls, repeats=2), len(structures))
    drawn = {OURS: partial(patterns, structures, device), "pymatgen and numpy": partial(draw_peaks, theirs)}
    return new + table(f"X-ray patterns of 9,000 points, {case}", seconds(drawn, repeats=2), len(structures))


def calculators() -> dict:
    """pymatgen's, by radiation."""
    xray, neutron = (peer(f"pymatgen.analysis.diffraction.{name}") for name in ("xrd", "neutron"))
    return {"xray": xray.XRDCalculator(COPPER.wavelength), "neutron": neutron.NDCalculator(COPPER.wavelength)}


def peaks(calculator, theirs: list) -> list:
    return [calculator.get_pattern(one, scaled=False) for one in theirs]


def table(case: str, times: dict[str, float], count: int) -> list[dict]:
    return rows("powder pattern", case, {name: 1e3 * value / count for name, value in times.items()}, "ms/crystal")


def crystals(name: str, count: int):
    """Crystals evenly taken whose elements both tables know."""
    data = load(name)
    known = [s for s in range(len(data)) if data.structures[s][0].max() < 84]
    return data.structures.take(np.array(known)[np.linspace(0, len(known) - 1, count).astype(int)])


def in_pymatgen(structures) -> list:
    """The same crystals as pymatgen's, sites with their occupancies; made before anything is timed."""
    from pymatgen.core import Element, Structure

    made = []
    for s in range(len(structures)):
        z, x, cell = structures[s]
        atoms = slice(*structures.offsets[s : s + 2])
        share = np.ones(len(z)) if structures.occupancies is None else structures.occupancies[atoms].clip(max=1)
        species = [{Element.from_Z(int(number)): part} for number, part in zip(z, share, strict=True)]
        made.append(Structure(cell, species, x @ np.linalg.inv(cell)))
    return made


def check(ours, theirs: list, radiation: str) -> None:
    """Raise unless the summed intensities of every crystal are the same."""
    theta = torch.asin(COPPER.wavelength / 2 / ours.d)
    geometry = (1 + torch.cos(2 * theta) ** 2 if radiation == "xray" else 1) / (
        torch.sin(theta) ** 2 * torch.cos(theta)
    )
    heights = (ours.intensity * geometry).cpu().numpy()
    totals = np.add.reduceat(heights, ours.offsets[:-1].cpu().numpy())
    others = np.array([pattern.y.sum() for pattern in theirs])
    if (worst := np.abs(totals / others - 1).max()) > SHARE:
        raise SystemExit(f"{radiation}: intensities differ by {worst:.1e}")


def draw_peaks(theirs: list) -> None:
    """Patterns drawn from pymatgen's peaks one after another, each within 12 half-widths as ours are."""
    axis, fwhm = np.linspace(COPPER.start, COPPER.stop, COPPER.points), WIDTH**0.5
    for found in peaks(calculators()["xray"], theirs):
        pattern = np.zeros(len(axis))
        for at, height in zip(found.x, found.y, strict=True):
            near = slice(*np.searchsorted(axis, [at - 6 * fwhm, at + 6 * fwhm]))
            pattern[near] += height * np.exp(-4 * np.log(2) * ((axis[near] - at) / fwhm) ** 2)


def patterns(structures, device: str) -> None:
    powders = Powders(PowderReflections(d_min=D_MIN)(structures), device)
    simulate_all(powders, np.arange(len(structures)), COPPER, Conditions(w=(WIDTH, WIDTH)), seed=0)


if __name__ == "__main__":
    main(*sys.argv[1:])
