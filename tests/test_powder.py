"""Powder reflections: by hand, by symmetry, and against pymatgen on 200 crystals."""

import numpy as np
import pytest
import torch

from replimat import datasets, sources
from replimat.datasets.base import Structures
from replimat.errors import DataError, SourceError
from replimat.representations.powder import PowderReflections, densities
from replimat.representations.structure_factors import form_factor, form_factor_table, reflections

WAVELENGTH = 1.54184
D_MIN = WAVELENGTH / 2 / np.sin(np.radians(90) / 2)
DROPPED = 1e-5  # pymatgen leaves peaks out that are weaker than this share of the strongest
UNKNOWN = [84, 85, 86, 87, 89, 94, 96, 97, 98]  # elements without a neutron length in pymatgen
SAME_ANGLE = 2e-4  # degree: peaks nearer than this are one (ours are merged within 1e-6 of d, pymatgen's within 1e-5)


def crystal(cell, numbers, fractional, occupancies=None) -> Structures:
    cell = np.asarray(cell, dtype=float) * (np.eye(3) if np.ndim(cell) == 0 else 1)
    one = Structures.pack([(np.array(numbers), np.asarray(fractional) @ cell, cell)], periodic=True)
    if occupancies is None:
        return one
    fields = {name: getattr(one, name) for name in ("numbers", "positions", "cells", "offsets", "periodic")}
    return Structures(**fields, occupancies=np.array(occupancies, dtype=float))


FCC = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
HALITE = crystal(5.64, [11] * 4 + [17] * 4, FCC + [[x + 0.5, y, z] for x, y, z in FCC])
SKEWED = crystal(
    [[5.1, 0.3, -0.8], [1.2, 6.4, 0.5], [-0.7, 1.9, 7.3]], [22, 8, 8, 38], np.random.default_rng(0).random((4, 3))
)


def test_halite_shows_the_reflections_of_an_fcc_lattice_and_no_others():
    found = reflections(HALITE, D_MIN, equivalents=True)
    bright = found.hkl[found.intensity > 1e-9 * found.intensity.max()] % 2
    assert (bright == bright[:, :1]).all()  # all even or all odd
    assert found.d[found.intensity.argmax()] == pytest.approx(5.64 / 2)  # (200)


def test_structure_factors_of_halite_by_hand():
    """F(111) = 4 (f_Na - f_Cl), F(200) = 4 (f_Na + f_Cl), with multiplicities 8 and 6."""
    found = reflections(HALITE, 2.0)
    for d, sign, multiplicity in ((5.64 / 3**0.5, -1, 8), (5.64 / 2, 1, 6)):
        s2 = torch.tensor([1 / (4 * d**2)], dtype=torch.float64)
        na, cl = (form_factor(form_factor_table("xray", (z,)), torch.tensor([0]), s2) for z in (11, 17))
        row = (found.d - d).abs().argmin()
        assert found.intensity[row] == pytest.approx(float(multiplicity * 16 * (na + sign * cl) ** 2), rel=1e-10)


def test_forward_scattering_counts_electrons():
    zero = torch.zeros(3, dtype=torch.float64)
    table = form_factor_table("xray", (1, 26, 92))
    assert form_factor(table, torch.arange(3), zero).tolist() == [1, 26, 92]


def test_neutrons_see_no_decay_and_know_negative_lengths():
    s2 = torch.tensor([0.0, 0.5], dtype=torch.float64)
    hydrogen = form_factor(form_factor_table("neutron", (1,)), torch.zeros(2, dtype=int), s2)
    assert hydrogen[0] == hydrogen[1] == pytest.approx(-3.739, abs=1e-3)  # fm


