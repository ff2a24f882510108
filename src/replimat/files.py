"""Files that are whole or absent: temporary file, fsync, rename. Their hashes. Folders for one process at a time."""

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from replimat.errors import StorageError

CHUNK = 1 << 20  # bytes read at a time while hashing
LOCK = ".lock"  # in a folder of one process


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path near `path`; on success it replaces `path` in one step, on failure it is removed.

    A reader sees the old file or the new one, never half of it. What a killed process left of its own attempt at this
    file is removed. Raises StorageError if the disk is full or the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, path.name)
        with _workplace(path) as folder:
            temporary = folder / path.name
            yield temporary
            _flush(temporary)
            temporary.chmod(0o666 & ~_umask())
            os.replace(temporary, path)
        _flush(path.parent)
    except OSError as error:
        raise StorageError(f"{path}: could not be written ({error.strerror or error}); nothing was changed.") from error


@contextlib.contextmanager
def alone(lock: str | Path) -> Iterator[None]:
    """Hold a lock file while working; another process that asks for it says so and waits, until this one ends or is
    killed. Raises StorageError if it cannot be written.
    """
    from filelock import FileLock, Timeout

    held = FileLock(lock)
    try:
        Path(lock).parent.mkdir(parents=True, exist_ok=True)
        try:
            held.acquire(blocking=False)
        except Timeout:
            print(f"{lock}: held by another process; waiting until it has ended.", file=sys.stderr, flush=True)
            held.acquire()
    except OSError as error:
        raise StorageError(f"{lock}: could not be written ({error.strerror or error}).") from error
    try:
        yield
    finally:
        held.release()


def remove_leftovers(folder: str | Path, name: str = "*") -> None:
    """Remove temporary files of this name that killed processes left in a folder; those of living ones stay."""
    for leftover in Path(folder).glob(f".{name if name == '*' else glob.escape(name)}.*.tmp"):
        with contextlib.suppress(OSError), open(leftover / LOCK, "r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its writer lives
            shutil.rmtree(leftover, ignore_errors=True)
        with contextlib.suppress(OSError):
            leftover.rmdir()  # killed before it was locked


def is_temporary(path: Path) -> bool:
    """Whether a path is, or lies in, what `atomic` is still writing."""
    return any(part.startswith(".") and part.endswith(".tmp") for part in path.parts)


def damaged_zip(path: str | Path) -> bool:
    """Whether a zip file (.npz, checkpoint) is truncated or differs from its checksums."""
    try:
        with zipfile.ZipFile(path) as content:
            return content.testzip() is not None
    except Exception:  # whatever its reader stumbles over in a header
        return True


def write_text(path: str | Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value) -> None:
    """Write `value` as indented JSON. NaN and infinity are refused: a reader would not parse them."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sha256(path: str | Path) -> str:
    """Hexadecimal sha256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def sha256_json(value) -> str:
    """sha256 of a JSON value in canonical form (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _workplace(path: Path) -> Iterator[Path]:
    """An own folder beside `path`, so that whatever a writer leaves beside its file goes with it; locked in the
    meantime, which tells it from a leftover.
    """
    folder, lock = _locked_folder(path)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()


def _locked_folder(path: Path) -> tuple[Path, IO]:
    while True:
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
        try:
            lock = open(folder / LOCK, "wb")
        except FileNotFoundError:  # another process took it for a leftover
            continue
        except OSError:
            folder.rmdir()
            raise
        with contextlib.suppress(OSError):  # a file system without locks: leftovers stay there
            fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / LOCK).exists():
            return folder, lock
        lock.close()


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
