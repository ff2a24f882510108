"""Crystals as the matrix of Ren et al. (Matter 5, 314 (2022), doi:10.1016/j.matt.2021.11.032), and back again.

Rows, from above: elements (one-hot, 103), lattice (a, b, c in angstrom; alpha, beta, gamma in degree), fractional
coordinates of the sites, the element that fills each site (one-hot), a row of zeros, 92 properties of the elements
(those of CGCNN). The first columns hold elements in the order they appear, and x, y, z; 59 more hold reciprocal points:
the row of zeros there has |g|, a property p of the elements

    F_p(hkl) = sum over sites j of  p_j pi (hkl . r_j)                        r_j: fractional coordinates

which is linear in the coordinates: despite the name no exponential is taken (so the authors' code). Points lie within
1.297 / angstrom, 1.4 where these are fewer than 59; they are taken in the order of |h| + |k| + |l|, then of falling h,
k, l. Only the first columns are read on the way back.

Differs from the authors' code: a site that nothing fills is left out wherever it stands; theirs makes hydrogen of it
when a filled one follows, and drops hydrogen at the end of the list. A matrix that is no crystal is named.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from replimat.datasets.base import Structures
from replimat.errors import DataError

ELEMENTS, PROPERTIES = 103, 92
LATTICE = ELEMENTS  # first row of the lattice
COORDINATES = ELEMENTS + 2  # first row of the coordinates
POINTS = 59
RADII = 1.297, 1.4  # 1/angstrom
FEW = 4  # |h| + |k| + |l| up to which all but the smallest cells find their points
PADDING = 2  # rows of zeros at the end, so that two strides of 2 divide the rows
ROUNDING = 1e-5  # of a fractional coordinate
FILLED = 0.05  # occupancy from which a site counts, as in the authors' code
AT_ONCE = 256


@dataclass(frozen=True)
class OrderedCrystals:
    """What the prepared file holds of crystals: their sites in the order of electronegativity, as the Materials
    Project writes them, and features of their composition for the baselines. Raises DataError for crystals that the
    matrix has no room for.
    """

    sites: int
    elements: int
    version: int = 1

    def parameters(self) -> dict:
        return {"sites": self.sites, "elements": self.elements}

    def __call__(self, structures: Structures, progress: bool = True) -> dict[str, np.ndarray]:
        from replimat.representations.composition import composition_features
        from replimat.representations.conversion import packed

        FTCP(self.sites, self.elements).check(structures)
        return packed(by_electronegativity(structures)) | {"composition": composition_features(structures)}


def by_electronegativity(structures: Structures) -> Structures:
    """The same crystals, sites of an element together, elements from low to high electronegativity (Pauling)."""
    from replimat.representations.composition import PROPERTIES as NAMES
    from replimat.representations.composition import element_table

    scale = element_table()[structures.numbers.astype(int) - 1, NAMES.index("X")]
    owner = np.repeat(np.arange(len(structures)), structures.sizes)
    order = np.lexsort((structures.numbers, scale, owner))
    numbers, positions = structures.numbers[order], structures.positions[order]
    return Structures(numbers, positions, structures.cells, structures.offsets, periodic=True)


@dataclass(frozen=True)
class FTCP:
    """The matrix of crystals of at most `sites` sites and `elements` elements: [rows, columns]."""

    sites: int = 20
    elements: int = 3

    @property
    def real(self) -> int:
        """Columns of real space: one an element, at least the three of coordinates."""
        return max(self.elements, 3)

    @property
    def columns(self) -> int:
        return self.real + POINTS

    @property
    def elements_at(self) -> slice:
        """Rows of the elements."""
        return slice(0, ELEMENTS)

    @property
    def lattice_at(self) -> slice:
        """Rows of lengths and angles."""
        return slice(LATTICE, COORDINATES)

    @property
    def coordinates_at(self) -> slice:
        """Rows of the sites' coordinates."""
        return slice(COORDINATES, self.occupancy)

    @property
    def occupancy(self) -> int:
        """First row of the sites' elements."""
        return COORDINATES + self.sites

    @property
    def distance(self) -> int:
        """Row of |g|; the properties follow it."""
        return COORDINATES + 2 * self.sites

    @property
    def rows(self) -> int:
        return self.distance + 1 + PROPERTIES + PADDING

    def check(self, structures: Structures) -> None:
        """Raise DataError for crystals that do not fit."""
        if structures.sizes.max() > self.sites:
            raise DataError(f"A crystal of {structures.sizes.max()} sites; the matrix has room for {self.sites}.")
        if (most := int(_elements(structures).column.max()) + 1) > self.elements:
            raise DataError(f"A crystal of {most} elements; the matrix has room for {self.elements}.")

    # ------------------------------------------------------------------ there

    def encode(self, structures: Structures, table: np.ndarray) -> np.ndarray:
        """Matrices [n, rows, columns] float32; table: properties by atomic number [Z, 92].

        Raises DataError for a crystal that does not fit, an element without properties, a cell too small.
        """
        self.check(structures)
        if structures.numbers.max() >= len(table) or structures.numbers.min() < 1:
            raise DataError(f"The table of properties has rows for Z = 1 to {len(table) - 1}.")
        found = np.zeros((len(structures), self.rows, self.columns), dtype=np.float32)
        for chunk, part in _chunks(structures):
            self._real_space(found[chunk], part, table)
            self._reciprocal_space(found[chunk], part, table)
        return found

    def _real_space(self, into: np.ndarray, structures: Structures, table: np.ndarray) -> None:
        lengths, angles = cell_parameters(structures.cells)
        kinds, (owner, slot) = _elements(structures), _places(structures)
        into[kinds.owner, kinds.z - 1, kinds.column] = 1
        into[:, LATTICE, :3], into[:, LATTICE + 1, :3] = lengths, angles
        into[owner, COORDINATES + slot, :3] = fractional(structures)
        into[owner, self.occupancy + slot, kinds.of_site] = 1
        rows = self.distance + 1 + np.arange(PROPERTIES)
        into[kinds.owner[:, None], rows, kinds.column[:, None]] = table[kinds.z]

    def _reciprocal_space(self, into: np.ndarray, structures: Structures, table: np.ndarray) -> None:
        hkl, g = reciprocal_points(structures.cells)
        owner, slot = _places(structures)
        phase = np.zeros((len(structures), self.sites, POINTS))
        phase[owner, slot] = np.pi * np.einsum("nki,ni->nk", hkl[owner], fractional(structures))
        properties = np.zeros((len(structures), self.sites, PROPERTIES))
        properties[owner, slot] = table[structures.numbers]
        into[:, self.distance, self.real :] = g
        into[:, self.distance + 1 : self.distance + 1 + PROPERTIES, self.real :] = properties.swapaxes(1, 2) @ phase

    # --------------------------------------------------------------- and back

    def decode(self, matrices: np.ndarray) -> tuple[Structures | None, dict[int, str]]:
        """The crystals of the matrices [n, rows, columns] that are some, and why the others (by number) are not."""
        matrices = np.asarray(matrices, dtype=np.float64)
        element = matrices[:, self.elements_at, : self.elements].argmax(axis=1) + 1  # [n, elements]
        share = matrices[:, self.occupancy : self.occupancy + self.sites, : self.elements]
        filled = share.max(axis=2) >= FILLED  # [n, sites]
        numbers = np.take_along_axis(element, share.argmax(axis=2), axis=1)  # [n, sites]
        coordinates = matrices[:, self.coordinates_at, :3]
        crystals, failed = [], {}
        for k, (lengths, angles) in enumerate(matrices[:, self.lattice_at, :3]):
            cell = cell_of(lengths, angles)
            if cell is None or not filled[k].any():
                failed[k] = "no site is filled" if cell is not None else "no cell has these lengths and angles"
                continue
            crystals.append((numbers[k][filled[k]], coordinates[k][filled[k]] @ cell, cell))
        return (Structures.pack(crystals, periodic=True) if crystals else None), failed


