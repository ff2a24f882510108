"""Powder patterns: peak shapes and geometry by hand, areas, mixtures, and that conditions are drawn as they say."""

import math

import numpy as np
import pytest
import torch

from replimat.representations.powder_pattern import (
    REACH,
    ConstantWavelength,
    PeakShape,
    TimeOfFlight,
    cosines,
    draw,
    highest_is_one,
    march_dollase,
    minimum_to_maximum,
    pseudo_voigt,
    sample_height,
    thompson_cox_hastings,
)
from replimat.representations.simulation import Conditions, Powders, simulate, simulate_all

COPPER = ConstantWavelength(wavelength=1.54056, start=5.0, stop=90.0, points=8501)
POWGEN = TimeOfFlight(difc=22585.0, d_start=0.5, d_stop=3.0, points=2000)
CUBES = {  # primitive cubic cells of 4 and 5 angstrom with a few made-up intensities
    "d": np.array([4.0, 4 / 2**0.5, 2.0, 5.0, 2.5], dtype=np.float32),
    "intensity": np.array([10.0, 4.0, 2.0, 8.0, 6.0], dtype=np.float32),
    "reflection_offsets": np.array([0, 3, 5]),
}
TEXTURED = CUBES | {
    "hkl": np.array([[1, 0, 0], [1, 1, 0], [2, 0, 0], [1, 0, 0], [2, 0, 0]], dtype=np.int16),
    "cells": np.stack([4.0 * np.eye(3), 5.0 * np.eye(3)]),
}


def test_bragg_and_lorentz_polarisation_by_hand():
    d = torch.tensor([1.54056], dtype=torch.float64)  # sin(theta) = 1/2, theta = 30 degree, 2 theta = 60
    assert COPPER.positions(d).item() == pytest.approx(60.0)
    assert COPPER.geometry(d).item() == pytest.approx((1 + 0.25) / 2 / (0.25 * math.sqrt(0.75)))
    flat = ConstantWavelength(1.54056, 5, 90, 11, polarised=False)
    assert flat.geometry(d).item() == pytest.approx(1 / (0.25 * math.sqrt(0.75)))
    behind = ConstantWavelength(1.54056, 5, 90, 11, monochromator=26.6)
    k = math.cos(math.radians(26.6)) ** 2
    assert behind.geometry(d).item() == pytest.approx((1 + 0.25 * k) / (1 + k) / (0.25 * math.sqrt(0.75)))


def test_caglioti_widths_by_hand():
    d = torch.tensor([1.54056], dtype=torch.float64)
    tan = math.tan(math.pi / 6)
    fwhm, share = COPPER.widths(d, PeakShape(u=0.05, v=-0.01, w=0.02))
    assert fwhm.item() == pytest.approx(math.sqrt(0.05 * tan**2 - 0.01 * tan + 0.02)) and share.item() == 0
    fwhm, share = COPPER.widths(d, PeakShape(w=0.0, x=0.1, y=0.2))
    assert fwhm.item() == pytest.approx(0.1 * tan + 0.2 / math.cos(math.pi / 6), rel=1e-3)
    assert share.item() == pytest.approx(1.0, abs=1e-3)


def test_time_of_flight():
    assert POWGEN.time(2.0) == pytest.approx(45170.0)
    d = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert POWGEN.geometry(d).tolist() == [1.0, 16.0]
    steps = POWGEN.axis(dtype=torch.float64).exp().log().diff()
    assert steps.max() - steps.min() < 1e-9  # constant dt/t
    assert POWGEN.positions(d).tolist() == pytest.approx([math.log(22585.0), math.log(45170.0)])


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_a_pseudo_voigt_has_unit_area_and_its_width(share):
    x = torch.linspace(-400, 400, 800_001, dtype=torch.float64)
    peak = pseudo_voigt(x, torch.tensor(0.8), torch.tensor(share))
    assert torch.trapezoid(peak, x).item() == pytest.approx(1.0, abs=1e-3)
    half = x[peak >= peak.max() / 2]
    assert (half[-1] - half[0]).item() == pytest.approx(0.8, abs=3e-3)


