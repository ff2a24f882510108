"""Damaged and malicious archives: the right bytes or one error, in little memory and time, and nothing half-written."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostile import REPEATABLE
from projects import Project, member
from replimat import sources
from replimat.cards import Member
from replimat.datasets.loading import _restore
from replimat.errors import CardError, DataError, IntegrityError, ReplimatError, SourceError
from replimat.sources import archives
from replimat.sources.archives import extract, gunzipped, require_unpacked, sole_member

QUICK = settings(REPEATABLE, max_examples=100)
CONTENT = b"id,energy\n" + bytes(range(256)) * 4
OTHER = b"not asked for" * 30
PATH = "package/a.csv"
LITTLE, BOMB = 40_000_000, 150_000_000  # bytes


def wanted(content: bytes = CONTENT, path: str = PATH, **changes) -> list[Member]:
    return [Member(**member(path, content, "a.csv") | changes)]


def zip_of(content: bytes = CONTENT, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("package/other.txt", OTHER)
        archive.writestr(PATH, content)
        archive.writestr("package/last.txt", OTHER)
    return stream.getvalue()


def tar_of(content: bytes = CONTENT, form: int = tarfile.PAX_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for name, held in ((f"{'long' * 40}.txt", OTHER), (PATH, content), ("package/last.txt", OTHER)):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(held), 1.5
            archive.addfile(info, io.BytesIO(held))
    return stream.getvalue()


WHOLE = {
    "zip": zip_of(),
    "stored.whl": zip_of(method=zipfile.ZIP_STORED),
    "tar": tar_of(),
    "gnu.tar": tar_of(form=tarfile.GNU_FORMAT),
    "tar.gz": gzip.compress(tar_of(), mtime=0),
    "tar.bz2": bz2.compress(tar_of()),
    "tar.xz": lzma.compress(tar_of()),
}


def outcome(folder: Path, archive: bytes, members: list[Member]) -> bytes | None:
    """What is extracted; None where it was refused by an error for people, with nothing left behind."""
    path, out = folder / "archive", folder / "out"
    path.write_bytes(archive)
    try:
        extract(path, members, out)
    except SourceError as error:
        assert str(path) in str(error) or path.name in str(error)
        assert not out.exists() or not list(out.rglob("*"))
        return None
    return (out / "a.csv").read_bytes()


@pytest.fixture
def small_memory():
    """Fails where Python's objects took more than LITTLE bytes at any time."""
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < LITTLE, f"{peak / 1e6:.0f} MB"


# ---------------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("kind", WHOLE)
def test_a_whole_archive_gives_the_member(tmp_path, kind):
    assert outcome(tmp_path, WHOLE[kind], wanted()) == CONTENT


def boundaries(archive: bytes) -> list[int]:
    """Where a header or a block of an archive begins, and a byte before and behind it."""
    marks = [b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", PATH.encode(), b"ustar"]
    places = {archive.find(mark, start) for mark in marks for start in range(0, len(archive), 64)}
    places |= set(range(0, len(archive), 512)) | set(range(22)) | {len(archive) - k for k in range(1, 24)}
    return sorted({near for place in places for near in (place - 1, place, place + 1) if 0 <= near < len(archive)})


@pytest.mark.parametrize("kind", WHOLE)
def test_truncation_at_every_boundary(tmp_path, kind):
    """A tar of which the end alone is gone still has the member whole."""
    whole = WHOLE[kind]
    for place in boundaries(whole):
        assert outcome(tmp_path, whole[:place], wanted()) in (None, CONTENT), place
        (tmp_path / "out" / "a.csv").unlink(missing_ok=True)


@pytest.mark.parametrize("kind", WHOLE)
@given(place=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255), length=st.integers(1, 4))
@QUICK
def test_flipped_bits_anywhere(tmp_path, kind, place, bits, length):
    changed = bytearray(WHOLE[kind])
    start = int(place * len(changed))
    for k in range(start, min(start + length, len(changed))):
        changed[k] ^= bits
    assert outcome(tmp_path, bytes(changed), wanted()) in (None, CONTENT)
    (tmp_path / "out" / "a.csv").unlink(missing_ok=True)