@dataclass(frozen=True)
class RowScale:
    """Every row of a matrix from its lowest to its highest value among the training crystals to 0 ... 1, over all its
    columns; low, span [rows, 1].
    """

    low: np.ndarray
    span: np.ndarray

    @classmethod
    def fit(cls, matrices: np.ndarray) -> "RowScale":
        """From matrices [n, rows, columns]; a row that is the same everywhere is only shifted."""
        low, high = (bound(axis=(0, 2))[:, None] for bound in (matrices.min, matrices.max))
        return cls(low, np.where(high > low, high - low, 1).astype(matrices.dtype))

    def apply(self, matrices: np.ndarray) -> np.ndarray:
        return (matrices - self.low) / self.span

    def undo(self, matrices: np.ndarray) -> np.ndarray:
        return matrices * self.span + self.low


# ------------------------------------------------------------------- lattice


def cell_parameters(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths in angstrom [n, 3] and angles alpha, beta, gamma in degree [n, 3] of cells [n, 3, 3]."""
    lengths = np.linalg.norm(cells, axis=2)
    unit = cells / lengths[:, :, None]
    cosines = np.stack([(unit[:, i] * unit[:, j]).sum(axis=1) for i, j in ((1, 2), (0, 2), (0, 1))], axis=1)
    return lengths, np.degrees(np.arccos(np.clip(cosines, -1, 1)))


def cell_of(lengths: np.ndarray, angles: np.ndarray) -> np.ndarray | None:
    """The cell [3, 3] of lengths and angles, a along x and b in the xy plane; None where there is none."""
    alpha, beta, gamma = np.cos(np.radians(angles))
    directions = np.array([[1, gamma, beta], [gamma, 1, alpha], [beta, alpha, 1]])
    if np.min(lengths) <= 0 or not np.isfinite(directions).all() or np.min(angles) <= 0 or np.max(angles) >= 180:
        return None
    try:
        return lengths[:, None] * np.linalg.cholesky(directions)
    except np.linalg.LinAlgError:  # the three angles do not close
        return None


def fractional(structures: Structures) -> np.ndarray:
    """Fractional coordinates of all sites [N, 3], from 0 to below 1; what is 1 but for rounding is 0."""
    owner = np.repeat(np.arange(len(structures)), structures.sizes)
    found = np.einsum("ni,nij->nj", structures.positions, np.linalg.inv(structures.cells)[owner])
    return np.maximum(found - np.floor(found + ROUNDING), 0.0)


# --------------------------------------------------------- reciprocal points


def reciprocal_points(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices hkl [n, 59, 3] and lengths |g| in 1/angstrom [n, 59] of the points each cell [3, 3] is described by.

    Raises DataError for a cell so small that there are fewer.
    """
    inverse = np.linalg.inv(cells)  # columns are the reciprocal vectors
    hkl, g, enough = _nearest(inverse, FEW)
    for n in np.flatnonzero(~enough):  # all that can lie inside: |h| is at most |g| |a|
        reach = int(np.ceil(RADII[1] * np.linalg.norm(cells[n], axis=1).sum()))
        one, length, complete = _nearest(inverse[[n]], reach)
        if not complete[0]:
            raise DataError(f"A cell of {abs(np.linalg.det(cells[n])):.1f} angstrom^3 has fewer than {POINTS} points.")
        hkl[n], g[n] = one[0], length[0]
    return hkl, g


def _nearest(inverse: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first points of each cell among those up to `reach`, and whether the rule's radius holds enough of them."""
    points = _ordered_points(reach)
    g = np.linalg.norm(np.einsum("nij,pj->npi", inverse, points), axis=2)  # [n, P]
    inside = g <= RADII[0]
    enough = inside.sum(axis=1) >= POINTS
    if reach > FEW:  # all points are in view: the wider sphere may be asked
        inside |= ~enough[:, None] & (g <= RADII[1])
        enough = inside.sum(axis=1) >= POINTS
    chosen = np.argsort(~inside, axis=1, kind="stable")[:, :POINTS]
    return points[chosen], np.take_along_axis(g, chosen, axis=1), enough


@cache
def _ordered_points(reach: int) -> np.ndarray:
    """All hkl but the origin with |h| + |k| + |l| <= reach, in the order they are taken [P, 3]."""
    points = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    size = np.abs(points).sum(axis=1)
    points, size = points[(size > 0) & (size <= reach)], size[(size > 0) & (size <= reach)]
    h, k, l = points.T  # noqa: E741
    return points[np.lexsort((-l, -k, -h, size))]


# ------------------------------------------------------------------- helpers


@dataclass(frozen=True)
class _Elements:
    """The elements of each crystal in the order they appear: crystal, atomic number and column of each [U]; column of
    every site's element [N].
    """

    owner: np.ndarray
    z: np.ndarray
    column: np.ndarray
    of_site: np.ndarray


def _elements(structures: Structures) -> _Elements:
    owner, _ = _places(structures)
    key, first, inverse = np.unique(owner * 1000 + structures.numbers, return_index=True, return_inverse=True)
    order = np.argsort(first)  # by crystal, then by appearance
    owners = key[order] // 1000
    column = np.arange(len(order)) - np.searchsorted(owners, owners)
    rank = np.empty(len(order), dtype=int)
    rank[order] = column
    return _Elements(owners, key[order] % 1000, column, rank[inverse])


def _places(structures: Structures) -> tuple[np.ndarray, np.ndarray]:
    """Crystal of every site, and its number there [N]."""
    owner = np.repeat(np.arange(len(structures)), structures.sizes)
    return owner, np.arange(len(owner)) - structures.offsets[owner]


def _chunks(structures: Structures) -> Iterator[tuple[slice, Structures]]:
    for start in range(0, len(structures), AT_ONCE):
        rows = np.arange(start, min(start + AT_ONCE, len(structures)))
        yield slice(start, start + len(rows)), structures.take(rows)
