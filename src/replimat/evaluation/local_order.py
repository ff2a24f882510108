"""How much the surroundings of an atom look like an octahedron, a square pyramid, ...: CrystalNN's fingerprint.

The 61 numbers of matminer's CrystalNNFingerprint with its preset "ops" (N. E. R. Zimmermann and A. Jain, RSC Adv. 10,
6063 (2020), doi:10.1039/c9ra07755c), computed from whole arrays, which takes a fifth of the time. Neighbours share a
face of the atom's Voronoi cell; the face's solid angle, the difference of electronegativities and the distance weigh
them; from the weights follow a probability for every coordination number and, times that, how well the neighbours fit
each motif.

The parameters of the motifs are read from matminer. The tests hold every number against it.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

STRUCTURE = 61  # features of a site
LARGEST = 24  # coordination number
REACH = 7.0  # angstrom: where CrystalNN looks for neighbours first
CHEMICAL, WIDEST = 3.0, 3.3  # weight of the difference of electronegativities, and the largest there is
SOFT = (0.5, 1.0)  # angstrom beyond the sum of covalent radii: where a neighbour begins to fade and where it is gone
DIGITS = 3  # of weights: closer ones are the same
TINY = 1e-12


def site_features(crystal, site: int) -> np.ndarray:
    """Features of one site of a pymatgen Structure [61].

    Raises RuntimeError where the Voronoi cell does not close, ValueError for an element without a radius.
    """
    weights, vectors = neighbours(crystal, site)
    chances = coordination(weights)
    found = []
    for count in range(1, LARGEST + 1):
        chance = chances.get(count, 0.0)
        motifs = _motifs()[count]
        found.append(chance)
        if motifs and chance:
            angles = Angles.of(vectors[:count])
            found += [chance * fit(angles, kind, settings) for kind, settings in motifs]
        else:
            found += [0.0] * len(motifs)
    return np.array(found)


# ---------------------------------------------------------------- neighbours


def neighbours(crystal, site: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights [k] of the neighbours, largest first and never 0, and vectors to them, angstrom [k, 3]."""
    index, vectors, solid, area = voronoi_faces(crystal, site)
    scale, radii = _elements()
    numbers = np.array(crystal.atomic_numbers)
    own, others = numbers[site], numbers[index]
    contrast = CHEMICAL * np.sqrt(np.abs(scale[own] - scale[others]) / WIDEST)
    weights = solid / solid.max() * solid / area * (1 + np.nan_to_num(contrast))
    distances, bond = np.linalg.norm(vectors, axis=1), radii[own] + radii[others]
    if np.isnan(bond).any():
        raise ValueError("an element has no covalent radius")
    beyond = np.clip((distances - bond - SOFT[0]) / (SOFT[1] - SOFT[0]), 0, 1)
    order = np.argsort(-weights, kind="stable")
    weights = weights[order] / weights.max() * 0.5 * (np.cos(np.pi * beyond[order]) + 1)
    order = order[np.argsort(-weights, kind="stable")]
    weights = np.round(np.sort(weights)[::-1], DIGITS)
    kept = weights > 0
    return weights[kept], vectors[order[kept]]


