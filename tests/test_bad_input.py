"""Bad input on the side of sources and datasets: one clear error, and nothing half-written."""

import io
import json
import stat
import tarfile
import zipfile

import numpy as np
import pytest

from projects import Project, member, registry_source, tar_gz
from replimat import cards, datasets, sources
from replimat.cards import Member
from replimat.errors import CardError, DataError, IntegrityError, ReplimatError, SourceError
from replimat.sources.archives import extract


@pytest.fixture
def project(tmp_path, monkeypatch):
    return Project(tmp_path, monkeypatch)


def wanted(path: str, content: bytes, **changes) -> list[Member]:
    return [Member(**member(path, content) | changes)]


def nothing_written(folder) -> bool:
    return not folder.exists() or not list(folder.rglob("*"))


# ------------------------------------------------------------------------------------------------- archives


@pytest.mark.parametrize("path", ["../evil.csv", "/etc/passwd", "a/../../evil.csv", "a\\..\\evil.csv"])
def test_member_paths_that_leave_the_archive_are_refused(tmp_path, path):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr(path, b"evil")
    with pytest.raises(SourceError, match="refused"):
        extract(archive, wanted(path, b"evil", save_as="evil.csv"), tmp_path / "out")
    assert nothing_written(tmp_path / "out")


@pytest.mark.parametrize("save_as", ["../evil.csv", "/tmp/evil.csv"])
def test_a_card_cannot_write_outside_its_folder(project, save_as):
    project.card("evil", {"kind": "url", "url": "http://127.0.0.1:9/", "members": [member("a", b"x", save_as)]})
    with pytest.raises(CardError, match="must stay inside"):
        cards.dataset("evil")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as content:
        info = tarfile.TarInfo("a.csv")
        info.type, info.linkname = kind, "/etc/passwd"
        content.addfile(info)
    with pytest.raises(SourceError, match="not a plain file"):
        extract(archive, wanted("a.csv", b"x"), tmp_path / "out")
    assert nothing_written(tmp_path / "out")


def test_links_in_a_zip_are_refused(tmp_path):
    archive = tmp_path / "a.whl"
    with zipfile.ZipFile(archive, "w") as content:
        info = zipfile.ZipInfo("a.csv")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        content.writestr(info, "/etc/passwd")
    with pytest.raises(SourceError, match="not a plain file"):
        extract(archive, wanted("a.csv", b"/etc/passwd"), tmp_path / "out")


@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_a_size_bomb_stops_at_the_declared_size(tmp_path, suffix):
    archive, bomb = tmp_path / f"a.{suffix}", bytes(50_000_000)
    if suffix == "zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as content:
            content.writestr("a.csv", bomb)
    else:
        with tarfile.open(archive, "w:gz") as content:
            info = tarfile.TarInfo("a.csv")
            info.size = len(bomb)
            content.addfile(info, io.BytesIO(bomb))
    assert archive.stat().st_size < 100_000
    with pytest.raises(IntegrityError, match=r"a.csv has at least 1,001 bytes, expected 1,000 bytes"):
        extract(archive, wanted("a.csv", bytes(1000)), tmp_path / "out")
    assert nothing_written(tmp_path / "out")


@pytest.mark.parametrize("keep", [0.9, 0.5, 0.0005])
@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_a_truncated_archive_is_named(tmp_path, suffix, keep):
    archive, content = tmp_path / f"a.{suffix}", np.random.default_rng(1).bytes(100_000)
    if suffix == "zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as package:
            package.writestr("package/a.csv", content)
    else:
        tar_gz(archive, a_csv=content)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(IntegrityError, match="truncated or damaged archive"):
        extract(archive, wanted("package/a.csv", content), tmp_path / "out")
    assert nothing_written(tmp_path / "out")


