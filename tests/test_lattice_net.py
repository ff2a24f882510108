"""Lattice lengths from patterns: size of the network, symmetry, the five modifications, search, measured patterns."""

import numpy as np
import pytest
import torch

from replimat.datasets.amcsd import cell_matrix
from replimat.errors import DataError
from replimat.evaluation.search_volume import search_volume
from replimat.experiments.lattice_net import INSTRUMENT, at_copper, hexagonal_axes
from replimat.models.lattice_net import LatticeNet, by_symmetry, free_lengths
from replimat.representations.modifications import NONE, Modifications, broadened, modify, rescaled, shifted
from replimat.training.relative import RelativeTask
from replimat.training.settings import Training


def test_the_network_has_the_size_of_the_released_ones():
    """78,248 parameters with the first pool, 198,248 without: counted in the files of the repository."""
    count = lambda pool: sum(weights.numel() for weights in LatticeNet(pool=pool).parameters())  # noqa: E731
    assert count(3) == 78_248 and count(1) == 198_248


def test_patterns_that_are_too_short_are_refused():
    with pytest.raises(ValueError, match="too short"):
        LatticeNet(points=60)


def test_an_untrained_network_starts_near_the_mean():
    network = LatticeNet(centre=torch.tensor([3.0, 4.0, 5.0]), spread=torch.tensor([1e-6] * 3))
    assert network(torch.rand(2, 9000)).tolist() == [pytest.approx([3, 4, 5], abs=1e-3)] * 2


def test_symmetry_makes_lengths_equal():
    lengths = np.array([[5.0, 3.0, 4.0]])
    assert by_symmetry(lengths, "cubic").tolist() == [[4, 4, 4]]
    assert by_symmetry(lengths, "monoclinic").tolist() == [[3, 4, 5]]
    near_top, near_bottom = np.array([[3.0, 5.0, 5.2]]), np.array([[3.0, 3.2, 9.0]])
    assert by_symmetry(near_top, "tetragonal").tolist() == [
        pytest.approx([3, 5.1, 5.1])
    ]  # the authors' rule fails here
    assert by_symmetry(near_bottom, "hexagonal").tolist() == [pytest.approx([3.1, 3.1, 9])]
    assert free_lengths(near_top, "trigonal").tolist() == [pytest.approx([3, 5.1])]
    assert free_lengths(lengths, "cubic").tolist() == [[4]]


def test_rhombohedral_cells_on_hexagonal_axes():
    """Calcite (a 6.375 angstrom, alpha 46.08 degree) is a 4.990, c 17.06 on hexagonal axes; volumes are as 1 to 3."""
    edges, alpha = np.array([[6.375] * 3, [4.9, 4.9, 5.4]]), np.array([46.08, 90.0])
    found = hexagonal_axes(edges, alpha)
    assert found[0] == pytest.approx([4.990, 4.990, 17.06], abs=0.01) and found[1].tolist() == [4.9, 4.9, 5.4]
    small = abs(np.linalg.det(cell_matrix(*edges[0], *[46.08] * 3)))
    assert abs(np.linalg.det(cell_matrix(*found[0], 90, 90, 120))) == pytest.approx(3 * small)


# ------------------------------------------------------------- modifications


def spike(at: int, points: int = 9000) -> torch.Tensor:
    return torch.zeros(1, points).index_fill_(1, torch.tensor([at]), 1.0)


def test_shifts_and_blocks_by_hand():
    assert shifted(torch.tensor([[1.0, 2, 3, 4]] * 2), torch.tensor([1, -2])).tolist() == [[0, 1, 2, 3], [3, 4, 0, 0]]
    assert rescaled(torch.ones(1, 4), torch.tensor([[2.0, 3.0]])).tolist() == [[2, 2, 3, 3]]
    with pytest.raises(ValueError, match="not 3 equal blocks"):
        rescaled(torch.ones(1, 4), torch.ones(1, 3))


def test_broadening_is_a_gaussian_of_that_width_and_keeps_the_area():
    found = broadened(spike(4000), torch.tensor([4.0]))[0].double()
    x = torch.arange(9000, dtype=torch.float64) - 4000
    assert found.sum().item() == pytest.approx(1, abs=1e-5)
    assert ((found * x**2).sum() / found.sum()).sqrt().item() == pytest.approx(4.0, rel=1e-2)
    at_the_end = broadened(spike(8999), torch.tensor([5.0]))[0]
    assert at_the_end[:100].abs().max() < 1e-6  # nothing comes round


def test_without_modifications_nothing_changes():
    pattern = torch.rand(3, 9000)
    pattern = (pattern - pattern.amin(1, keepdim=True)) / (
        pattern.amax(1, keepdim=True) - pattern.amin(1, keepdim=True)
    )
    torch.testing.assert_close(modify(pattern, pattern, NONE), pattern)


def test_modified_patterns_lie_between_0_and_1_and_repeat_with_their_seed():
    pattern, others = spike(3000).repeat(8, 1), spike(6000)
    made = [modify(pattern, others, Modifications(), torch.Generator().manual_seed(k)) for k in (1, 1, 2)]
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
    assert made[0].min() >= 0 and made[0].max() <= 1 + 1e-6
    moved = made[0].argmax(dim=1) - 3000
    assert moved.abs().max() <= 7 + 3 and len(moved.unique()) > 1


def test_impurities_have_the_asked_share():
    how = Modifications(shift=0, intensity=0, impurities=1, noise=0, broadening=0)
    added = modify(spike(3000).repeat(200, 1), spike(6000), how)[:, 6000]
    assert 0.05 <= added.min() < added.max() <= 0.1


# ------------------------------------------------------------------ the search


def test_the_reduction_is_a_geometric_mean_and_counts_what_is_lost():
    found = search_volume(np.ones(3), np.array([0.1, 0.001, np.nan]))
    assert found["reduction"] == pytest.approx(100) and found["evaluated"] == 2 and found["failed"] == 1
    with pytest.raises(DataError, match="must be positive"):
        search_volume(np.ones(2), np.array([0.0, 0.5]))


def test_the_relative_task_trains_on_the_ratio():
    task = RelativeTask(torch.nn.Identity(), Training(1, 1, 1e-3, loss="mae"), 1.0)
    ratio, loss = task._ratio(({"input": torch.tensor([2.0, 3.0])}, torch.tensor([4.0, 2.0])))
    assert ratio.tolist() == [0.5, 1.5] and loss.item() == pytest.approx(0.5)


def test_a_pattern_of_another_wavelength_lands_on_the_copper_axis():
    """A peak of d = 2 angstrom, recorded at 0.7295684 angstrom."""
    wavelength, axis = 0.7295684, np.arange(1.0, 50.0, 0.005)
    place = 2 * np.degrees(np.arcsin(wavelength / 4))
    found = at_copper(axis, 100 * np.exp(-(((axis - place) / 0.02) ** 2)), wavelength)
    expected = 2 * np.degrees(np.arcsin(INSTRUMENT.wavelength / 4))
    assert INSTRUMENT.axis().numpy()[found.argmax()] == pytest.approx(expected, abs=0.01)
    assert found.max() == 1 and len(found) == 9000
