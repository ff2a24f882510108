"""Measured patterns and candidate phases of the papers: readers, members from a csv file, and what is refused."""

import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from projects import Project, member, sha256
from replimat import cards, datasets, sources
from replimat.datasets import batio3_ramp, rockjock
from replimat.datasets.patterns import MeasuredPatterns, check, load_patterns
from replimat.errors import CardError, DataError, IntegrityError, SourceError

NOWHERE = "http://127.0.0.1:9/"
MIRROR = os.environ.get("REPLIMAT_MIRROR")


@pytest.fixture
def project(tmp_path, monkeypatch):
    return Project(tmp_path, monkeypatch)


def put(project, name: str, reader: str, files: dict[str, bytes], **fields) -> None:
    """Members in the folder of a card of paper data, and the card with its members in a csv file."""
    folder = project.root / "data-paper" / name
    lines = ["path,save_as,bytes,sha256"]
    for save_as, content in files.items():
        (folder / save_as).parent.mkdir(parents=True, exist_ok=True)
        (folder / save_as).write_bytes(content)
        lines.append(f"repo/{save_as},{save_as},{len(content)},{sha256(content)}")
    (project.root / "datasets" / f"{name}.csv").write_text("\n".join(lines) + "\n")
    source = {"kind": "url", "url": NOWHERE, "members_from": f"{name}.csv"}
    project.card(name, source, reader=reader, data="paper", **{"kind": "patterns"} | fields)


def object_array(content, tmp_path) -> bytes:
    """What numpy writes of a dictionary."""
    np.save(tmp_path / "array.npy", content, allow_pickle=True)
    return (tmp_path / "array.npy").read_bytes()


def plain_array(values, tmp_path) -> bytes:
    np.save(tmp_path / "array.npy", values, allow_pickle=False)
    return (tmp_path / "array.npy").read_bytes()


# --------------------------------------------------------------------------------------------- members of a card


def test_members_come_from_a_csv_file(project):
    put(project, "many", "batio3_ramp", {"a.npy": b"x", "deep/b.npy": b"yz"})
    members = [(each.path, each.save_as, each.bytes) for each in cards.dataset("many").source.members]
    assert members == [("repo/a.npy", "a.npy", 1), ("repo/deep/b.npy", "deep/b.npy", 2)]
    sources.verify("many")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,bytes,sha256\n", r"many\.csv: columns are"),
        ("path,save_as,bytes,sha256\nx,../y,1," + "0" * 64 + "\n", "must stay inside"),
        ("path,save_as,bytes,sha256\nx,y,1\n", "sha256"),
        ("path,save_as,bytes,sha256\n", "at least 1 item"),
    ],
)
def test_a_malformed_list_of_members_is_an_error(project, text, message):
    put(project, "many", "batio3_ramp", {"a.npy": b"x"})
    (project.root / "datasets" / "many.csv").write_text(text)
    cards.dataset.cache_clear()
    with pytest.raises(CardError, match=message):
        cards.dataset("many")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"members_from": "nothing.csv"}, "members_from cannot be read"),
        ({"members_from": "../many.csv"}, "members_from"),
        ({"members_from": "many.csv", "members": [member("a", b"x")]}, "one of them"),
    ],
)
def test_members_from_names_one_file_beside_the_card(project, source, message):
    put(project, "many", "batio3_ramp", {"a.npy": b"x"})
    project.card("many", {"kind": "url", "url": NOWHERE} | source)
    with pytest.raises(CardError, match=message):
        cards.dataset("many")


# ------------------------------------------------------------------------------------------------------- checks


def two_patterns(**changes) -> MeasuredPatterns:
    axis, intensity = [np.arange(4.0)] * 2, [np.ones(4), np.arange(4.0)]
    labels = {"lengths": np.ones((2, 3))}
    data = MeasuredPatterns("two", np.array(["a", "b"]), axis, intensity, labels, "q, 1/angstrom", np.ones(2))
    return replace(data, **changes)