def test_the_pseudo_voigt_is_near_the_voigt_of_scipy():
    from scipy.special import voigt_profile

    gauss, lorentz = 0.3, 0.2
    x = np.linspace(-2, 2, 401)
    voigt = voigt_profile(x, gauss / math.sqrt(8 * math.log(2)), lorentz / 2)
    ours = pseudo_voigt(torch.from_numpy(x), *thompson_cox_hastings(torch.tensor(gauss), torch.tensor(lorentz), 0.0))
    assert np.abs(ours.numpy() - voigt).max() < 0.015 * voigt.max()  # what the approximation is good to


def test_drawn_peaks_have_their_area_and_place():
    fwhm, share = torch.tensor([0.2, 0.1], dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    x, area = torch.tensor([30.123, 60.5], dtype=torch.float64), torch.tensor([5.0, 3.0], dtype=torch.float64)
    pattern = draw(COPPER, x, area, fwhm, share, torch.tensor([0, 1]), 2)
    axis = COPPER.axis(dtype=torch.float64)
    assert (pattern.sum(dim=1) * COPPER.step).tolist() == pytest.approx(
        [5.0, 3.0 * 2 / math.pi * math.atan(REACH)], rel=1e-2
    )
    assert ((pattern[0] * axis).sum() / pattern[0].sum()).item() == pytest.approx(30.123, abs=1e-6)


def test_drawing_many_peaks_at_once_is_the_sum_of_drawing_each():
    generator = torch.Generator().manual_seed(0)
    rand = lambda low, high: low + (high - low) * torch.rand(300, dtype=torch.float64, generator=generator)  # noqa: E731
    peaks = (rand(0, 95), rand(0, 1), rand(0.02, 0.5), rand(0, 1))
    row = torch.randint(0, 3, (300,), generator=generator)
    together = draw(COPPER, *peaks, row, 3)
    single = torch.zeros_like(together)
    for k in range(300):
        single += draw(COPPER, *(value[k : k + 1] for value in peaks), row[k : k + 1], 3)
    torch.testing.assert_close(together, single)


def test_peaks_that_cannot_be_are_not_drawn():
    x = torch.tensor([float("nan"), 200.0, -50.0])
    assert (
        draw(COPPER, x, torch.ones(3), torch.full((3,), 0.1), torch.zeros(3), torch.zeros(3, dtype=int), 1).sum() == 0
    )


def test_texture_keeps_the_mean_over_the_sphere():
    """The integral of March's weight over all directions is that of a powder (Dollase 1986, eq. 3)."""
    cosine = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    for r in (0.3, 0.7, 1.0, 1.5):
        weight = march_dollase(cosine, torch.tensor(r, dtype=torch.float64))
        assert torch.trapezoid(weight, cosine).item() == pytest.approx(1.0, abs=1e-6)
    assert march_dollase(torch.tensor(1.0), torch.tensor(0.5)) > march_dollase(torch.tensor(0.0), torch.tensor(0.5))


def test_angles_between_planes_of_a_hexagonal_cell():
    cell = torch.tensor([[[3.0, 0, 0], [-1.5, 1.5 * 3**0.5, 0], [0, 0, 5.0]]], dtype=torch.float64)
    planes = torch.tensor([[1, 0, 0], [0, 0, 1]])
    along = torch.tensor([[0, 1, 0], [0, 0, 2]])
    assert cosines(planes, cell.expand(2, 3, 3), along).tolist() == pytest.approx([0.5, 1.0])


def test_a_displaced_sample_shifts_small_angles_more():
    x = torch.tensor([0.0, 90.0], dtype=torch.float64)
    moved = sample_height(COPPER, x, torch.tensor(1.0), 100.0)
    assert (x - moved).tolist() == pytest.approx([math.degrees(0.02), math.degrees(0.02 * math.cos(math.pi / 4))])


# --------------------------------------------------------------- conditions


def test_the_highest_point_is_one_and_peaks_lie_where_bragg_says():
    pattern = simulate(Powders(CUBES), torch.tensor([0, 1]), COPPER, Conditions(w=(0.01, 0.01)))
    assert pattern.shape == (2, 8501) and pattern.amax(dim=1).tolist() == [1.0, 1.0]
    top = COPPER.axis()[pattern.argmax(dim=1)]
    assert top.tolist() == pytest.approx(COPPER.positions(torch.tensor([4.0, 5.0])).tolist(), abs=COPPER.step)


def test_the_same_seed_gives_the_same_patterns_and_another_gives_others():
    conditions = Conditions(w=(0.01, 0.05), shift=(-0.1, 0.1), background=((0, 0.1),), hump=(0, 0.2), noise=(0, 0.02))
    powders, rows = Powders(CUBES), np.array([0, 1] * 50)
    first, again, other = (simulate_all(powders, rows, COPPER, conditions, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.equal(first[0], first[2])  # one crystal, measured twice


def test_conditions_reach_both_ends_of_their_range():
    rows = np.zeros(400, dtype=int)
    pattern = simulate_all(Powders(CUBES), rows, COPPER, Conditions(shift=(-0.3, 0.3)), 0)
    found = COPPER.axis()[pattern.argmax(dim=1)] - COPPER.positions(torch.tensor(4.0))
    assert found.min() < -0.28 and found.max() > 0.28 and abs(found.mean()) < 0.05


def test_strain_stretches_spacings():
    pattern = simulate(Powders(CUBES), torch.tensor([0]), COPPER, Conditions(strain=(0.01, 0.01)))
    expected = COPPER.positions(torch.tensor(4.04))
    assert COPPER.axis()[pattern.argmax()] == pytest.approx(float(expected), abs=COPPER.step)


def test_a_mixture_is_the_weighted_sum_of_its_phases():
    powders, rows = Powders(CUBES), torch.tensor([0, 1])
    weights = torch.tensor([0.3, 0.7])
    mixed = simulate(powders, rows, COPPER, Conditions(), weights=weights, pattern=torch.zeros(2, dtype=int))
    assert mixed.shape == (1, 8501)
    first, second = (COPPER.positions(torch.tensor(d)) for d in (4.0, 5.0))
    at = [int(((place - COPPER.start) / COPPER.step).round()) for place in (first, second)]
    ratio = mixed[0, at[0]] / mixed[0, at[1]]
    geometry = COPPER.geometry(torch.tensor([4.0, 5.0]))
    assert ratio.item() == pytest.approx(0.3 * 10 / (0.7 * 8) * float(geometry[0] / geometry[1]), rel=0.02)


def test_noise_has_the_asked_spread():
    quiet = simulate(Powders(CUBES), torch.tensor([0]), COPPER, Conditions())
    noisy = simulate(Powders(CUBES), torch.tensor([0]), COPPER, Conditions(noise=(0.05, 0.05)))
    assert (noisy - quiet).std().item() == pytest.approx(0.05, rel=0.05)


def test_texture_changes_intensities_and_needs_hkl():
    rows = np.zeros(20, dtype=int)
    plain = simulate_all(Powders(TEXTURED), rows, COPPER, Conditions(), 0)
    textured = simulate_all(Powders(TEXTURED), rows, COPPER, Conditions(march=(0.3, 0.5)), 0)
    assert (textured - plain).abs().max() > 0.1
    with pytest.raises(ValueError, match="equivalents=True"):
        simulate(Powders(CUBES), torch.tensor([0]), COPPER, Conditions(march=(0.5, 0.9)))


def test_scalings():
    pattern = torch.tensor([[1.0, 3.0, 5.0]])
    assert highest_is_one(pattern).tolist() == [[pytest.approx(0.2), pytest.approx(0.6), 1.0]]
    assert minimum_to_maximum(pattern).tolist() == [[0.0, 0.5, 1.0]]
