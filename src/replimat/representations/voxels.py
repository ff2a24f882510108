"""Crystals as densities on a grid, and back (Court et al., J. Chem. Inf. Model. 60, 4518 (2020)).

The cell, enlarged by MARGIN of its edges on every side, is cut into G^3 voxels. A site of atomic number Z and radius s
(the mean of its element's ionic radii) adds

    rho(x) = Z / (s^3 (2 pi)^(3/2)) exp(-|x - x_site|^2 / 2 s^2)

and owns the voxels whose centres lie within s of it. Three further channels hold the coordinates of the grid, from
which the edges of the cell are read back. As in the authors' code the sites are those of one cell, moved so that the
smallest coordinate along every axis is 0: no periodic images in the margin, which is there for the tails; and axes are
taken as orthogonal, which cubic cells are.

Back: connected regions of what a network calls an atom; a region that is not convex is eroded, and its voxels go to the
nearest of the cores that are left, again and again; its site is the centre of its density, its element that of most of
its voxels.

Differs from the authors' code: a voxel within the radii of several sites goes to the nearest of these, where theirs
goes to the nearest of all; a region is divided by distance to the cores, theirs by flooding; its centre is weighted by
density, which tells positions finer than a voxel; edges are read without the factor 1 - 1/G that theirs applies once
too often, which makes cells 3 % too small.
"""

from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from replimat.datasets.base import Structures
from replimat.errors import DataError
from replimat.representations.conversion import packed

MARGIN = 0.25  # of an edge, on either side
SPAN = 1 + 2 * MARGIN  # edge of the box over that of the cell
NO_RADIUS = 1.20  # angstrom, for elements without ionic radii
SQUARE = 1e-3  # largest cosine of an angle that counts as right
SEEN = 0.8  # probability above which a voxel is part of an atom
CONVEX = 0.8  # share of its convex hull that a region must fill to be one atom
TINY = 1e-6  # density, so that a region without any has a centre too
DIVISIONS = 5  # of a region, at most
LEAST = 3 / 32**3  # of the grid: smaller regions are no atoms
AXES = ((-3, -2), (-3, -1), (-2, -1))  # of right-angle turns