def test_patterns_are_hashed_whole():
    data = two_patterns()
    variants = [
        two_patterns(ids=np.array(["a", "c"])),
        two_patterns(intensity=[np.ones(4)] * 2),
        two_patterns(axis=[np.arange(4.0) + 1] * 2),
        two_patterns(labels={"lengths": np.zeros((2, 3))}),
        two_patterns(wavelengths=np.full(2, 1.5)),
    ]
    assert len({data.content_sha256(), *(variant.content_sha256() for variant in variants)}) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": np.array(["a", "a"])}, "1 ids stand more than once"),
        ({"intensity": [np.ones(4), np.array([1, np.nan, 1, np.inf])]}, "pattern b: 2 points are not finite"),
        ({"intensity": [np.ones(4), np.ones(5)]}, "pattern b: axis .* are no pattern"),
        ({"axis": [np.arange(4.0), np.array([0.0, 2, 1, 3])]}, "pattern b: the axis does not ascend"),
        ({"intensity": [np.zeros(4), np.ones(4)]}, "pattern a: no intensity is positive"),
        ({"labels": {"lengths": np.ones((3, 3))}}, "2 patterns with arrays for"),
        ({"labels": {"lengths": np.full((2, 3), np.nan)}}, "label 'lengths': a value is not finite"),
        ({"wavelengths": np.array([1.5, 0.0])}, "a wavelength is not a positive number"),
    ],
)
def test_patterns_that_are_none_are_refused(project, changes, message):
    put(project, "two", "batio3_ramp", {"a": b"x"}, rows=2)
    with pytest.raises(DataError, match=message):
        check(two_patterns(**changes), cards.dataset("two"))


def test_structures_and_patterns_are_loaded_by_their_own_functions(project):
    put(project, "two", "batio3_ramp", {"a": b"x"})
    with pytest.raises(DataError, match=r"use .*load_patterns"):
        datasets.load("two")
    put(project, "three", "xca_cifs", {"a": b"x"}, kind="structures")
    with pytest.raises(DataError, match="holds structures, not patterns"):
        load_patterns("three")


# ------------------------------------------------------------------------------------------------------ readers


def mineral(system: int, group: int, value: float = 1.0) -> dict:
    features = np.full((1, 8500), value, dtype=np.float32)
    return {"features": features, "labels7": np.int64(system), "labels230": np.int64(group - 1)}


def test_rruff_patterns_by_hand(project, tmp_path):
    files = {"0.npy": object_array(mineral(6, 225), tmp_path), "1.npy": object_array(mineral(1, 14, 2.0), tmp_path)}
    put(project, "rruff", "rruff_patterns", files, rows=2)
    data = load_patterns("rruff")
    assert data.ids.tolist() == ["0", "1"] and data.sha256 == data.content_sha256()
    assert data.labels["crystal_system"].tolist() == [6, 1] and data.labels["space_group"].tolist() == [225, 14]
    assert data.axis[0][[0, 1, -1]] == pytest.approx([5.0, 5.01, 89.99]) and (data.intensity[1] == 2).all()


class Attack:
    def __reduce__(self):
        return os.system, ("touch attacked",)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ({"features": Attack()}, SourceError, r"asks for \w+\.system, which is not allowed"),
        ({"features": np.ones((1, 8500))}, DataError, "not the expected dictionary .KeyError"),
        (mineral(7, 225), DataError, "crystal system 7 and space group 225 do not exist"),
        (mineral(6, 225) | {"features": np.ones((1, 100))}, DataError, "not the expected dictionary .ValueError"),
        (mineral(6, 225, np.nan), DataError, "pattern 0: 8500 points are not finite"),
    ],
)
def test_rruff_files_that_are_none_are_refused(project, tmp_path, monkeypatch, content, error, message):
    monkeypatch.chdir(tmp_path)
    put(project, "rruff", "rruff_patterns", {"0.npy": object_array(content, tmp_path)})
    with pytest.raises(error, match=message):
        load_patterns("rruff")
    assert not (tmp_path / "attacked").exists()


