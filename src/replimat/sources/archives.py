"""Named members out of zip, wheel, tar and compressed tar files, and nothing else.

An archive decides nothing here: the card says which members are wanted, how many bytes each has and where it goes.
Links and devices are refused, and no member is read beyond its declared size (a size bomb stops there). What a tar
holds besides, and what its headers say of their own length, is bounded by the size of the archive.
"""

import bz2
import gzip
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from replimat.cards import Member
from replimat.errors import IntegrityError, ReplimatError, SourceError
from replimat.files import CHUNK, atomic, sha256

ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others unpack a block at once, however large it gets
TAR_METHODS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}  # by the first bytes
MOST_RATIO = 100  # bytes of a whole tar for each byte of the archive; text of numbers has 10
MOST_HEADER = 1 << 26  # bytes read at once, which only a header that lies asks for


class Unreadable(Exception):
    """Bytes of an archive that cannot be unpacked. Not an OSError, which stands for a full disk."""


def extract(archive: Path, members: list[Member], folder: Path) -> None:
    """Write the members into `folder`, each whole or not at all, checked for size and sha256.

    Raises SourceError when a member is missing or unsafe, IntegrityError when it is not the expected bytes or the
    archive is damaged.
    """
    with _readable(archive), _opened(archive) as find:
        for member in members:
            _check_name(archive, member)
            with find(member) as stream:
                _write(archive, stream, member, folder)


def sole_member(path: Path, most: int) -> bytes:
    """The one file inside a zip, of at most `most` bytes. Raises SourceError, IntegrityError when it is damaged."""
    with _readable(path), zipfile.ZipFile(path) as content:
        names = content.namelist()
        if len(names) != 1:
            raise SourceError(f"{path}: expected a zip with one file, it has {len(names)}.")
        with _from_zip(content, names[0]) as stream:
            return _bounded(f"{path}: {names[0]}", stream, most)


def gunzipped(path: Path, most: int) -> bytes:
    """What a gzipped file holds, of at most `most` bytes. Raises IntegrityError."""
    with _readable(path), gzip.open(path) as stream:
        return _bounded(str(path), stream, most)


def require_unpacked(path: Path, most: int) -> None:
    """Raise IntegrityError unless a zip file (.npz) is one, packed plainly, of at most `most` bytes when unpacked."""
    with _readable(path), zipfile.ZipFile(path) as content:
        infos = content.infolist()
    if (size := sum(info.file_size for info in infos)) > most:
        raise IntegrityError(f"{path}: unpacks to {size:,} bytes, expected at most {most:,}; not read.")
    if other := [info.filename for info in infos if info.compress_type not in ZIP_METHODS]:
        raise IntegrityError(f"{path}: {other[0]} is packed by an unexpected method; not read.")


def _bounded(what: str, stream: IO[bytes], most: int) -> bytes:
    """All that a stream holds, of at most `most` bytes. Raises IntegrityError."""
    found = stream.read(most + 1)
    if len(found) > most:
        raise IntegrityError(f"{what} has more than {most:,} bytes when unpacked; not read.")
    return found


@contextmanager
def _readable(archive: Path) -> Iterator[None]:
    """Raise IntegrityError for whatever the readers of archives answer a damaged byte with."""
    try:
        yield
    except ReplimatError:
        raise
    except Exception as error:
        fault = str(error) or type(error).__name__
        raise IntegrityError(
            f"{archive}: truncated or damaged archive ({fault}). Delete this file and run again."
        ) from error


@contextmanager
def _opened(archive: Path) -> Iterator[Callable[[Member], IO[bytes]]]:
    """A function from a member to an open stream of its bytes."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as content:
            yield lambda member: _from_zip(content, member.path)
        return
    with open(archive, "rb") as stream:
        start = stream.read(6)
    unpack = next((method for magic, method in TAR_METHODS.items() if start.startswith(magic)), open)
    with unpack(archive, "rb") as whole:
        bounded = _Bounded(whole, max(MOST_HEADER, MOST_RATIO * archive.stat().st_size))
        with tarfile.open(archive, "r:", fileobj=bounded) as content:
            yield lambda member: _from_tar(content, member.path)


class _Bounded:
    """An unpacked tar of which no more than `limit` bytes are unpacked, and not much at once."""

    def __init__(self, stream: IO[bytes], limit: int):
        self._stream, self._limit = stream, limit
        self.tell = stream.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MOST_HEADER:
            raise Unreadable(f"a header speaks of {size:,} bytes")
        self._within(self._stream.tell() + size)
        return self._stream.read(size)

    def seek(self, place: int) -> int:
        self._within(place)
        return self._stream.seek(place)

    def _within(self, place: int) -> None:
        if place > self._limit:
            raise Unreadable(f"it unpacks to more than {self._limit:,} bytes")


def _from_zip(content: zipfile.ZipFile, path: str) -> IO[bytes]:
    try:
        info = content.getinfo(path)
    except KeyError:
        raise SourceError(f"{content.filename}: has no member {path!r}.") from None
    if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
        raise SourceError(f"{content.filename}: {path!r} is not a plain file; links are refused.")
    if info.compress_type not in ZIP_METHODS:
        raise SourceError(f"{content.filename}: {path!r} is packed by method {info.compress_type}; refused.")
    return content.open(info)


def _from_tar(content: tarfile.TarFile, path: str) -> IO[bytes]:
    try:
        info = content.getmember(path)
    except KeyError:
        raise SourceError(f"{content.name}: has no member {path!r}.") from None
    if not info.isreg():
        raise SourceError(f"{content.name}: {path!r} is not a plain file; links are refused.")
    return content.extractfile(info)


def _check_name(archive: Path, member: Member) -> None:
    path = PurePosixPath(member.path)
    drive = member.path[1:2] == ":"
    if path.is_absolute() or ".." in path.parts or drive or "\\" in member.path or not member.path.isprintable():
        raise SourceError(f"{archive.name}: member path {member.path!r} leaves the archive; refused.")


def _write(archive: Path, stream: IO[bytes], member: Member, folder: Path) -> None:
    with atomic(folder / member.save_as) as temporary:
        came = _copy(stream, temporary, member.bytes)
        found = f"sha256 {sha256(temporary)}" if came == member.bytes else f"{came:,} bytes"
        expected = f"sha256 {member.sha256}" if came == member.bytes else f"{member.bytes:,} bytes"
        if found != expected:
            more = "at least " if came > member.bytes else ""
            raise IntegrityError(f"{archive}: {member.path} has {more}{found}, expected {expected}.")


def _copy(stream: IO[bytes], path: Path, limit: int) -> int:
    """Copy `stream` to `path`, at most one byte beyond `limit` (so too much is noticed); returns the bytes copied."""
    came = 0
    with open(path, "wb") as target:
        while block := _block(stream, min(CHUNK, limit + 1 - came)):
            came += len(block)
            target.write(block)
    return came


def _block(stream: IO[bytes], size: int) -> bytes:
    try:
        return stream.read(size)
    except Exception as error:
        raise Unreadable(str(error) or type(error).__name__) from error