def voronoi_faces(crystal, site: int) -> tuple[np.ndarray, ...]:
    """Faces of the Voronoi cell of a site: the atom behind each [k], vector to it [k, 3], solid angle [k] and area [k].

    Raises RuntimeError where the cell does not close within the longest diagonal of the crystal's cell.
    """
    from scipy.spatial import Voronoi

    lattice, centre = crystal.lattice, crystal.cart_coords[site]
    corners = np.array([[1, 1, 1], [-1, 1, 1], [1, -1, 1], [1, 1, -1]]) @ lattice.matrix
    limit, reach = np.linalg.norm(corners, axis=1).max() + 0.01, REACH
    while True:
        fractional, distances, index, _ = lattice.get_points_in_sphere(
            crystal.frac_coords, centre, reach, zip_results=False
        )
        order = np.argsort(distances, kind="stable")
        vectors, index = (fractional[order] @ lattice.matrix) - centre, index[order]
        try:
            cells = Voronoi(vectors)
            mine = np.flatnonzero((cells.ridge_points == 0).any(axis=1))
            rings = [cells.ridge_vertices[ridge] for ridge in mine]
            if not rings or min(map(min, rings)) < 0:
                raise RuntimeError("the Voronoi cell is open")
            break
        except RuntimeError:  # Qhull's own error is one, too
            if reach >= limit:
                raise
            reach = min(2 * reach, limit + 0.001)
    behind = cells.ridge_points[mine].sum(axis=1)  # the other point: this one's number is 0
    solid, volume = _fans(cells.vertices, rings)
    return index[behind], vectors[behind], solid, 6 * volume / np.linalg.norm(vectors[behind], axis=1)