def test_truncated_and_plain_files_are_refused_by_rruff(project, tmp_path):
    whole = object_array(mineral(6, 225), tmp_path)
    for damaged in (whole[:20_000], whole[:40], b"", pickle.dumps(mineral(6, 225)), plain_array(np.ones(3), tmp_path)):
        put(project, "rruff", "rruff_patterns", {"0.npy": damaged or b" "})
        with pytest.raises((SourceError, DataError), match=r"0\.npy: not "):
            load_patterns("rruff")


def test_batio3_ramp_by_hand(project, tmp_path):
    files = {f"BTO_{t}K_tth.npy": plain_array(np.full((3488, 1), t / 445), tmp_path) for t in (445, 150)}
    put(project, "ramp", "batio3_ramp", files)
    data = load_patterns("ramp")
    assert data.labels["temperature"].tolist() == [150, 445] and data.intensity[1].max() == 1
    assert data.axis[0][[0, -1]].tolist() == [0.01123, 24.85317] and data.wavelengths.tolist() == [0.1671] * 2


def test_batio3_files_that_are_none_are_refused(project, tmp_path):
    whole = plain_array(np.ones((3488, 1)), tmp_path)
    attack = object_array({"x": Attack()}, tmp_path)
    for damaged in (whole[:5000], whole[:20], attack, plain_array(np.ones(100), tmp_path)):
        put(project, "ramp", "batio3_ramp", {"BTO_150K_tth.npy": damaged})
        with pytest.raises(DataError, match="not 3488 intensities"):
            load_patterns("ramp")
    put(project, "other", "batio3_ramp", {"BTO_warm.npy": whole})
    with pytest.raises(DataError, match=r"BTO_warm\.npy: expected a name like"):
        load_patterns("other")


LABELS = "Material,Name,Crystal System,a,b,c,alpha,beta,gamma,Wavelength\n"
SALT = "salt,NaCl,Cubic,5.64,5.63,5.62,90,90,90,0.7\n"
CURVE = "2.0\t-1.5\n2.005\t3.0\n2.01\t1.0\n"


def ssrl(project, labels: str = "\ufeff" + LABELS + SALT, curve: str = CURVE) -> MeasuredPatterns:
    put(project, "ssrl", "ssrl_patterns", {"ssrl_labels.csv": labels.encode(), "XYdata/salt.xy": curve.encode()})
    return load_patterns("ssrl")


def test_ssrl_patterns_by_hand(project):
    data = ssrl(project)
    assert data.ids.tolist() == ["salt"] and data.labels["crystal_system"].tolist() == [6]
    assert data.labels["lengths"].tolist() == [[5.62, 5.63, 5.64]] and data.labels["compound"].tolist() == ["NaCl"]
    assert data.wavelengths.tolist() == [0.7] and data.intensity[0].tolist() == [-1.5, 3.0, 1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": LABELS + SALT.replace("Cubic", "cubical")}, "line 2: not a crystal system"),
        ({"labels": LABELS + "salt,NaCl,Cubic,5.64\n"}, "line 2: not a crystal system"),
        ({"labels": LABELS + SALT.replace("5.63", "?")}, "not all numbers"),
        ({"labels": LABELS + SALT.replace("salt,", "sugar,")}, "sugar.xy"),
        ({"curve": CURVE + "2.02"}, "salt.xy: not two columns"),
        ({"curve": "1\t2\t3\n"}, "3 columns, expected 2"),
        ({"curve": CURVE.replace("3.0", "nan")}, "pattern salt: 1 points are not finite"),
    ],
)
def test_ssrl_files_that_are_none_are_refused(project, change, message):
    with pytest.raises(DataError, match=message):
        ssrl(project, **change)