def test_flipped_bits_in_an_archive_are_noticed(tmp_path):
    archive, content = tmp_path / "a.tar.gz", np.random.default_rng(1).bytes(100_000)
    whole = bytearray(tar_gz(archive, a_csv=content))
    whole[len(whole) // 2] ^= 0xFF
    archive.write_bytes(whole)
    with pytest.raises(IntegrityError):
        extract(archive, wanted("package/a.csv", content), tmp_path / "out")
    assert nothing_written(tmp_path / "out")


def test_a_member_the_archive_lacks_is_named(tmp_path):
    tar_gz(tmp_path / "a.tar.gz", a_csv=b"alpha")
    with pytest.raises(SourceError, match=r"has no member 'package/b.csv'"):
        extract(tmp_path / "a.tar.gz", wanted("package/b.csv", b"beta"), tmp_path / "out")


def test_an_archive_that_is_none_is_refused(tmp_path):
    (tmp_path / "a.tar.gz").write_text("<html>Please log in</html>")
    with pytest.raises(IntegrityError, match="damaged archive"):
        extract(tmp_path / "a.tar.gz", wanted("a.csv", b"x"), tmp_path / "out")


def test_no_space_left_is_one_clear_error(project, tmp_path, monkeypatch):
    archive = tmp_path / "links" / "demo-1.0.tar.gz"
    tar_gz(archive, a_csv=b"alpha")
    project.card("demo", registry_source(archive, [member("package/a.csv", b"alpha")]))
    project.use_links(archive.parent)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("replimat.sources.archives._copy", full)
    with pytest.raises(ReplimatError, match=r"could not be written \(No space left on device\); nothing was changed"):
        sources.fetch("demo")
    assert not [path for path in project.data.rglob("*") if path.is_file()]


# ------------------------------------------------------------------------------------------ cards and datasets


def test_an_unknown_dataset_is_answered_with_the_known_ones(project):
    project.card("known", {"kind": "computed", "engine": "none"})
    for act in (sources.fetch, sources.verify, datasets.load):
        with pytest.raises(CardError, match=r"Unknown dataset 'unknown'. Known: known"):
            act("unknown")


def test_a_computed_dataset_cannot_be_fetched(project):
    entry = member("a.csv", b"x")
    project.card("known", {"kind": "computed", "engine": "a model", "members": [entry]})
    with pytest.raises(SourceError, match="is computed"):
        sources.fetch("known")


def test_an_unknown_reader_is_named(project):
    members = project.raw("demo", a_csv="x")
    project.card("demo", {"kind": "url", "url": "http://127.0.0.1:9/", "members": members}, reader="nonsense")
    with pytest.raises(DataError, match="its reader 'nonsense' cannot be used"):
        datasets.load("demo")


TARGET = {"unit": "eV/atom", "description": "d", "column": "value"}
CELL = {"lattice": {"matrix": [[3.0, 0, 0], [0, 3.0, 0], [0, 0, 3.0]]}}


def structure(element: str = "Na", occupation: float = 1) -> str:
    site = {"abc": [0.5, 0.5, 0.5], "species": [{"element": element, "occu": occupation}]}
    return repr(CELL | {"sites": [site]}).replace('"', "'")


def csv_dataset(project, table: list[tuple[str, str, str]], **fields) -> None:
    """A dataset in the form of matminer's csv files: (id, value, structure)."""
    lines = ["# ref: made up", "material_id,value,structure"]
    lines += [f'{name},{value},"{text}"' for name, value, text in table]
    members = project.raw("demo", a_csv="\n".join(lines) + "\n")
    fields = {"reader": "matminer_csv", "targets": {"energy": TARGET}} | fields
    project.card("demo", {"kind": "url", "url": "http://127.0.0.1:9/", "members": members}, **fields)


def test_bad_rows_are_named_and_good_ones_kept(project):
    flat = json.dumps(CELL | {"sites": []}).replace("[3.0, 0, 0]", "[0, 0, 0]").replace('"', "'")
    rows = [
        ("good", "1.5", structure()),
        ("no-number", "high", structure()),
        ("empty", "", structure()),
        ("nan", "nan", structure()),
        ("cut", "1.0", structure()[:-20]),
        ("partly", "1.0", structure(occupation=0.5)),
        ("unknown-element", "1.0", structure("Qq")),
        ("no-atoms", "1.0", flat),
    ]
    csv_dataset(project, rows)
    for data in (datasets.load("demo"), datasets.load("demo")):  # read, then from the cache
        assert data.ids.tolist() == ["good", "no-number", "empty", "nan"]
        assert np.array_equal(data.target("energy"), [1.5, np.nan, np.nan, np.nan], equal_nan=True)
        assert data.missing == {
            "energy": {"no-number": "'high' is not a number", "empty": "no value", "nan": "not finite"}
        }
        assert set(data.left_out) == {"cut", "partly", "unknown-element", "no-atoms"}
        assert "a site is partly occupied" in data.left_out["partly"]


def test_a_flat_cell_is_left_out(project):
    flat = structure().replace("[[3.0, 0, 0]", "[[0.0, 0, 0]")
    csv_dataset(project, [("good", "1", structure()), ("flat", "1", flat)])
    assert datasets.load("demo").left_out == {"flat": "cell of 0 cubic angstrom for 1 atoms"}


def test_values_without_a_logarithm_are_named(project):
    target = TARGET | {"unit": "log10(GPa)"}
    csv_dataset(project, [("a", "100", structure()), ("b", "-3", structure())], targets={"modulus": target})
    data = datasets.load("demo")
    assert data.target("modulus")[0] == 2.0 and np.isnan(data.target("modulus")[1])
    assert data.missing == {"modulus": {"b": "-3 has no logarithm"}}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rows": 3}, "2 usable rows, its card says 3. Rows left out: none"),
        ({"targets": {"energy": TARGET | {"range": [0, 1.5]}}}, r"1 values outside \[0.0, 1.5\] eV/atom, first b"),
        ({"targets": {"energy": TARGET | {"count": 1}}}, "2 values, its card says 1"),
    ],
)
def test_a_dataset_that_differs_from_its_card_is_refused(project, fields, message):
    csv_dataset(project, [("a", "1", structure()), ("b", "2", structure())], **fields)
    with pytest.raises(DataError, match=message):
        datasets.load("demo")
    assert not list(project.root.glob("prepared/datasets/*"))