@pytest.mark.parametrize(
    "junk", [b"", b"PK\x05\x06", b"\x1f\x8b", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\x00", b"7z\xbc\xaf'\x1c"]
)
def test_the_beginning_of_an_archive_alone(tmp_path, junk):
    assert outcome(tmp_path, junk, wanted()) is None
    assert outcome(tmp_path, junk + bytes(4000), wanted()) is None


@given(place=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255), keep=st.booleans())
@QUICK
def test_a_damaged_npz_is_right_or_refused(tmp_path, place, bits, keep):
    """Of the kept datasets, whose reader is the strictest user of npz files."""
    path, arrays = tmp_path / "a.npz", {"x": np.arange(6.0), "y": np.array(["a", "b"])}
    np.savez(path, notes="{}", **arrays)
    changed = bytearray(path.read_bytes())
    start = int(place * len(changed))
    changed[start] ^= bits
    path.write_bytes(changed if keep else changed[:start])
    with pytest.raises(DataError):  # whole or not, it is no dataset
        _restore(path)
    try:
        require_unpacked(path, 10_000)
    except IntegrityError as error:
        assert str(path) in str(error)


# ----------------------------------------------------------------------------------------------------- bombs


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_a_block_at_once_are_refused(tmp_path, method):
    (tmp_path / "a.zip").write_bytes(zip_of(bytes(5_000_000), method))
    with pytest.raises(SourceError, match="packed by method"):
        extract(tmp_path / "a.zip", wanted(), tmp_path / "out")


@pytest.mark.parametrize("size", [0, 10, len(CONTENT) - 1, len(CONTENT) + 1, 2**31])
def test_declared_sizes_that_lie(tmp_path, size):
    whole = bytearray(zip_of())
    entry = whole.rindex(PATH.encode()) - 46  # of the directory
    struct.pack_into("<I", whole, entry + 24, size)
    assert outcome(tmp_path, bytes(whole), wanted()) == (CONTENT if size > len(CONTENT) else None)