def test_rockjock_files_that_are_none_are_refused(project):
    pytest.importorskip("rdata")
    names = ("rockjock_mixtures.rda", "rockjock_weights.rda")
    put(project, "rock", "rockjock", dict.fromkeys(names, b"RDX3\nX\nno such thing"))
    with pytest.raises(DataError, match=r"rockjock_mixtures\.rda: not readable as R data"):
        load_patterns("rock")


def test_rockjock_by_hand(project, monkeypatch):
    import pandas as pd

    mixtures = {"Mix1": pd.DataFrame({"tth": [5.0, 5.02], "counts": [7, 9]})}
    truth = pd.DataFrame({"sample_id": ["Mix0", "Mix1"], **{name: [0.0, 100 / 7] for name in rockjock.PHASES}})
    phases = pd.DataFrame({"phase_id": ["A", "B"], "phase_name": ["Corundum", "Quartz"], "rir": [1.0, 3.5]})
    content = {"tth": [5.0, 5.02], "xrd": pd.DataFrame({"B": [1, 2], "A": [3, 4]}), "phases": phases}
    objects = {"rockjock_mixtures": mixtures, "rockjock_weights": truth, "rockjock": content}
    monkeypatch.setattr(rockjock, "_object", lambda path, name: objects[name])
    put(project, "rock", "rockjock", {"a.rda": b"x"}, rows=1)
    data = load_patterns("rock")
    assert data.intensity[0].tolist() == [7, 9] and data.labels["weights"].sum() == pytest.approx(100)
    references = rockjock.read_references(Path(), cards.dataset("rock"))
    assert references.names.tolist() == ["B", "A"] and references.phases.tolist() == ["Quartz", "Corundum"]
    assert references.rir.tolist() == [3.5, 1.0] and references.intensities.tolist() == [[1, 2], [3, 4]]
    content["phases"] = phases.iloc[:1]
    with pytest.raises(DataError, match="not the expected reference patterns"):
        rockjock.read_references(Path(), cards.dataset("rock"))


CIF = """data_x
_cell_length_a 4.0
_cell_length_b 4.0
_cell_length_c 4.0
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P m -3 m'
loop_
_symmetry_equiv_pos_as_xyz
'x, y, z'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Ba1 Ba 0 0 0 0.75
Sr1 Sr 0 0 0 0.25
Ti1 Ti 0.5 0.5 0.5 1
"""


def test_cifs_by_hand(project):
    targets = {"space_group": {"unit": "1", "description": "d"}}
    files = {"cifs-A/cubic.cif": CIF.encode(), "cifs-A/broken.cif": CIF[:300].encode()}
    put(project, "cifs", "xca_cifs", files, kind="structures", targets=targets)
    data = datasets.load("cifs")
    assert data.ids.tolist() == ["A-cubic"] and list(data.left_out) == ["A-broken"]
    assert data.target("space_group").tolist() == [221]
    numbers, positions, _ = data.structures[0]
    assert dict(zip(numbers.tolist(), data.structures.occupancies, strict=True)) == {22: 1.0, 38: 0.25, 56: 0.75}
    assert positions[numbers == 22] == pytest.approx(np.full((1, 3), 2.0))


# ---------------------------------------------------------------------------------------------------- real data


@pytest.fixture
def real(tmp_path, monkeypatch):
    """Fetches a real dataset from the mirror into an empty project; returns its folder."""
    if not MIRROR:
        pytest.skip("REPLIMAT_MIRROR is not set: the papers' own data are not here")
    checkout = cards.project_root()
    project = Project(tmp_path, monkeypatch)
    project.setenv("REPLIMAT_MIRROR", MIRROR)

    def fetch(name: str) -> Path:
        for path in (checkout / "datasets").glob(f"{name}.*"):
            (project.root / "datasets" / path.name).write_bytes(path.read_bytes())
        cards.dataset.cache_clear()
        return sources.fetch(name)

    yield fetch
    cards.dataset.cache_clear()