@pytest.mark.parametrize("radiation", ["xray", "neutron"])
def test_the_choice_of_origin_order_and_orientation_does_not_matter(radiation):
    z, x, cell = SKEWED[0]
    fractional = x @ np.linalg.inv(cell)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    order = [2, 0, 3, 1]
    other = crystal(cell @ turn, z[order], (fractional + np.array([0.1, 0.7, 0.3]))[order])
    for a, b in zip(reflections(SKEWED, 0.9, radiation)[:2], reflections(other, 0.9, radiation)[:2], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_a_supercell_diffracts_as_its_cell():
    z, x, cell = SKEWED[0]
    twice = crystal(
        cell * [[2], [1], [1]], np.tile(z, 2), np.concatenate([x, x + cell[0]]) @ np.linalg.inv(cell * [[2], [1], [1]])
    )
    small, large = reflections(SKEWED, 1.0), reflections(twice, 1.0)
    lit = large.intensity > 1e-9 * large.intensity.max()
    torch.testing.assert_close(large.d[lit], small.d, rtol=1e-9, atol=0)
    torch.testing.assert_close(large.intensity[lit], 4 * small.intensity, rtol=1e-6, atol=1e-6)


def test_two_half_atoms_on_a_site_are_their_mean():
    mixed = crystal(4.0, [26, 28], [[0, 0, 0], [0, 0, 0]], [0.5, 0.5])
    iron, nickel = (reflections(crystal(4.0, [z], [[0, 0, 0]]), 1.0).intensity.sqrt() for z in (26, 28))
    torch.testing.assert_close(reflections(mixed, 1.0).intensity.sqrt(), (iron + nickel) / 2)


def test_thermal_motion_of_one_element_dims_it():
    cold, warm = reflections(HALITE, 1.0), reflections(HALITE, 1.0, b_iso={11: 2.0, 17: 2.0})
    torch.testing.assert_close(warm.intensity, cold.intensity * torch.exp(-2 * 2.0 / (4 * cold.d**2)))


def test_many_crystals_give_what_each_gives_alone():
    several = Structures.pack([HALITE[0], SKEWED[0], HALITE[0]], periodic=True)
    found = reflections(several, 1.0)
    for row, one in enumerate((HALITE, SKEWED, HALITE)):
        own = slice(*found.offsets[row : row + 2].tolist())
        torch.testing.assert_close(found.intensity[own], reflections(one, 1.0).intensity)


def test_what_cannot_diffract_is_refused():
    with pytest.raises(DataError, match="No neutron scattering factor for Po"):
        reflections(crystal(3.4, [84], [[0, 0, 0]]), 1.0, "neutron")
    with pytest.raises(DataError, match="Only crystals diffract"):
        reflections(Structures.pack([(np.array([8]), np.zeros((1, 3)), np.zeros((3, 3)))], periodic=False), 1.0)


def test_density_of_halite():
    assert densities(HALITE, np.array([5.64**3])) == pytest.approx([2.164], abs=2e-3)  # g/cm^3


def test_prepared_reflections_keep_what_matters():
    arrays = PowderReflections(d_min=1.0, keep=1e-4)(HALITE)
    assert arrays["reflection_offsets"].tolist() == [0, len(arrays["d"])]
    assert (np.diff(arrays["d"]) < 0).all() and arrays["d"].min() >= 1.0
    all_of_them = reflections(HALITE, 1.0).intensity.sum() / 5.64**6
    assert arrays["intensity"].sum() == pytest.approx(float(all_of_them), rel=1e-3)
    apart = PowderReflections(d_min=1.0, equivalents=True, keep=0)(HALITE)
    assert len(apart["hkl"]) == len(apart["d"]) > len(arrays["d"])


# ------------------------------------------------------------- against pymatgen


def sample(name: str, count: int) -> Structures:
    try:
        data = datasets.load(name)
    except SourceError:
        sources.fetch(name)
        data = datasets.load(name)
    rows = np.random.default_rng(5).permutation(len(data))
    small = [
        row for row in rows if data.structures.sizes[row] <= 80 and not np.isin(data.structures[row][0], UNKNOWN).any()
    ]
    return data.structures.take(np.array(small[:count]))


UNKNOWN = [84, 85, 86, 87, 89, 94, 96, 97, 98]  # no neutron length in pymatgen


@pytest.mark.parametrize("name", ["mp_flla", "amcsd"])
@pytest.mark.parametrize("radiation", ["xray", "neutron"])
def test_positions_and_intensities_are_pymatgens(name, radiation):
    """100 crystals of the Materials Project and 100 minerals, many with partly occupied sites."""
    structures = sample(name, 100)
    found = reflections(structures, D_MIN, radiation)
    for row in range(len(structures)):
        own = slice(*found.offsets[row : row + 2].tolist())
        angle, height = with_geometry(found.d[own].numpy(), found.intensity[own].numpy(), radiation)
        theirs, their_height = pymatgen_pattern(structures, row, radiation)
        nearest = np.abs(theirs[:, None] - angle).argmin(axis=1)  # of our peaks, for each of theirs
        assert np.abs(theirs - angle[nearest]).max() < SAME_ANGLE
        together = np.bincount(nearest, their_height, minlength=len(angle))
        assert np.abs(together - height).max() < 3 * DROPPED * height.max()


def with_geometry(d, intensity, radiation):
    theta = np.arcsin(WAVELENGTH / 2 / d)
    factor = (1 + np.cos(2 * theta) ** 2) if radiation == "xray" else 1
    return np.degrees(2 * theta), intensity * factor / (np.sin(theta) ** 2 * np.cos(theta))


def pymatgen_pattern(structures: Structures, row: int, radiation: str):
    from pymatgen.analysis.diffraction.neutron import NDCalculator
    from pymatgen.analysis.diffraction.xrd import XRDCalculator
    from pymatgen.core import Element, Structure

    z, x, cell = structures[row]
    atoms = slice(*structures.offsets[row : row + 2])
    share = np.ones(len(z)) if structures.occupancies is None else np.minimum(structures.occupancies[atoms], 1.0)
    species = [{Element.from_Z(int(number)): part} for number, part in zip(z, share, strict=True)]
    calculator = (XRDCalculator if radiation == "xray" else NDCalculator)(WAVELENGTH)
    pattern = calculator.get_pattern(Structure(cell, species, x @ np.linalg.inv(cell)), scaled=False)
    return np.array(pattern.x), np.array(pattern.y)
