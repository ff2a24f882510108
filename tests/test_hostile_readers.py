"""Bad raw files: each reader gives a sound dataset, with its bad rows named, or one error that names the dataset."""

import resource
import shutil
from functools import cache

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from hostile import REPEATABLE, Text, damaged, with_another_word
from projects import Project
from replimat import cards, datasets
from replimat.cards import ComputedSource, DerivedSource
from replimat.datasets import jarvis_dft
from replimat.datasets.patterns import load_patterns
from replimat.datasets.thermoelectrics import power_factors
from replimat.errors import ReplimatError
from replimat.sources.store import verified_folder
from specimens import CIF, POSCAR, Specimen, specimens

QUICK = settings(REPEATABLE, max_examples=40)
GIGABYTE = 1 << 20  # KiB, as the system counts


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.fixture(scope="module", autouse=True)
def little_memory():
    """Fails where these tests took a gigabyte more than any before them."""
    before = peak_memory()
    yield
    assert peak_memory() - before < GIGABYTE


@pytest.fixture
def project(tmp_path, monkeypatch):
    return Project(tmp_path, monkeypatch)


def load(project, specimen: Specimen, contents: dict[str, bytes]):
    """What the library makes of these files."""
    shutil.rmtree(project.data, ignore_errors=True)
    name = specimen.put(project, contents)
    if specimen.kind == "patterns":
        return load_patterns(name)
    if specimen.kind == "targets":
        return power_factors(verified_folder(name) / next(iter(contents)))
    return datasets.load(name)


def require_sound(data, specimen: Specimen) -> None:
    """What every user of a dataset relies on; written without the library's own checks."""
    if specimen.kind == "targets":
        assert all(np.isfinite(value) for value in data.values())
        return
    assert len(set(data.ids.tolist())) == len(data.ids) > 0 and all(data.ids.tolist())
    if specimen.kind == "patterns":
        for axis, intensity in zip(data.axis, data.intensity, strict=True):
            assert np.isfinite(axis).all() and np.isfinite(intensity).all() and (axis[1:] > axis[:-1]).all()
        return
    for s in range(len(data)):
        numbers, positions, cell = data.structures[s]
        assert 0 < len(numbers) == len(positions) and 1 <= numbers.min() and numbers.max() <= 118
        assert np.isfinite(positions).all() and np.isfinite(cell).all()
        assert abs(np.linalg.det(cell)) > 0 or not specimen.periodic
    for name, values in data.targets.items():
        assert len(values) == len(data) and not np.isinf(values).any()
        assert {str(row) for row in data.ids[np.isnan(values)]} == set(data.missing.get(name, {}))
    for values in data.per_atom.values():
        assert len(values) == len(data.structures.numbers) and np.isfinite(values).all()


def require_sound_or_refused(project, specimen: Specimen, contents: dict[str, bytes]) -> None:
    try:
        data = load(project, specimen, contents)
    except ReplimatError as error:
        assert "bad" in str(error) and len(str(error)) < 2000, str(error)
        return
    require_sound(data, specimen)


# ------------------------------------------------------------------------------------------------ made-up files


@cache
def readers() -> set[str]:
    """Readers of raw files; computed and derived datasets have none."""
    made = (cards.dataset(name) for name in cards.dataset_names())
    return {card.reader for card in made if card.reader and not isinstance(card.source, ComputedSource | DerivedSource)}


def test_every_reader_has_a_specimen():
    assert readers() == {specimen.reader for specimen in specimens().values()}


@pytest.mark.parametrize("name", specimens())
def test_a_specimen_is_read_whole(project, name):
    specimen = specimens()[name]
    data = load(project, specimen, specimen.contents())
    assert len(data) == specimen.rows and not getattr(data, "left_out", None)
    require_sound(data, specimen)


@pytest.mark.parametrize("name", specimens())
@given(data=st.data())
@QUICK
def test_damaged_bytes(project, name, data):
    contents = specimens()[name].contents()
    file = data.draw(st.sampled_from(sorted(contents)))
    contents[file] = damaged(data.draw, contents[file]) or b"\n"  # a card has no empty members
    require_sound_or_refused(project, specimens()[name], contents)


