"""Crystals as voxels and back: by hand, in symmetry, and that what is read back is what was put in."""

import numpy as np
import pytest
import torch

from replimat.datasets.base import Structures
from replimat.errors import DataError
from replimat.representations.voxels import (
    MARGIN,
    NO_RADIUS,
    SPAN,
    Sites,
    VoxelSites,
    atoms_of,
    convexity,
    coordinates,
    crystal_of,
    edges_of,
    from_origin,
    ionic_radius,
    padded,
    regions,
    turned,
    voxelise,
)

CENTRE = (0.5, 0.5, 0.5)


def lone(z: int = 30, edge: float = 8.0, at=CENTRE, radius: float = 0.7) -> Sites:
    """One atom that is not moved to the origin, as a site of a larger crystal."""
    parts = torch.tensor([[at]]), torch.tensor([[z]]), torch.tensor([[radius]]), torch.full((1, 3), edge)
    return Sites(*parts)


def perovskite(a: float = 3.9) -> Structures:
    fractional = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    return Structures.pack([(np.array([56, 22, 8, 8, 8]), fractional * a, a * np.eye(3))], periodic=True)


# ---------------------------------------------------------------------- grid


def test_integral_of_a_lone_atom_is_its_atomic_number():
    voxels, _ = voxelise(lone(), 48)
    assert float(voxels[0, 0].sum()) * (8.0 * SPAN / 48) ** 3 == pytest.approx(30, rel=1e-4)


def test_density_of_one_voxel_by_hand():
    voxels, _ = voxelise(lone(edge=4.0, radius=0.9), 6)  # voxels of 1 angstrom, the atom on the corner of eight
    wanted = 30 / (0.9**3 * (2 * np.pi) ** 1.5) * np.exp(-0.75 / (2 * 0.9**2))
    assert float(voxels[0, 0, 3, 3, 2]) == pytest.approx(wanted, rel=1e-5)


def test_density_of_two_atoms_is_the_sum():
    one, other = lone(at=(0.25, 0.5, 0.5)), lone(z=8, at=(0.75, 0.5, 0.5), radius=1.2)
    both = Sites(*(torch.cat(parts, dim=1) for parts in zip(one[:3], other[:3], strict=True)), one.edges)
    torch.testing.assert_close(voxelise(both, 12)[0][:, 0], voxelise(one, 12)[0][:, 0] + voxelise(other, 12)[0][:, 0])


def test_density_of_a_cube_has_its_symmetry():
    density = voxelise(padded(VoxelSites()(perovskite())), 20)[0][0, 0]
    for axes in ((1, 0, 2), (2, 1, 0), (0, 2, 1)):
        torch.testing.assert_close(density.permute(axes), density)


def test_sites_are_those_of_one_cell_in_a_margin_without_images():
    density = voxelise(lone(at=(0.0, 0.0, 0.0)), 24)[0][0, 0]
    near, far = density[4, 4, 4], density[20, 20, 20]  # at 0 and at 1 along every axis
    assert float(near) > 1 and float(far) < 1e-6


def test_padding_adds_nothing():
    small, large = lone(), padded(VoxelSites()(perovskite()))
    wide = Sites(
        *(
            torch.cat([part, fill], dim=1)
            for part, fill in zip(
                small[:3], (torch.rand(1, 3, 3), torch.zeros(1, 3).long(), torch.ones(1, 3)), strict=True
            )
        ),
        small.edges,
    )
    for ours, wanted in zip(voxelise(wide, 10), voxelise(small, 10), strict=True):
        torch.testing.assert_close(ours, wanted)
    assert large.z.tolist() == [[56, 22, 8, 8, 8]]


def test_species_fill_a_ball_of_the_radius():
    _, species = voxelise(lone(radius=2.0), 48)
    volume = int((species == 30).sum()) * (8.0 * SPAN / 48) ** 3
    assert volume == pytest.approx(4 / 3 * np.pi * 8, rel=0.05) and set(species.unique().tolist()) == {0, 30}


def test_a_voxel_within_two_radii_goes_to_the_nearer_site():
    one, other = lone(at=(0.25, 0.5, 0.5), radius=4.0), lone(z=8, at=(0.75, 0.5, 0.5), radius=4.0)
    both = Sites(*(torch.cat(parts, dim=1) for parts in zip(one[:3], other[:3], strict=True)), one.edges)
    line = voxelise(both, 12)[1][0, :, 6, 6]
    assert line[3:6].tolist() == [30, 30, 30] and line[6:9].tolist() == [8, 8, 8]