def test_entries_that_share_one_stream(tmp_path, small_memory):
    """An overlapping zip bomb: ten thousand entries that all begin at one place. The one that is asked for is read."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(PATH, CONTENT)
        first = archive.filelist[0]
        archive.filelist += [_renamed(first, f"{k}.csv") for k in range(10_000)]
        archive._didModify = True
    assert outcome(tmp_path, stream.getvalue(), wanted(path="77.csv")) is None
    assert outcome(tmp_path, stream.getvalue(), wanted()) == CONTENT


def _renamed(info: zipfile.ZipInfo, name: str) -> zipfile.ZipInfo:
    other = zipfile.ZipInfo(name)
    for part in ("header_offset", "compress_type", "CRC", "compress_size", "file_size"):
        setattr(other, part, getattr(info, part))
    return other


def test_a_tar_bomb_beside_the_member_is_not_unpacked(tmp_path, small_memory, monkeypatch):
    monkeypatch.setattr(archives, "MOST_HEADER", 1 << 22)
    info = tarfile.TarInfo("bomb")
    info.size = BOMB
    bomb = _gzipped_zeros(info.tobuf(), tar_of())
    assert outcome(tmp_path, bomb, wanted()) is None


def _gzipped_zeros(before: bytes = b"", after: bytes = b"") -> bytes:
    packed = io.BytesIO()
    with gzip.open(packed, "wb", compresslevel=1) as stream:
        stream.write(before)
        for _ in range(0, BOMB, 1_000_000):
            stream.write(bytes(1_000_000))
        stream.write(after)
    return packed.getvalue()


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
@pytest.mark.parametrize("size", [1 << 28, 1 << 40, 8**11 - 1])
def test_a_header_that_speaks_of_gigabytes(tmp_path, small_memory, kind, size):
    info = tarfile.TarInfo("header")
    info.type, info.size = kind, size
    assert outcome(tmp_path, info.tobuf(tarfile.GNU_FORMAT) + bytes(2048), wanted()) is None
    assert outcome(tmp_path, gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048)), wanted()) is None


@pytest.mark.parametrize(
    "records",
    [
        {"size": "99999999999"},
        {"size": "-5"},
        {"size": "many"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 40)},
        {"GNU.sparse.map": f"0,10,{1 << 40},1", "GNU.sparse.size": str(1 << 40)},
        {"GNU.sparse.map": "x,y", "GNU.sparse.size": "1"},
        {"path": "../evil.csv"},
        {"path": "\x00"},
        {"mtime": "never"},
    ],
)
def test_pax_records_that_lie(tmp_path, small_memory, records):
    info = tarfile.TarInfo(PATH)
    info.size, info.pax_headers = len(CONTENT), records
    padded = CONTENT + bytes(-len(CONTENT) % 512)
    header = info.create_pax_header(info.get_info() | {"size": len(CONTENT)}, "utf-8")
    assert outcome(tmp_path, header + padded + bytes(1024), wanted()) in (None, CONTENT)


def test_a_sparse_member_is_no_larger_than_it_says(tmp_path, small_memory):
    """A sparse file of a tebibyte in a few bytes, whose name is the one asked for."""
    info = tarfile.TarInfo(PATH)
    info.size = 0
    info.pax_headers = {"GNU.sparse.map": f"{1 << 40},0", "GNU.sparse.size": str(1 << 40), "GNU.sparse.name": PATH}
    header = info.create_pax_header(info.get_info(), "utf-8")
    assert outcome(tmp_path, header + bytes(1024), wanted()) is None


def test_the_one_member_of_a_zip_and_of_a_gzip_are_bounded(tmp_path, small_memory):
    path = tmp_path / "bomb"
    path.write_bytes(_gzipped_zeros())
    with pytest.raises(IntegrityError, match="has more than 1,000,000 bytes"):
        gunzipped(path, 1_000_000)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a", "w") as stream:
        for _ in range(0, BOMB, 1_000_000):
            stream.write(bytes(1_000_000))
    with pytest.raises(IntegrityError, match="has more than 1,000,000 bytes"):
        sole_member(path, 1_000_000)
    with pytest.raises(IntegrityError, match="unpacks to 150,000,000 bytes"):
        require_unpacked(path, 1_000_000)


# ----------------------------------------------------------------------------------------------------- paths

NAMES = [
    "../a",
    "/a",
    "a/../../b",
    "..\\a",
    "C:\\a",
    "C:a",
    "\\\\server\\a",
    "//server/a",
    "a\x00.csv",
    "a\n.csv",
    "\u202ea",
]


@pytest.mark.parametrize("path", NAMES)
def test_members_of_such_names_are_refused(tmp_path, path):
    for whole in (WHOLE["zip"], WHOLE["tar.gz"]):
        (tmp_path / "archive").write_bytes(whole)
        with pytest.raises(SourceError, match="refused"):
            extract(tmp_path / "archive", wanted(path=path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("save_as", [*NAMES, "", ".", "a//b", "a/./b", "a/", "\uff0e\uff0e/a", "a\u2215b", "NUL:", "~"])
def test_a_card_cannot_save_as_such_a_name(tmp_path, monkeypatch, save_as):
    project = Project(tmp_path, monkeypatch)
    source = {"kind": "url", "url": "http://127.0.0.1:9/", "members": [member("a", b"x") | {"save_as": save_as}]}
    project.card("evil", source)
    with pytest.raises((CardError, SourceError), match="save_as" if save_as != "~" else "~"):
        sources.verify("evil")


@pytest.mark.parametrize("second", ["a.csv", "A.csv", "a.CSV"])
def test_two_members_cannot_be_one_file(tmp_path, monkeypatch, second):
    project = Project(tmp_path, monkeypatch)
    members = [member("a", b"x", "a.csv"), member("b", b"y", second)]
    project.card("twice", {"kind": "url", "url": "http://127.0.0.1:9/", "members": members})
    with pytest.raises(CardError, match="which is one file"):
        sources.fetch("twice")


def test_a_folder_that_is_a_link_is_not_written_through(tmp_path, monkeypatch):
    project, outside = Project(tmp_path, monkeypatch), tmp_path / "outside"
    outside.mkdir()
    (outside / "a.csv").write_text("mine")
    members = [member("a", b"x", "deep/a.csv")]
    project.card("linked", {"kind": "url", "url": "http://127.0.0.1:9/", "members": members})
    (project.data / "linked").mkdir(parents=True)
    (project.data / "linked" / "deep").symlink_to(outside)
    for act in (sources.fetch, sources.verify):
        with pytest.raises(IntegrityError, match="deep is a link"):
            act("linked")
    assert (outside / "a.csv").read_text() == "mine"


def test_a_member_whose_place_is_a_link_is_set_aside(tmp_path, monkeypatch):
    project = Project(tmp_path, monkeypatch)
    (tmp_path / "right.csv").write_bytes(b"x")
    project.card("linked", {"kind": "url", "url": "http://127.0.0.1:9/", "members": [member("a", b"x", "a.csv")]})
    (project.data / "linked").mkdir(parents=True)
    (project.data / "linked" / "a.csv").symlink_to(tmp_path / "right.csv")
    with pytest.raises(ReplimatError, match="no plain file"):
        sources.verify("linked")
    assert (tmp_path / "right.csv").read_bytes() == b"x"