@pytest.mark.parametrize("name", specimens())
@given(data=st.data())
@QUICK
def test_other_values(project, name, data):
    specimen = specimens()[name]
    contents = specimen.contents()
    file = data.draw(st.sampled_from(sorted(contents)))
    try:
        contents[file] = specimen.files[file].tampered(data.draw)
    except Exception:  # its writer refuses what is drawn, so that no file can hold it
        reject()
    require_sound_or_refused(project, specimen, contents)


OF_TEXT = [
    name
    for name, specimen in specimens().items()
    if specimen.kind == "structures" and all(isinstance(file, Text) for file in specimen.files.values())
]


@pytest.mark.parametrize("name", OF_TEXT)
@given(data=st.data())
@QUICK
def test_no_row_is_lost(project, name, data):
    """Another word for any one: every row is read, or named with the reason why not."""
    specimen = specimens()[name]
    contents = specimen.contents()
    file = data.draw(st.sampled_from(sorted(contents)))
    text = with_another_word(data.draw, specimen.files[file].text)
    contents[file] = specimen.files[file].pack(text.encode())
    try:
        found = load(project, specimen, contents)
    except ReplimatError:
        return
    assert len(found) + len(found.left_out) == specimen.rows and all(found.left_out.values())


BAD_CIFS = {
    "no loops": (CIF[: CIF.index("loop_")], "not readable"),
    "no cell": (CIF.replace("_cell_length", "_cell_nothing"), "not readable"),
    "an edge of zero": (CIF.replace("_cell_length_a 3.5", "_cell_length_a 0"), ""),
    "a negative edge": (CIF.replace("_cell_length_a 3.5", "_cell_length_a -3.5"), ""),
    "a flat angle": (CIF.replace("_cell_angle_gamma 90", "_cell_angle_gamma 180"), ""),
    "an edge that is no number": (CIF.replace("_cell_length_a 3.5", "_cell_length_a nan"), ""),
    "a huge edge": (CIF.replace("_cell_length_a 3.5", "_cell_length_a 1e308"), ""),
    "a negative occupancy": (CIF.replace("0.5 0.5 0.5 1", "0.5 0.5 0.5 -1"), ""),
    "an occupancy of five": (CIF.replace("0.5 0.5 0.5 1", "0.5 0.5 0.5 5"), "not readable"),
    "an unknown element": (CIF.replace("Na1 Na", "Xx1 Xx"), ""),
    "no number as a coordinate": (CIF.replace("Na1 Na 0 0 0", "Na1 Na nan 0 0"), ""),
    "an infinite coordinate": (CIF.replace("Na1 Na 0 0 0", "Na1 Na inf 0 0"), ""),
    "an unknown coordinate": (CIF.replace("Na1 Na 0 0 0", "Na1 Na ? 0 0"), ""),
    "two atoms at one place": (CIF.replace("0.5 0.5 0.5 1", "0 0 0 1"), ""),
    "a symmetry that is none": (CIF.replace("'x, y, z'", "'x, q, 7'"), ""),
    "a row too short": (CIF.replace("0.5 0.5 0.5 1", "0.5"), ""),
    "a space group that is none": (CIF.replace("Tables_number 1", "Tables_number none"), "not readable"),
    "nothing": ("\n", "not readable"),
}


@pytest.mark.parametrize("name", BAD_CIFS)
def test_a_bad_cif_is_named_beside_a_good_one(project, name):
    text, reason = BAD_CIFS[name]
    specimen = specimens()["xca_cifs"]
    data = load(project, specimen, {"cifs-A/bad.cif": text.encode(), "cifs-A/good.cif": CIF.encode()})
    assert data.ids.tolist() == ["A-good"] and reason in data.left_out["A-bad"]


@pytest.mark.parametrize("count", ["1000000000", "+1000000000", "1e9"])
def test_a_poscar_cannot_ask_for_a_thousand_million_atoms(project, count):
    specimen = specimens()["matminer_csv-poscar"]
    first, _, second = specimen.files["a.csv"].text.rpartition("\n1 1\n")
    data = load(project, specimen, {"a.csv": f"{first}\n{count} 1\n{second}".encode()})
    assert data.ids.tolist() == ["mp-1"] and "not readable" in data.left_out["mp-2"]
    with pytest.raises(ValueError):
        jarvis_dft._structure(POSCAR.replace("\n1 1\n", f"\n{count} 1\n"))
