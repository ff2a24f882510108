"""AMCSD: packed columns, symmetry operations, expansion of the asymmetric unit; minerals checked by hand."""

import base64
import json
import sqlite3

import numpy as np
import pytest

from projects import Project
from replimat import cards, datasets, sources
from replimat.datasets import amcsd
from replimat.datasets.base import Structures
from replimat.datasets.rows import Rows
from replimat.errors import DataError, SourceError
from replimat.files import sha256

TARGETS = {
    "crystal_system": "1",
    "space_group": "1",
    "mineral": "1",
    **dict.fromkeys("abc", "angstrom"),
    **dict.fromkeys(("alpha", "beta", "gamma"), "degree"),
}
PM3M = [
    f"{','.join(sign + axis for sign, axis in zip(signs, axes, strict=True))}"
    for axes in ("xyz", "xzy", "yxz", "yzx", "zxy", "zyx")
    for signs in np.array(np.meshgrid(*[["", "-"]] * 3)).reshape(3, -1).T.tolist()
]
SETTINGS = {
    1: ("P m -3 m", PM3M),
    2: ("P -1 %var1%", ["x,y,z", "1/2-x,-y,-z"]),  # another origin
    3: ("F d -3 m", PM3M),
    4: ("P 1", ["x,y,z", "x,y"]),
}
# id: setting, cell, formula, density, sites, coordinates, occupancies
CSCL = (1, "4.12 4.12 4.12 90 90 90", "Cs Cl", 3.99, ["Cs", "Cl1"], [[0, 0, 0], [0.5, 0.5, 0.5]], None)


def packed(values) -> str:
    return base64.b64encode(np.round(np.array(values) * amcsd.STEPS).astype("<i4").tobytes()).decode()