def test_ids_must_be_unique(project):
    csv_dataset(project, [("a", "1", structure()), ("a", "2", structure())])
    with pytest.raises(DataError, match="1 ids stand more than once"):
        datasets.load("demo")


def test_a_row_with_too_few_fields_stops_with_its_line(project):
    csv_dataset(project, [("a", "1", structure())])
    path = project.data / "demo" / "a.csv"
    members = project.raw("demo", a_csv=path.read_text() + "b,1\n")
    source = {"kind": "url", "url": "http://127.0.0.1:9/", "members": members}
    project.card("demo", source, reader="matminer_csv", targets={"energy": TARGET})
    with pytest.raises(DataError, match=r"line 4: 2 fields, expected 3"):
        datasets.load("demo")


def test_no_usable_row_at_all(project):
    csv_dataset(project, [("a", "1", "{}")])
    with pytest.raises(DataError, match="the list is empty"):
        datasets.load("demo")


def test_an_unknown_target_is_answered_with_the_known_ones(project):
    csv_dataset(project, [("a", "1", structure())])
    with pytest.raises(DataError, match=r"has no target 'gap'. It has: energy"):
        datasets.load("demo").target("gap")


def test_a_damaged_cache_file_is_named(project):
    csv_dataset(project, [("a", "1", structure())])
    datasets.load("demo")
    (path,) = project.root.glob("prepared/datasets/*.npz")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged cache file"):
        datasets.load("demo")


def test_raw_data_that_is_not_fetched_says_what_to_do(project):
    csv_dataset(project, [("a", "1", structure())])
    (project.data / "demo" / "a.csv").unlink()
    with pytest.raises(IntegrityError, match="Run `replimat fetch demo`"):
        datasets.load("demo")
