"""American Mineralogist Crystal Structure Database (R. T. Downs, M. Hall-Wallace, Am. Mineral. 88, 247 (2003)).

The SQLite file of the package larixite holds cell, sites and, per space-group setting, the symmetry operations of each
entry. Coordinates and occupancies are base64 of little-endian int32 in steps of 1 / 4,000,000. A "%varN%" behind a
symbol marks another origin or setting of the same symbol; because every setting brings its own operations, those are
what the asymmetric unit is expanded with, whatever the symbol. The number of the space group is found from them too.

A site closer than TOUCHING to its own image lies on a symmetry element that its rounded coordinates miss: it is moved
onto it (the mean of these images). Every cell is compared with the formula and density the entry reports.
"""

import base64
import json
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np

from replimat.cards import DatasetCard
from replimat.datasets.base import Dataset
from replimat.datasets.rows import Rows, occupancy_fault
from replimat.errors import DataError

STEPS = 4e6  # stored integers per unit of a coordinate
UNKNOWN = (2.0, 3.0)  # stored for "?" and "."
TOUCHING = 0.1  # angstrom: images of a site this close are one atom on a symmetry element
SAME_POINT = 1e-6  # of a cell edge, after moving sites onto symmetry elements
CLOSEST = 0.4  # angstrom: two atoms that are there at the same time cannot be closer
CROWDED = 1.1  # occupancies summing to more than this are there at the same time
METRIC = 2e-3  # relative change of the metric tensor under a symmetry operation
DENSITY = 0.05  # relative difference to the reported density, both without hydrogen, which is often not located
SHARES = 0.02  # difference of an element's share of the atoms other than hydrogen to the reported formula
DALTON = 1.66053906660  # g/cm3 for 1 dalton per cubic angstrom
LAST = np.array([2, 15, 74, 142, 167, 194, 230])  # last space group of each crystal system, triclinic to cubic
ROWS = """
    select cif.id, a, b, c, alpha, beta, gamma, formula, crystal_density, atoms_sites, atoms_x, atoms_y, atoms_z,
           atoms_occupancy, spacegroup_id, minerals.name as mineral
    from cif left join minerals on minerals.id = cif.mineral_id order by cif.id
"""


@cache
def elements() -> tuple[dict[str, int], dict[str, float], np.ndarray]:
    """Atomic numbers and masses (dalton) by symbol, D among them, and masses by atomic number."""
    from ase.data import atomic_masses, atomic_numbers

    masses = {symbol: float(atomic_masses[number]) for symbol, number in atomic_numbers.items()}
    return atomic_numbers | {"D": 1}, masses | {"D": 2.014}, atomic_masses


class Unusable(Exception):
    """A row that cannot be a structure, with the reason."""


@dataclass(frozen=True)
class Setting:
    """A space group in one setting: rotations [S, 3, 3] and translations [S, 3] of fractional coordinates, number."""

    rotations: np.ndarray
    translations: np.ndarray
    number: int


def read(folder: Path, card: DatasetCard) -> Dataset:
    """All usable entries. Raises DataError when the file is not the expected database."""
    entries, groups = _tables(folder / card.source.members[0].save_as)
    index = {name: number for number, name in enumerate(sorted(set(map(_mineral, entries))))}
    settings = {key: _setting_or_fault(*group) for key, group in groups.items()}
    rows = Rows(card)
    for row in entries:
        try:
            structure, occupancies, targets = crystal(row, settings.get(row["spacegroup_id"], "no space group"))
        except Unusable as fault:
            rows.leave_out(str(row["id"]), str(fault))
            continue
        rows.add(str(row["id"]), structure, targets | {"mineral": index[_mineral(row)]}, occupancies)
    return rows.dataset()


def mineral_names(folder: Path) -> dict[str, str]:
    """Mineral of every entry of the database in `folder` by id; its formula where it has no name.

    Target `mineral` is the place of that name among all different ones, sorted.
    """
    return {str(row["id"]): _mineral(row) for row in _tables(folder / "amcsd_cif1.db")[0]}


def _mineral(row: sqlite3.Row) -> str:
    name = row["mineral"]
    return str(row["formula"]) if name in (None, "", "<missing>") else name


