"""Named members out of zip, wheel, tar and compressed tar files, and nothing else.

An archive decides nothing here: the card says which members are wanted, how many bytes each has and where it goes.
Links and devices are refused, and no member is read beyond its declared size (a size bomb stops there).
"""

import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from replimat.cards import Member
from replimat.errors import IntegrityError, SourceError
from replimat.files import CHUNK, atomic, sha256

DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError)


def extract(archive: Path, members: list[Member], folder: Path) -> None:
    """Write the members into `folder`, each whole or not at all, checked for size and sha256.

    Raises SourceError when a member is missing or unsafe, IntegrityError when it is not the expected bytes or the
    archive is damaged.
    """
    try:
        with _opened(archive) as find:
            for member in members:
                _check_name(archive, member)
                with find(member) as stream:
                    _write(archive, stream, member, folder)
    except DAMAGED as error:
        raise _damaged(archive, error) from error


@contextmanager
def _opened(archive: Path) -> Iterator:
    """A function from a member to an open stream of its bytes."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as content:
            yield lambda member: _from_zip(content, member)
    else:
        with tarfile.open(archive) as content:
            yield lambda member: _from_tar(content, member)


def _from_zip(content: zipfile.ZipFile, member: Member) -> IO[bytes]:
    try:
        info = content.getinfo(member.path)
    except KeyError:
        raise SourceError(f"{content.filename}: has no member {member.path!r}.") from None
    if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
        raise SourceError(f"{content.filename}: {member.path!r} is not a plain file; links are refused.")
    return content.open(info)


def _from_tar(content: tarfile.TarFile, member: Member) -> IO[bytes]:
    try:
        info = content.getmember(member.path)
    except KeyError:
        raise SourceError(f"{content.name}: has no member {member.path!r}.") from None
    if not info.isreg():
        raise SourceError(f"{content.name}: {member.path!r} is not a plain file; links are refused.")
    return content.extractfile(info)


def _check_name(archive: Path, member: Member) -> None:
    path = PurePosixPath(member.path)
    if path.is_absolute() or ".." in path.parts or "\\" in member.path:
        raise SourceError(f"{archive.name}: member path {member.path!r} leaves the archive; refused.")


def _write(archive: Path, stream: IO[bytes], member: Member, folder: Path) -> None:
    with atomic(folder / member.save_as) as temporary:
        try:
            came = _copy(stream, temporary, member.bytes)
        except DAMAGED as error:  # here, because some of them are OSErrors, which `atomic` takes for a full disk
            raise _damaged(archive, error) from error
        found = f"sha256 {sha256(temporary)}" if came == member.bytes else f"{came:,} bytes"
        expected = f"sha256 {member.sha256}" if came == member.bytes else f"{member.bytes:,} bytes"
        if found != expected:
            more = "at least " if came > member.bytes else ""
            raise IntegrityError(f"{archive}: {member.path} has {more}{found}, expected {expected}.")


def _copy(stream: IO[bytes], path: Path, limit: int) -> int:
    """Copy `stream` to `path`, at most one byte beyond `limit` (so too much is noticed); returns the bytes copied."""
    came = 0
    with open(path, "wb") as target:
        while block := stream.read(min(CHUNK, limit + 1 - came)):
            came += len(block)
            target.write(block)
    return came


def _damaged(archive: Path, error: Exception) -> IntegrityError:
    fault = str(error) or type(error).__name__
    return IntegrityError(f"{archive}: truncated or damaged archive ({fault}). Delete this file and run again.")