@dataclass(frozen=True)
class VoxelSites:
    """Sites with radii, from which `voxelise` makes grids of any size: the grids of a set would fill gigabytes."""

    version: ClassVar[int] = 1  # raise when the arrays change for the same parameters

    def parameters(self) -> dict:
        return {}

    def __call__(self, structures: Structures, progress: bool = True) -> dict[str, np.ndarray]:
        """The arrays of representations.conversion.packed, and `radius` of every site, angstrom [N]. Raises DataError
        for a cell without right angles.
        """
        edges = np.linalg.norm(structures.cells, axis=2)  # [n, 3]
        unit = structures.cells / edges[:, :, None]
        cosines = np.abs(unit @ unit.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
        if (cosines > SQUARE).any():
            raise DataError(f"Voxels need cells with right angles; crystal {int(cosines.argmax())} has others.")
        return packed(structures) | {"radius": np.array([ionic_radius(int(z)) for z in structures.numbers])}


@cache
def ionic_radius(z: int) -> float:
    """Mean of an element's ionic radii over its oxidation states as pymatgen knows them, angstrom."""
    from pymatgen.core import Element

    radii = [float(radius) for radius in Element.from_Z(z).ionic_radii.values()]
    return float(np.mean(radii)) if radii else NO_RADIUS


class Sites(NamedTuple):
    """A batch of B crystals of up to A sites each: fractional [B, A, 3], the smallest 0 along every axis; z and radius
    (angstrom) [B, A], 0 and 1 where there is no site; edges of the cells, angstrom [B, 3].
    """

    fractional: Tensor
    z: Tensor
    radius: Tensor
    edges: Tensor

    def take(self, rows: Tensor) -> "Sites":
        return Sites(*(part[rows] for part in self))

    def to(self, device: str) -> "Sites":
        return Sites(*(part.to(device) for part in self))


def padded(arrays: dict[str, np.ndarray]) -> Sites:
    """All crystals of the arrays of VoxelSites as one batch."""
    offsets, cells = np.asarray(arrays["offsets"]), np.asarray(arrays["cells"], dtype=np.float64)
    sizes = np.diff(offsets)
    n, most = len(sizes), int(sizes.max())
    fractional, z, radius = np.zeros((n, most, 3)), np.zeros((n, most), dtype=np.int64), np.ones((n, most))
    for s in range(n):
        rows = slice(offsets[s], offsets[s + 1])
        fractional[s, : sizes[s]] = from_origin(arrays["positions"][rows] @ np.linalg.inv(cells[s]))
        z[s, : sizes[s]], radius[s, : sizes[s]] = arrays["numbers"][rows], arrays["radius"][rows]
    edges = torch.as_tensor(np.linalg.norm(cells, axis=2), dtype=torch.float32)
    return Sites(torch.as_tensor(fractional).float(), torch.as_tensor(z), torch.as_tensor(radius).float(), edges)


def from_origin(fractional: np.ndarray) -> np.ndarray:
    """Coordinates [A, 3] in one cell, moved so that the smallest along every axis is 0."""
    inside = fractional - np.floor(fractional + 1e-6)  # what lies a rounding error below 1 is at 0
    return inside - inside.min(axis=0)


# ---------------------------------------------------------------- to a grid


def voxelise(sites: Sites, grid: int) -> tuple[Tensor, Tensor]:
    """Density and coordinates [B, 4, G, G, G], and the atomic number of the site each voxel belongs to, 0 for none
    [B, G, G, G].
    """
    axis = (torch.arange(grid, device=sites.edges.device) + 0.5) * SPAN / grid - MARGIN  # centres, of an edge  [G]
    from_site = axis - sites.fractional[..., None]  # [B, A, 3, G]
    squares = (from_site * sites.edges[:, None, :, None]) ** 2  # angstrom^2
    x, y, z = torch.exp(-squares / (2 * sites.radius[..., None, None] ** 2)).unbind(2)  # [B, A, G] each
    peak = sites.z / (sites.radius**3 * (2 * torch.pi) ** 1.5)  # [B, A]
    plane = (peak[..., None] * x)[..., None] * y[..., None, :]  # [B, A, G, G]
    density = torch.einsum("baxy,baz->bxyz", plane, z)
    return torch.cat([density[:, None], coordinates(sites.edges, grid)], dim=1), owners(sites, squares)


def owners(sites: Sites, squares: Tensor) -> Tensor:
    """Atomic number of the nearest of the sites within whose radius a voxel's centre lies [B, G, G, G], 0 where there
    is none; squares: of the distances along each axis, angstrom^2 [B, A, 3, G].
    """
    x, y, z = squares.unbind(2)
    distance = x[..., None, None] + y[..., None, :, None] + z[..., None, None, :]  # [B, A, G, G, G]
    there = (distance < (sites.radius**2)[..., None, None, None]) & (sites.z > 0)[..., None, None, None]
    nearest, site = distance.masked_fill(~there, torch.inf).min(dim=1)
    owner = sites.z.gather(1, site.flatten(1)).view(site.shape)
    return owner.masked_fill(torch.isinf(nearest), 0)


def coordinates(edges: Tensor, grid: int) -> Tensor:
    """The lower corner of every voxel, from that of the box, angstrom [B, 3, G, G, G]; edges [B, 3]."""
    steps = torch.arange(grid, device=edges.device) * SPAN / grid
    axes = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"))  # [3, G, G, G]
    return axes * edges[:, :, None, None, None]


def turned(voxels: Tensor, species: Tensor) -> tuple[Tensor, Tensor]:
    """Both after three turns by 90 degrees about random axes, as the authors augment; the coordinates are turned as
    pictures are, so that they may run downwards.
    """
    for k in torch.randint(3, (3,)).tolist():
        voxels, species = (torch.rot90(part, 1, AXES[k]) for part in (voxels, species))
    return voxels, species


# ------------------------------------------------------------------- back


def edges_of(coordinates: np.ndarray) -> np.ndarray:
    """Edges of the cell that coordinate channels [3, G, G, G] tell: the range of each, angstrom [3]."""
    grid = coordinates.shape[-1]
    flat = coordinates.reshape(3, -1)
    return (flat.max(axis=1) - flat.min(axis=1)) / SPAN / (1 - 1 / grid)


def crystal_of(
    voxels: np.ndarray, presence: np.ndarray, species: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atomic numbers [A], positions [A, 3] and cell [3, 3] of what a network found.

    voxels: density and coordinates [4, G, G, G]; presence: probability that a voxel is part of an atom, species: its
    most likely atomic number, 0 for none [G, G, G]. Raises DataError where no atom or no cell is found.
    """
    edges = edges_of(voxels[1:])
    if not (np.isfinite(edges).all() and edges.min() > 0):
        raise DataError("no cell")
    z, centres = atoms_of(presence >= SEEN, species, voxels[0])
    if not len(z):
        raise DataError("no atoms")
    positions = ((centres + 0.5) * SPAN / presence.shape[0] - MARGIN) * edges
    return z, positions, np.diag(edges)


def atoms_of(there: np.ndarray, species: np.ndarray, density: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers [A] and centres of density in voxels [A, 3] of the regions of `there` that have an element; all
    [G, G, G].
    """
    z, centres = [], []
    for voxels in regions(there):
        at = tuple(voxels.T)
        names, counts = np.unique(species[at], return_counts=True)
        counts[names == 0] = 0
        if counts.any():
            z.append(names[counts.argmax()])
            centres.append(np.average(voxels, axis=0, weights=np.maximum(density[at], TINY)))
    return np.array(z, dtype=np.int64), np.array(centres).reshape(-1, 3)


def regions(there: np.ndarray, division: int = 0) -> list[np.ndarray]:
    """Voxels [k, 3] of each atom in a mask [G, G, G]."""
    from scipy import ndimage

    labels, _ = ndimage.label(there)
    found, least = [], LEAST * there.size
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        mask = labels[box] == number
        corner = np.array([side.start for side in box])
        if division == 0 and mask.sum() <= least:
            continue
        pieces = [mask] if division >= DIVISIONS or convexity(mask) >= CONVEX else divided(mask)
        if len(pieces) == 1:
            found.append(np.argwhere(pieces[0]) + corner)
        else:
            found += [voxels + corner for piece in pieces for voxels in regions(piece, division + 1)]
    return found


def divided(mask: np.ndarray) -> list[np.ndarray]:
    """A region cut by the cores that are left when its outermost voxels are taken off, as often as it needs to have
    several: each voxel goes to the nearest. The region itself where it never has.
    """
    from scipy import ndimage

    core = np.pad(mask, 1)
    for _ in range(DIVISIONS):
        core = ndimage.binary_erosion(core)
        cores, n = ndimage.label(core)
        if n != 1:
            break
    if n < 2:
        return [mask]
    nearest = ndimage.distance_transform_edt(cores == 0, return_distances=False, return_indices=True)
    owner = cores[tuple(nearest)][1:-1, 1:-1, 1:-1]
    return [mask & (owner == number) for number in range(1, n + 1)]


def convexity(mask: np.ndarray) -> float:
    """How many voxels of a region's convex hull belong to it, as a share; the hull of the middles of their faces."""
    from scipy.spatial import ConvexHull

    voxels = np.argwhere(mask)
    faces = (voxels[:, None] + 0.5 * np.concatenate([np.eye(3), -np.eye(3)])).reshape(-1, 3)
    normals = ConvexHull(faces).equations  # [F, 4]
    places = np.array(list(product(*map(range, mask.shape))))
    inside = (places @ normals[:, :3].T + normals[:, 3] <= 1e-9).all(axis=1)
    return len(voxels) / int(inside.sum())