def _fans(vertices: np.ndarray, rings: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Solid angle [k] and volume [k] of the pyramids from the origin over faces, cut into triangles."""
    owner = np.repeat(np.arange(len(rings)), [len(ring) - 2 for ring in rings])
    a = vertices[[ring[0] for ring in rings for _ in ring[2:]]]
    b = vertices[[corner for ring in rings for corner in ring[1:-1]]]
    c = vertices[[corner for ring in rings for corner in ring[2:]]]
    triple = np.abs(np.einsum("fi,fi->f", a, np.cross(b, c)))
    la, lb, lc = (np.linalg.norm(corner, axis=1) for corner in (a, b, c))
    ab, ac, bc = (np.einsum("fi,fi->f", *pair) for pair in ((a, b), (a, c), (b, c)))
    below = la * lb * lc + lc * ab + lb * ac + la * bc
    half = np.arctan2(triple, below)  # Van Oosterom and Strackee 1983
    half[half <= 0] += np.pi  # as pymatgen has it for a triangle without area
    return (np.bincount(owner, weights=values, minlength=len(rings)) for values in (2 * half, triple / 6))


def coordination(weights: np.ndarray) -> dict[int, float]:
    """Probability of every coordination number that has one, weights [k] of the neighbours falling from 1.

    The quarter circle under the weights is cut at every distinct one; a piece is the chance that all above it count.
    """
    if not len(weights):
        return {}
    steps, last = np.unique(-weights, return_index=True)
    counts = np.append(last[1:], len(weights))
    edges = np.append(-steps, 0.0)
    below = (edges * np.sqrt(1 - edges**2) + np.arcsin(edges)) / (np.pi / 2)  # share left of an edge
    return dict(zip(counts.tolist(), (below[:-1] - below[1:]).tolist(), strict=True))


@cache
def _elements() -> tuple[np.ndarray, np.ndarray]:
    """Pauling electronegativity and covalent (else atomic) radius, angstrom, by atomic number [119]; NaN: unknown."""
    import warnings

    from pymatgen.analysis.molecule_structure_comparator import CovalentRadius
    from pymatgen.core import Element

    scale, radii = np.full(119, np.nan), np.full(119, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for z in range(1, 119):
            element = Element.from_Z(z)
            scale[z] = element.X
            radius = CovalentRadius.radius.get(element.symbol, element.atomic_radius)
            radii[z] = np.nan if radius is None else radius
    return scale, radii


# -------------------------------------------------------------------- motifs


@dataclass(frozen=True)
class Angles:
    """Of n neighbours seen from the atom. One of them, j, is the north pole, another, k, lies on the prime meridian.

    polar: angle between two neighbours, radian [n, n]; azimuth: of m with j and k so placed, 0 to pi [n, n, n];
    pairs: j and k differ [n, n]; poles: m is neither and k not on the axis [n, n, n]; triples: nor is m [n, n, n].
    """

    cosines: np.ndarray
    polar: np.ndarray
    azimuth: np.ndarray
    pairs: np.ndarray
    poles: np.ndarray
    triples: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray) -> "Angles":
        """vectors: to the neighbours [n, 3]."""
        unit = vectors / np.linalg.norm(vectors, axis=1)[:, None]
        cosines = np.clip(unit @ unit.T, -1, 1)
        across = unit[None] - cosines[:, :, None] * unit[:, None]  # part of k at right angles to j  [j, k, 3]
        lengths = np.linalg.norm(across, axis=2)
        off_axis = lengths >= TINY
        across = across / np.where(off_axis, lengths, 1)[:, :, None]
        azimuth = np.arccos(np.clip(across @ across.transpose(0, 2, 1), -1, 1))
        apart = ~np.eye(len(unit), dtype=bool)
        poles = (apart & off_axis)[:, :, None] & apart[:, None, :] & apart[None]
        return cls(cosines, np.arccos(cosines), azimuth, apart, poles, poles & off_axis[:, None, :])


def fit(angles: Angles, kind: str, settings: dict) -> float:
    """How well neighbours fit a motif: 1 is perfect (but for "bcc" and "q2" to "q6"), 0 where nothing can be said."""
    if kind in LEGENDRE:
        return float(np.sqrt(max(np.polynomial.legendre.legval(angles.cosines, LEGENDRE[kind]).mean(), 0.0)))
    if kind == "sgl_bd":
        return 1.0
    if kind == "bcc":
        return _bcc(angles, settings)
    direct, weight, indirect, counted = FITS[kind](angles, settings)
    total = np.where(angles.pairs, direct, 0) + np.where(counted, indirect, 0).sum(axis=2)
    norm = np.where(angles.pairs, weight, 0) + counted.sum(axis=2)
    if kind == "bent":
        return float(total.sum() / norm.sum())
    return float(np.divide(total, norm, out=np.zeros_like(total), where=norm > TINY)[angles.pairs].max())


def _bell(values: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * values**2)


def _petals(angles: Angles, settings: dict) -> np.ndarray:
    return np.cos(settings["fac_AA"] * angles.azimuth) ** settings["exp_cos_AA"]


def _bent(angles: Angles, settings: dict) -> tuple:
    """One polar angle TA, in units of pi."""
    near = _bell(settings["IGW_TA"] * (angles.polar / np.pi - settings["TA"]))
    return near, 1.0, 0.0, np.zeros_like(angles.triples)


def _cone(angles: Angles, settings: dict) -> tuple:
    """All neighbours but j at the polar angle TA, at the azimuths of the petals."""
    near = _bell(settings["IGW_TA"] * (angles.polar / np.pi - settings["TA"]))
    return near, 1.0, near[:, None] * _petals(angles, settings), angles.triples


def _pentagon(angles: Angles, settings: dict) -> tuple:
    """Polar angles of 0.4 or 0.8 pi in one plane."""
    at = np.where(angles.polar <= settings["TA"] * np.pi, 0.4, 0.8)
    near = _bell(settings["IGW_TA"] * (angles.polar / np.pi - at))
    return near, 1.0, near[:, None] * np.cos(angles.azimuth) ** 2, angles.triples


def _pyramid(angles: Angles, settings: dict) -> tuple:
    """All neighbours but j on the equator."""
    near = _bell(settings["IGW_EP"] * (angles.polar / np.pi - 0.5))
    return near, 1.0, near[:, None] * _petals(angles, settings), angles.triples


def _poles(angles: Angles, settings: dict, equator: np.ndarray | None = None, widest: float = np.inf) -> tuple:
    """One neighbour opposite to j, the others on the equator (or where `equator` says), up to an azimuth."""
    polar, south = angles.polar, angles.polar >= settings["min_SPP"]
    if equator is None:
        equator = _bell(settings["IGW_EP"] * (polar / np.pi - 0.5))
    opposite = _bell(settings["IGW_SPP"] * (polar / np.pi - 1))
    at_pole = angles.poles & south[:, None, :]
    around = angles.triples & ~south[:, None, :] & ~south[:, :, None] & (angles.azimuth < widest)
    indirect = np.where(at_pole, opposite[:, None], equator[:, None] * _petals(angles, settings))
    return np.where(south, 0, equator), np.where(south, 0.0, 1.0), indirect, at_pole | around


def _hexagon(angles: Angles, settings: dict) -> tuple:
    """One opposite, four at a distance TA from the equator."""
    off = np.abs(angles.polar / np.pi - 0.5)
    return _poles(angles, settings, _bell(settings["IGW_TA"] * (off - settings["TA"])))


def _see_saw(angles: Angles, settings: dict) -> tuple:
    return _poles(angles, settings, widest=0.75 * np.pi)


def _cuboctahedron(angles: Angles, settings: dict) -> tuple:
    """One opposite, four on the equator, four each at a third of pi from the poles."""
    polar, azimuth = angles.polar, angles.azimuth
    south = polar >= settings["min_SPP"]
    opposite = settings["w_SPP"] * _bell(settings["IGW_SPP"] * (polar / np.pi - 1))
    near, far = settings[4], settings[2]
    middle = (polar > near) & (polar < far)
    equator = _bell(settings[5] * (polar / np.pi - 0.5))[:, None] * np.cos(azimuth) ** 2
    upper = polar < near
    caps = _bell(settings[6] * (polar / np.pi - np.where(upper, 1 / 3, 2 / 3)))[:, None]
    caps = caps * _bell(0.0556 * (np.sin(azimuth) - 0.81649658))
    placed = middle | upper | (polar > far)
    counted = angles.triples & middle[:, :, None] & (placed & ~south)[:, None, :]
    weight = np.where(south, settings["w_SPP"], 0.0)
    return np.where(south, opposite, 0), weight, np.where(middle[:, None], equator, caps), counted


def _bcc(angles: Angles, settings: dict) -> float:
    """Eight corners of a cube, summed over pairs in the order of the neighbours as pymatgen does."""
    n, polar = len(angles.polar), angles.polar
    south = polar >= settings["min_SPP"]
    first = np.triu(np.ones((n, n), dtype=bool), k=1)
    opposite = settings["w_SPP"] * _bell(settings["IGW_SPP"] * (polar / np.pi - 1))
    off = (polar - np.pi / 2) / np.arcsin(1 / 3)
    sign = np.where(polar > np.pi / 2, 1.0, -1.0)[:, :, None]
    wave = sign * np.cos(3 * angles.azimuth) * np.exp(0.5) * (off * _bell(off))[:, None]
    total = opposite[first & south].sum() + wave[angles.triples & (first & ~south)[:, :, None]].sum()
    return float(total / (0.5 * n * (6 + (n - 2) * (n - 3))))


LEGENDRE = {f"q{order}": [0] * order + [1] for order in (2, 4, 6)}  # Steinhardt's, by the addition theorem
FITS = {
    "bent": _bent,
    "tri_plan_max": _cone,
    "tet_max": _cone,
    "T": _pyramid,
    "tri_pyr": _pyramid,
    "sq_pyr": _pyramid,
    "pent_pyr": _pyramid,
    "hex_pyr": _pyramid,
    "sq_plan_max": _poles,
    "tri_bipyr": _poles,
    "pent_bipyr": _poles,
    "hex_bipyr": _poles,
    "oct_max": _poles,
    "hex_plan_max": _hexagon,
    "see_saw_rect": _see_saw,
    "pent_plan_max": _pentagon,
    "cuboct_max": _cuboctahedron,
}


@cache
def _motifs() -> dict[int, list[tuple[str, dict]]]:
    """Kind and parameters of every motif by coordination number, of matminer's preset "ops"."""
    from matminer.featurizers.site.fingerprint import CrystalNNFingerprint

    return {
        count: [(motif.get_type(0), motif.get_parameters(0)) for motif in motifs if motif != "wt"]
        for count, motifs in CrystalNNFingerprint.from_preset("ops").ops.items()
    }