def _tables(path: Path) -> tuple[list[sqlite3.Row], dict[int, tuple[str, str]]]:
    """Entries in order of their id, and (symbol, operations as JSON) of every setting by its id."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as base:
            base.row_factory = sqlite3.Row
            groups = base.execute("select id, hm_notation, symmetry_xyz from spacegroups").fetchall()
            return base.execute(ROWS).fetchall(), {key: (symbol, text) for key, symbol, text in groups}
    except sqlite3.Error as error:
        raise DataError(f"{path}: not the expected database ({error}).") from error


# ------------------------------------------------------------------------------------------------ space groups


def _setting_or_fault(symbol: str, operations: str) -> Setting | str:
    try:
        return setting(symbol, operations)
    except Unusable as fault:
        return str(fault)


def setting(symbol: str, operations: str) -> Setting:
    """The group of a JSON list of operations. Raises Unusable when they form none, or another one than the symbol."""
    import spglib

    symbol = symbol.split("%")[0].strip()
    try:
        rotations, translations = map(np.array, zip(*map(operation, json.loads(operations)), strict=True))
    except (ValueError, TypeError) as error:
        raise Unusable(f"symmetry operations of {symbol!r} are not readable") from error
    kind = spglib.get_spacegroup_type_from_symmetry(rotations, translations, symprec=1e-3)
    if kind is None:
        raise Unusable(f"symmetry operations of {symbol!r} form no space group")
    known = _numbers_by_symbol().get(symbol.replace(" ", ""), {kind.number})
    if kind.number not in known:
        raise Unusable(f"symmetry operations of No. {kind.number}, but the symbol {symbol!r} is No. {min(known)}")
    return Setting(rotations, translations, kind.number)


def operation(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Rotation [3, 3] and translation [3] of an operation like "1/2-x,y-x,z+1/4". Raises ValueError."""
    rotation, translation = np.zeros((3, 3), dtype=int), np.zeros(3)
    parts = text.replace(" ", "").lower().split(",")
    if len(parts) != 3 or not all(re.fullmatch(r"([+-]?([xyz]|\d+(/[1-9]\d*)?|\d*\.\d+))+", part) for part in parts):
        raise ValueError(f"{text!r} is no symmetry operation")
    for axis, part in enumerate(parts):
        for sign, term in re.findall(r"([+-]?)([xyz]|[\d./]+)", part):
            value = -1 if sign == "-" else 1
            if term in "xyz":
                rotation[axis, "xyz".index(term)] += value
            else:
                translation[axis] += value * float(Fraction(term))
    return rotation, translation


@cache
def _numbers_by_symbol() -> dict[str, set[int]]:
    """Numbers of the space groups that have a symbol, long or short and without blanks, in one of 530 settings."""
    import spglib

    numbers: dict[str, set[int]] = {}
    for kind in map(spglib.get_spacegroup_type, range(1, 531)):
        for symbol in (kind.international_full, kind.international_short):
            numbers.setdefault(re.sub(r"[ _]", "", symbol), set()).add(kind.number)
    return numbers