def database(path, entries: dict) -> None:
    """A database with the tables of the real one, of the given entries."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = "id, a, b, c, alpha, beta, gamma, formula, crystal_density, atoms_sites, atoms_x, atoms_y, atoms_z"
    with sqlite3.connect(path) as base:
        base.execute("create table spacegroups (id, hm_notation, symmetry_xyz)")
        base.execute("create table minerals (id, name)")
        base.execute(f"create table cif ({columns}, atoms_occupancy, spacegroup_id, mineral_id)")
        base.executemany("insert into minerals values (?, ?)", [(1, "Zinc"), (2, "Albite"), (3, "<missing>")])
        groups = [(key, symbol, json.dumps(group)) for key, (symbol, group) in SETTINGS.items()]
        base.executemany("insert into spacegroups values (?, ?, ?)", groups)
        for key, (group, cell, formula, density, labels, sites, shares) in entries.items():
            axes = [packed(column) for column in zip(*sites, strict=True)]
            row = [key, *cell.split(), formula, str(density), json.dumps(labels), *axes]
            row += ["0" if shares is None else packed(shares), group, key % 3 + 1]
            base.execute(f"insert into cif values ({','.join('?' * 16)})", row)
    base.close()


@pytest.fixture
def project(tmp_path, monkeypatch):
    return Project(tmp_path, monkeypatch)


def load(project, entries: dict):
    path = project.data / "tiny" / "amcsd_cif1.db"
    database(path, entries)
    entry = {"path": "x", "save_as": path.name, "sha256": sha256(path), "bytes": path.stat().st_size}
    targets = {name: {"unit": unit, "description": "d"} for name, unit in TARGETS.items()}
    project.card(
        "tiny", {"kind": "url", "url": "http://127.0.0.1:9/", "members": [entry]}, reader="amcsd", targets=targets
    )
    return datasets.load("tiny")


# ------------------------------------------------------------------------------------------------------ by hand


def test_columns_are_unpacked_in_steps_of_a_quarter_millionth():
    assert amcsd.unpack(packed([0.25, -0.5, 1.0])).tolist() == [0.25, -0.5, 1.0]


@pytest.mark.parametrize(
    ("text", "rotation", "translation"),
    [
        ("x,y,z", [[1, 0, 0], [0, 1, 0], [0, 0, 1]], [0, 0, 0]),
        ("1/2-x, y-x, Z+.25", [[-1, 0, 0], [-1, 1, 0], [0, 0, 1]], [0.5, 0, 0.25]),
        ("+z,2/3+x-y,-1/4-z", [[0, 0, 1], [1, -1, 0], [0, 0, -1]], [0, 2 / 3, -0.25]),
    ],
)
def test_operations_by_hand(text, rotation, translation):
    found = amcsd.operation(text)
    assert found[0].tolist() == rotation and found[1] == pytest.approx(translation)


@pytest.mark.parametrize("text", ["x,y", "x,y,w", "x;y;z", "__import__('os'),y,z", "x,y,1/0"])
def test_what_is_no_operation_is_refused(text):
    with pytest.raises(ValueError, match="no symmetry operation"):
        amcsd.operation(text)


def test_cell_of_a_rhombohedron():
    cell = amcsd.cell_matrix(2.0, 2.0, 2.0, 60, 60, 60)
    assert np.linalg.norm(cell, axis=1) == pytest.approx([2, 2, 2])
    assert cell @ cell.T == pytest.approx(np.full((3, 3), 2.0) + 2 * np.eye(3))
    assert np.linalg.det(cell) == pytest.approx(8 / np.sqrt(2))


@pytest.mark.parametrize(
    ("label", "formula", "number"),
    [
        ("SiT1", "Si O2", 14),
        ("OA", "Si O2", 8),
        ("Oc", "C O2", 8),
        ("Wat2", "Na", 8),
        ("CaM", "C O", 6),
        ("D1", "D2 O", 1),
    ],
)
def test_element_of_a_site(label, formula, number):
    assert amcsd.element_of(label, amcsd.composition_of(formula)) == number


def test_formula_by_hand():
    assert amcsd.composition_of("K (Al.58 Si1.42) O6.25 H.5") == {"K": 1, "Al": 0.58, "Si": 1.42, "O": 6.25, "H": 0.5}


def test_a_tiny_database(project):
    cell = "5 6 7 80 85 95"
    triclinic = (2, cell, "Fe.5 Mg.5", 0.65, ["Fe", "Mg"], [[0.1, 0.2, 0.3]] * 2, [0.5, 0.5])
    data = load(project, {1: CSCL, 2: triclinic})
    assert data.ids.tolist() == ["1", "2"] and not data.left_out
    assert data.target("crystal_system").tolist() == [6, 0] and data.target("space_group").tolist() == [221, 2]
    assert [data.target(name)[1] for name in ("a", "b", "c", "alpha", "beta", "gamma")] == [5, 6, 7, 80, 85, 95]
    numbers, positions, _ = data.structures[0]
    assert numbers.tolist() == [55, 17] and positions[1] == pytest.approx([2.06] * 3)
    numbers, positions, cell = data.structures[1]
    assert numbers.tolist() == [26, 26, 12, 12]
    assert (positions @ np.linalg.inv(cell))[1] == pytest.approx([0.4, 0.8, 0.7])
    assert data.structures.occupancies.tolist() == [1, 1, 0.5, 0.5, 0.5, 0.5]
    assert amcsd.mineral_names(project.data / "tiny") == {"1": "Albite", "2": "Fe.5 Mg.5"}
    assert data.target("mineral").tolist() == [0, 1]


def test_a_site_beside_its_symmetry_element_is_one_atom(project):
    near = (*CSCL[:5], [[0, 0, 0], [0.499, 0.5, 0.501]], None)
    data = load(project, {1: near})
    assert data.structures.sizes.tolist() == [2]
    assert data.structures[0][1][1] == pytest.approx([2.06] * 3)


BROKEN = {
    1: (4, *CSCL[1:]),
    2: (3, *CSCL[1:]),
    3: (1, "4.12 4.3 4.12 90 90 90", *CSCL[2:]),
    4: (1, "4.12 ? 4.12 90 90 90", *CSCL[2:]),
    5: (9, *CSCL[1:]),
    6: (*CSCL[:4], ["Cs", "Q1"], *CSCL[5:]),
    7: (*CSCL[:5], [[0, 0, 0], [2.0, 0.5, 0.5]], None),
    8: (*CSCL[:5], [[0, 0, 0], [0, 0, 0]], None),
    9: (*CSCL[:3], 1.5, *CSCL[4:]),
    10: (*CSCL[:2], "Cs Cl2", *CSCL[3:]),
    11: (*CSCL[:4], ["Cs"], *CSCL[5:]),
    12: (*CSCL[:6], [1.0, 1.07]),
    13: (*CSCL[:6], [1.0, -0.2]),
    14: (2, "5 6 7 10 20 100", *CSCL[2:]),
    15: (*CSCL[:6], [1.0, 0.0]),
}


def test_every_broken_row_is_named_with_its_reason(project):
    data = load(project, BROKEN | {99: CSCL})
    assert data.ids.tolist() == ["99"]
    expected = {
        "1": "operations of 'P 1' are not readable",
        "2": "operations of No. 221, but the symbol 'F d -3 m' is No. 227",
        "3": "the cell contradicts space group No. 221",
        "4": "b is '?'",
        "5": "no space group",
        "6": "site 'Q1' is no element of the formula",
        "7": "a coordinate or an occupancy is unknown",
        "8": "Cs and Cl1 0.00 angstrom apart with occupancies 1 and 1",
        "9": "g/cm3, reported 1.5 (without H)",
        "10": "0.500 of the atoms are Cs, in the formula 0.333",
        "11": "1 sites with 2 coordinates and 1 occupancies",
        "12": "a site of occupancy 1.07",
        "13": "a site of occupancy -0.2",
        "14": "angles 10, 20, 100 span no cell",
        "15": "a site of occupancy 0,",
    }
    assert data.left_out.keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in data.left_out[name], (name, data.left_out[name])


def test_a_file_that_is_no_database_stops(project, tmp_path):
    members = project.raw("tiny", amcsd_db="not a database, only text" * 50)
    project.card("tiny", {"kind": "url", "url": "http://127.0.0.1:9/", "members": members}, reader="amcsd")
    with pytest.raises(DataError, match=r"amcsd\.db: not the expected database"):
        datasets.load("tiny")


# -------------------------------------------------------------------------------------------------- occupancies


def test_occupancies_stay_with_their_atoms():
    triples = [(np.full(n, n), np.full((n, 3), float(n)), np.eye(3) * n) for n in (2, 1, 3)]
    packed_up = Structures.pack(triples, True, [np.array([0.2, 0.3]), None, np.array([0.5, 0.6, 0.7])])
    assert packed_up.take(np.array([2, 1, 0])).occupancies.tolist() == [0.5, 0.6, 0.7, 1.0, 0.2, 0.3]
    assert Structures.pack(triples, True, [None] * 3).occupancies is None


@pytest.mark.parametrize("share", [0.0, -0.5, 1.06, np.nan, np.inf])
def test_an_occupancy_that_is_none_leaves_the_row_out(project, share):
    project.card("shares", {"kind": "computed", "engine": "none"})
    rows = Rows(cards.dataset("shares"))
    pair = (np.array([55, 17]), np.array([[0, 0, 0], [2.06, 2.06, 2.06]]), np.eye(3) * 4.12)
    rows.add("right", pair, {}, np.array([1.05, 1e-4]))
    rows.add("wrong", pair, {}, np.array([1.0, share]))
    assert rows.dataset().ids.tolist() == ["right"] and f"occupancy {share:g}" in rows.left_out["wrong"]


def test_many_nearly_empty_sites_are_not_too_dense(project):
    project.card("shares", {"kind": "computed", "engine": "none"})
    rows = Rows(cards.dataset("shares"))
    crowd = (np.full(100, 29), np.random.default_rng(0).random((100, 3)) * 4, np.eye(3) * 4)
    rows.add("disordered", crowd, {}, np.full(100, 0.05))
    rows.add("full", crowd, {})
    assert rows.ids == ["disordered"] and "for 100 atoms" in rows.left_out["full"]


def test_occupancies_count_in_the_hash_and_survive_the_cache(project):
    from dataclasses import replace

    shares = (*CSCL[:6], [0.999, 1.0])
    data = load(project, {1: shares})
    assert data.structures.occupancies.tolist() == [0.999, 1.0]
    again = datasets.load("tiny")
    assert again.structures.occupancies.tolist() == [0.999, 1.0] and again.sha256 == data.content_sha256()
    full = replace(data, structures=replace(data.structures, occupancies=None))
    assert full.content_sha256() != data.sha256


# ---------------------------------------------------------------------------------------------------- real data


@pytest.fixture(scope="module")
def real():
    cards.dataset.cache_clear()
    try:
        sources.fetch("amcsd")
    except SourceError as error:
        pytest.skip(f"amcsd is not here and cannot be fetched: {error}")
    return datasets.load("amcsd"), amcsd.mineral_names(sources.folder_of("amcsd"))


MINERALS = {  # atoms per cell, counts by atomic number, space group, edges in angstrom, density in g/cm3
    "Halite": ({11: 4, 17: 4}, 225, (5.64, 5.64, 5.64), 2.165),
    "Quartz": ({14: 3, 8: 6}, (152, 154), (4.913, 4.913, 5.405), 2.65),
    "Fluorite": ({20: 4, 9: 8}, 225, (5.463, 5.463, 5.463), 3.18),
    "Diamond": ({6: 8}, 227, (3.567, 3.567, 3.567), 3.515),
    "Calcite": ({20: 6, 6: 6, 8: 18}, 167, (4.99, 4.99, 17.06), 2.71),
}


@pytest.mark.parametrize("name", MINERALS)
def test_well_known_minerals(real, name):
    from ase.data import atomic_masses

    data, names = real
    content, groups, edges, density = MINERALS[name]
    found = 0
    for row in np.flatnonzero([names[key] == name for key in data.ids]):
        numbers, _, cell = data.structures[row]
        mass = atomic_masses[numbers].sum() * amcsd.DALTON
        near = np.allclose([data.target(axis)[row] for axis in "abc"], edges, rtol=0.01)
        kinds = dict(zip(*(part.tolist() for part in np.unique(numbers, return_counts=True)), strict=True))
        if near and kinds == content:
            assert data.target("space_group")[row] in np.atleast_1d(groups)
            assert mass / np.linalg.det(cell) == pytest.approx(density, rel=0.03)
            found += 1
    assert found >= 1, name


def test_bonds_of_halite_and_quartz(real):
    data, names = real
    bonds = {"Halite": (5.64, 11, 17, 2.82, 6), "Quartz": (4.913, 14, 8, 1.61, 4)}
    for name, (edge, centre, ligand, length, coordination) in bonds.items():
        ambient = np.abs(data.target("a") - edge) < 0.01
        row = next(i for i, key in enumerate(data.ids) if names[key] == name and ambient[i])
        numbers, positions, cell = data.structures[row]
        shifts = np.array(np.meshgrid(*[(-1, 0, 1)] * 3)).reshape(3, -1).T @ cell
        others = (positions[numbers == ligand][:, None] + shifts).reshape(-1, 3)
        distance = np.sort(np.linalg.norm(others - positions[numbers == centre][0], axis=1))
        assert distance[:coordination] == pytest.approx(length, abs=0.03) and distance[coordination] > length + 0.5


def test_counts_on_the_card(real):
    data, names = real
    systems = np.bincount(data.target("crystal_system").astype(int), minlength=7)
    assert systems.tolist() == [64, 1092, 1936, 1148, 1160, 915, 2894] and len(data.left_out) == 66
    order = {name: place for place, name in enumerate(sorted(set(names.values())))}
    assert [order[names[key]] for key in data.ids] == data.target("mineral").tolist()
    shares = data.structures.occupancies
    assert shares.min() > 0 and shares.max() <= 1.05


def test_left_out_entries_are_the_ones_on_the_card(real):
    data, _ = real
    assert "contradicts" in data.left_out["12842"] and "reported" in data.left_out["14168"]
    assert "apart" in data.left_out["1963"] and "symbol" in data.left_out["15287"]
    assert all(key in data.left_out for key in ("121", "18296", "18575", "18576"))