def near(axis: np.ndarray, intensity: np.ndarray, wavelength: float, spacing: float, window: float = 0.5) -> float:
    """Where the highest point within `window` degree of a reflection lies, relative to it, degree."""
    expected = 2 * np.degrees(np.arcsin(wavelength / (2 * spacing)))
    inside = np.abs(axis - expected) < window
    return axis[inside][intensity[inside].argmax()] - expected


@pytest.mark.mirror
def test_real_rruff(real):
    real("rruff_patterns")
    data = load_patterns("rruff_patterns")
    assert np.bincount(data.labels["crystal_system"], minlength=7).tolist() == [95, 321, 207, 82, 0, 71, 132]
    assert len(set(data.labels["space_group"])) == 89
    last = np.array([2, 15, 74, 142, 167, 194, 230])
    assert (np.searchsorted(last, data.labels["space_group"]) == data.labels["crystal_system"]).all()


@pytest.mark.mirror
def test_real_batio3_peaks_are_where_the_cubic_cell_puts_them(real):
    real("batio3_ramp")
    data = load_patterns("batio3_ramp")
    assert data.labels["temperature"].tolist() == list(range(150, 450, 5))
    assert near(data.axis[-1], data.intensity[-1], batio3_ramp.WAVELENGTH, 4.01 / np.sqrt(2)) == pytest.approx(
        0, abs=0.03
    )


@pytest.mark.mirror
def test_real_ssrl_peaks_are_where_the_refined_cells_put_them(real):
    real("ssrl_patterns")
    data = load_patterns("ssrl_patterns")
    rows = dict(zip(data.ids.tolist(), range(len(data)), strict=True))
    reflections = {"BL21Robot_0001": 2, "BL21Robot_0114": 4, "BL21Robot_0115": 4, "BL21Robot_0101": 3}  # h2 + k2 + l2
    for name, squares in reflections.items():
        i = rows[name]
        spacing = data.labels["lengths"][i, 0] / np.sqrt(squares)
        assert near(data.axis[i], data.intensity[i], data.wavelengths[i], spacing) == pytest.approx(0, abs=0.05), name


@pytest.mark.mirror
def test_real_rockjock(real):
    pytest.importorskip("rdata")
    folder = real("rockjock")
    data = load_patterns("rockjock")
    assert data.labels["weights"].sum(axis=1) == pytest.approx(100) and (data.labels["weights"][:, -1] == 20).all()
    references = rockjock.read_references(folder, cards.dataset("rockjock"))
    assert references.intensities.shape == (168, 3001) and set(rockjock.PHASES.values()) <= set(references.phases)
    spacings = {"QUARTZ": 3.343, "CORUNDUM": 2.085, "HALITE": 2.821}
    for name, spacing in spacings.items():
        curve = references.intensities[references.names.tolist().index(name)]
        assert near(references.axis, curve, rockjock.WAVELENGTH, spacing) == pytest.approx(0, abs=0.1), name


@pytest.mark.mirror
def test_real_xca_phases(real):
    real("xca_cifs")
    data = datasets.load("xca_cifs")
    cubic = data.ids.tolist().index("BaTiO-cubic")
    assert sorted(data.structures[cubic][0].tolist()) == [8, 8, 8, 22, 56] and data.target("space_group")[cubic] == 221
    counts = [sum(key.startswith(system) for key in data.ids) for system in ("BaTiO-", "NiCoAl-", "ADTA-")]
    assert counts == [4, 31, 5] and not data.left_out


@pytest.mark.mirror
def test_a_changed_pattern_is_noticed(real):
    path = real("batio3_ramp") / "BTO_150K_tth.npy"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(IntegrityError, match=r"BTO_150K_tth\.npy has 28,024 bytes"):
        load_patterns("batio3_ramp")