def expand(sites: np.ndarray, group: Setting, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fractional coordinates [A, 3] in [0, 1) of all atoms of the cell and the site each comes from [A].

    sites [n, 3]: the asymmetric unit; cell [3, 3]: rows are lattice vectors, angstrom.
    Raises Unusable where the images of a site that touch do not divide the group.
    """
    offset = _images(sites, group) - sites[:, None]  # [n, S, 3]
    offset -= np.round(offset)
    touches = np.linalg.norm(offset @ cell, axis=2) < TOUCHING  # [n, S]
    order = touches.sum(axis=1)
    on_element = sites + np.where(touches[..., None], offset, 0).sum(axis=1) / order[:, None]  # [n, 3]
    images = _images(on_element, group) % 1.0
    atoms = []
    for site, points in enumerate(images):
        atoms.append(points if order[site] == 1 else _distinct(points))
        if len(atoms[site]) * order[site] != len(points):
            raise Unusable(f"site {site + 1} has {order[site]} touching images of {len(points)}")
    return np.concatenate(atoms) % 1.0, np.repeat(np.arange(len(sites)), [len(points) for points in atoms])


def _images(sites: np.ndarray, group: Setting) -> np.ndarray:
    """Images of the sites [n, 3] under all operations [n, S, 3]."""
    return np.einsum("sij,nj->nsi", group.rotations, sites) + group.translations


def _distinct(points: np.ndarray) -> np.ndarray:
    """The points [S, 3] without those that repeat an earlier one."""
    offset = points[:, None] - points
    same = (np.abs(offset - np.round(offset)) < SAME_POINT).all(axis=2)  # [S, S]
    return points[~np.tril(same, -1).any(axis=1)]


# ---------------------------------------------------------------------------------------------------- crystals


def crystal(row: sqlite3.Row, group: Setting | str):
    """(numbers [A], positions [A, 3], cell [3, 3]), occupancies [A] or None, and the targets by name of one entry.

    `group` is the reason when its space group is unusable. Raises Unusable.
    """
    if isinstance(group, str):
        raise Unusable(group)
    edges = cell_parameters(row)
    cell = cell_matrix(*edges.values())
    _check_metric(cell, group)
    formula = composition_of(row["formula"])
    labels, sites, shares = _sites(row)
    numbers = np.array([element_of(label, formula) for label in labels])
    fractional, site = expand(sites, group, cell)
    _check_distances(labels, sites, shares, fractional, site, cell)
    _check_composition(numbers[site], shares[site], formula)
    _check_density(numbers[site], shares[site], cell, formula, row["crystal_density"])
    targets = {"space_group": group.number, "crystal_system": int(np.searchsorted(LAST, group.number))} | edges
    occupancies = None if (shares == 1).all() else shares[site]
    return (numbers[site], fractional @ cell, cell), occupancies, targets


def cell_parameters(row: sqlite3.Row) -> dict[str, float]:
    """Edges in angstrom and angles in degree. Raises Unusable; a decimal comma is read as a point."""
    values = {}
    for name in ("a", "b", "c", "alpha", "beta", "gamma"):
        text = str(row[name]).strip(" ,").replace(",", ".")
        try:
            values[name] = float(text)
        except ValueError as error:
            raise Unusable(f"{name} is {row[name]!r}") from error
        if not 0 < values[name] < (180 if name in ("alpha", "beta", "gamma") else np.inf):
            raise Unusable(f"{name} is {row[name]!r}")
    return values


def cell_matrix(a: float, b: float, c: float, alpha: float, beta: float, gamma: float) -> np.ndarray:
    """Lattice vectors as rows [3, 3], a along x and b in the xy plane. Raises Unusable when the angles span no cell."""
    cos_a, cos_b, cos_g = np.cos(np.radians([alpha, beta, gamma]))
    sin_g = np.sin(np.radians(gamma))
    height = 1 - cos_a**2 - cos_b**2 - cos_g**2 + 2 * cos_a * cos_b * cos_g
    if height <= 0:
        raise Unusable(f"angles {alpha:g}, {beta:g}, {gamma:g} span no cell")
    lowest = [c * cos_b, c * (cos_a - cos_b * cos_g) / sin_g, c * np.sqrt(height) / sin_g]
    cell = np.array([[a, 0, 0], [b * cos_g, b * sin_g, 0], lowest])
    cell[np.abs(cell) < 1e-12 * max(a, b, c)] = 0.0
    return cell


def _check_metric(cell: np.ndarray, group: Setting) -> None:
    """Raise Unusable unless lengths and angles are those the rotations leave alone, such as a = b = c when cubic."""
    metric = cell @ cell.T
    turned = np.einsum("ski,kl,slj->sij", group.rotations, metric, group.rotations)
    if np.abs(turned - metric).max() > METRIC * metric.max():
        raise Unusable(f"the cell contradicts space group No. {group.number}")


def _sites(row: sqlite3.Row) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Labels, fractional coordinates [n, 3] and occupancies [n] of the asymmetric unit. Raises Unusable."""
    try:
        labels = [str(label) for label in json.loads(row["atoms_sites"])]
        sites = np.stack([unpack(row[f"atoms_{axis}"]) for axis in "xyz"], axis=1)
        shares = np.ones(len(labels)) if row["atoms_occupancy"] == "0" else unpack(row["atoms_occupancy"])
    except (ValueError, TypeError) as error:
        raise Unusable(f"sites are not readable ({error})") from error
    if not len(labels) == len(sites) == len(shares) > 0:
        raise Unusable(f"{len(labels)} sites with {len(sites)} coordinates and {len(shares)} occupancies")
    if np.isin(sites, UNKNOWN).any() or np.isin(shares, UNKNOWN).any():
        raise Unusable("a coordinate or an occupancy is unknown")
    if fault := occupancy_fault(shares):
        raise Unusable(fault)
    return labels, sites, shares


def unpack(text: str) -> np.ndarray:
    """Coordinates or occupancies [n] of a packed column. Raises ValueError or TypeError."""
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<i4") / STEPS


def composition_of(formula: str) -> dict[str, float]:
    """Amount by symbol of a sum formula like "K (Al.58 Si1.42) O6.25"; no bracket has a factor; D is deuterium."""
    amounts: dict[str, float] = {}
    for symbol, amount in re.findall(r"([A-Z][a-z]?)(\d*\.?\d*)", formula or ""):
        amounts[symbol] = amounts.get(symbol, 0.0) + float(amount or 1)
    return amounts


def element_of(label: str, formula: dict[str, float]) -> int:
    """Atomic number of a site such as SiT1, OA or Wat2 (the O of a water): the longest match in the formula."""
    if label.startswith("Wat"):
        return 8
    numbers, _, _ = elements()
    for pattern in (r"[A-Z][a-z]", r"[A-Z]"):
        found = re.match(pattern, label)
        if found and found[0] in formula and found[0] in numbers:
            return numbers[found[0]]
    raise Unusable(f"site {label!r} is no element of the formula")


def _check_distances(labels, sites, shares, fractional, site, cell) -> None:
    """Raise Unusable where two atoms that are there at the same time nearly coincide."""
    first = np.flatnonzero(np.diff(site, prepend=-1))  # one atom of each site
    offset = fractional[first][:, None] - fractional  # [n, A, 3]
    distance = np.linalg.norm((offset - np.round(offset)) @ cell, axis=2)
    distance[np.arange(len(first)), first] = np.inf
    together = (distance < CLOSEST) & (shares[site[first]][:, None] + shares[site] > CROWDED)
    if together.any():
        i, j = np.argwhere(together)[0]
        filled = f"with occupancies {shares[i]:g} and {shares[site[j]]:g}"
        raise Unusable(f"{labels[i]} and {labels[site[j]]} {distance[i, j]:.2f} angstrom apart {filled}")


def _check_composition(numbers: np.ndarray, shares: np.ndarray, formula: dict[str, float]) -> None:
    """Raise Unusable where the cell's elements other than hydrogen are not in the proportions of the formula."""
    number_of, _, _ = elements()
    heavy = {symbol: amount for symbol, amount in formula.items() if number_of[symbol] > 1}
    total, expected = shares[numbers > 1].sum(), sum(heavy.values())
    for symbol, amount in heavy.items():
        found = shares[numbers == number_of[symbol]].sum() / total if total else 0.0
        if abs(found - amount / expected) > SHARES:
            raise Unusable(f"{found:.3f} of the atoms are {symbol}, in the formula {amount / expected:.3f} (without H)")


def _check_density(numbers, shares, cell, formula: dict[str, float], reported: str) -> None:
    """Raise Unusable where the density in g/cm3 differs from the reported one; hydrogen is left out of both."""
    number_of, mass_of, atomic_masses = elements()
    masses = {symbol: mass_of[symbol] * amount for symbol, amount in formula.items()}
    heavy = sum(mass for symbol, mass in masses.items() if number_of[symbol] > 1)
    if not heavy:
        return
    found = (shares * atomic_masses[numbers])[numbers > 1].sum() / abs(np.linalg.det(cell)) * DALTON
    expected = float(reported) * heavy / sum(masses.values())
    if abs(found - expected) > DENSITY * expected:
        raise Unusable(f"density {found:.3g} g/cm3, reported {expected:.3g} (without H)")