def test_turns_keep_what_there_is():
    voxels, species = voxelise(padded(VoxelSites()(perovskite())), 8)
    torch.manual_seed(3)
    for ours, wanted in zip(turned(voxels, species), (voxels, species), strict=True):
        torch.testing.assert_close(ours.flatten().sort().values, wanted.flatten().sort().values)
    assert edges_of(turned(voxels, species)[0][0, 1:].numpy()) == pytest.approx([3.9, 3.9, 3.9], rel=1e-5)


# --------------------------------------------------------------------- sites


def test_ionic_radii():
    assert ionic_radius(8) == pytest.approx(1.26) and ionic_radius(26) == pytest.approx(0.8525)
    assert ionic_radius(2) == NO_RADIUS  # helium has none


def test_moved_to_the_origin():
    inside = from_origin(np.array([[1.25, 0.5, 0.9999999999], [-0.25, 0.75, 0.25]]))
    assert inside == pytest.approx(np.array([[0.0, 0.0, 0.0], [0.5, 0.25, 0.25]]), abs=1e-5)


def test_skew_cells_are_refused():
    cell = np.array([[4.0, 0, 0], [0.5, 4.0, 0], [0, 0, 4.0]])
    with pytest.raises(DataError, match="right angles"):
        VoxelSites()(Structures.pack([(np.array([3]), np.zeros((1, 3)), cell)], periodic=True))


# ---------------------------------------------------------------------- back


def test_edges_are_read_back():
    edges = torch.tensor([[3.0, 4.5, 7.0]])
    assert edges_of(coordinates(edges, 12)[0].numpy()) == pytest.approx([3.0, 4.5, 7.0], rel=1e-5)


@pytest.mark.parametrize("grid", [12, 16, 32])
def test_a_perovskite_comes_back(grid):
    voxels, species = (part[0].numpy() for part in voxelise(padded(VoxelSites()(perovskite(4.2))), grid))
    z, positions, cell = crystal_of(voxels, (species > 0).astype(float), species)
    assert sorted(z.tolist()) == [8, 8, 8, 22, 56] and np.diag(cell) == pytest.approx([4.2] * 3, rel=1e-5)
    titanium = positions[list(z).index(22)]
    assert titanium == pytest.approx([2.1] * 3, abs=4.2 * SPAN / grid / 2)


def test_two_touching_balls_are_divided():
    axis = np.arange(20)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    balls = [(x - at) ** 2 + (y - 10) ** 2 + (z - 10) ** 2 <= 16 for at in (6, 14)]
    found = regions(balls[0] | balls[1])
    assert len(found) == 2 and sorted(round(one[:, 0].mean()) for one in found) == [6, 14]
    assert len(regions(balls[0])) == 1


def test_convexity_of_a_cube_and_of_a_corner():
    cube = np.ones((4, 4, 4), dtype=bool)
    assert convexity(cube) == 1.0
    corner = np.zeros((9, 9, 9), dtype=bool)
    corner[0], corner[:, 0], corner[:, :, 0] = True, True, True
    assert convexity(corner) < 0.5


def test_crumbs_are_no_atoms():
    there = np.zeros((32, 32, 32), dtype=bool)
    there[3, 3, 3:6] = True  # three voxels, one less than the authors ask for
    assert regions(there) == []
    there[3, 4, 3] = True
    assert len(regions(there)) == 1


def test_element_of_an_atom_is_that_of_most_of_its_voxels_and_none_is_no_vote():
    there = np.zeros((8, 8, 8), dtype=bool)
    there[2:5, 2:5, 2:5] = True
    species = np.zeros((8, 8, 8), dtype=int)
    species[2, 2, 2:5], species[3, 3, 2:4] = 14, 26
    z, centres = atoms_of(there, species, np.ones((8, 8, 8)))
    assert z.tolist() == [14] and centres == pytest.approx(np.array([[3.0, 3.0, 3.0]]))
    assert len(atoms_of(there, np.zeros_like(species), np.ones((8, 8, 8)))[0]) == 0


def test_no_atoms_and_no_cell_are_said():
    voxels, species = (part[0].numpy() for part in voxelise(lone(), 8))
    with pytest.raises(DataError, match="no atoms"):
        crystal_of(voxels, np.zeros((8, 8, 8)), species)
    with pytest.raises(DataError, match="no cell"):
        crystal_of(np.zeros((4, 8, 8, 8)), np.ones((8, 8, 8)), species)


def test_the_box_is_the_cell_and_its_margins():
    assert SPAN == 1 + 2 * MARGIN
