"""Where faults are tried: a small suite with its unbroken run, commands that are ended, disks that are full."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from small_suite import MADE, SUITE, SmallSuite

PLACES = ("cache", *(f"project/{name}" for name in MADE if name != ".quarantine"))  # all that an unbroken run leaves
PAGE = 4096  # bytes that a small disk takes for every begun one


class Ground:
    """The small suite and its unbroken run, to which every try is compared and brought back."""

    def __init__(self, folder: Path):
        self.suite = SmallSuite(folder)
        watch = time.monotonic()
        code, said = self.suite.run(*SUITE)
        if code:
            raise SystemExit(f"The unbroken run failed:\n{said}")
        self.seconds = time.monotonic() - watch
        self.whole, self.kept = self.suite.results(), folder / "kept"
        for name in PLACES:
            shutil.copytree(folder / name, self.kept / name)

    def path(self, name: str) -> Path:
        return self.suite.folder / name

    def restore(self, *without: str) -> None:
        """Everything as after the unbroken run, but for what has these names, which may hold *."""
        self.suite.clear()
        for name in PLACES:
            shutil.copytree(self.kept / name, self.suite.root / name)
        for path in [path for name in without for path in self.suite.folder.glob(name)]:
            remove(path)

    def same(self) -> bool:
        """Whether all that is there now is what the unbroken run left."""
        return self.suite.results() == self.whole and not self.suite.half_written()

    def whole_files_only(self) -> bool:
        """Whether nothing is there that a writer has not finished."""
        return not [path for path in self.suite.half_written() if path.endswith(".tmp")]

    def again(self, *command: str) -> tuple[bool, str]:
        """Type a command (again): whether it ends well and with the results of the unbroken run."""
        code, said = self.suite.run(*command)
        return code == 0 and self.same(), said


def refused(code: int, said: str) -> bool:
    """Whether a command ended with an error for a person: exit code not 0, one line, no traceback."""
    return code not in (0, None) and "error: " in said and "Traceback" not in said


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def until(process: subprocess.Popen, reached: Callable[[], object]) -> subprocess.Popen:
    """Wait until a running command has got somewhere, or has ended."""
    while process.poll() is None and not reached():
        time.sleep(0.005)
    return process


def end(process: subprocess.Popen, number: int) -> str:
    """Send a signal to a command and all that it started; returns what it said."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:  # it had ended
        pass
    return process.communicate()[0]


class NotHere(Exception):
    """Why a fault cannot be tried on this machine."""


@contextmanager
def small_disk(folder: Path, room: int) -> Iterator[Callable[[], None]]:
    """A folder on a disk of its own with this many bytes of room. Yields what gives it more. Raises NotHere."""
    if os.geteuid():
        raise NotHere("to mount a small disk needs root")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as aside:
        shutil.copytree(folder, aside, dirs_exist_ok=True, symlinks=True)
        size = sum(-(-path.stat().st_size // PAGE) * PAGE for path in folder.rglob("*") if path.is_file()) + room
        _mount("-t", "tmpfs", "-o", f"size={size}", "none", folder)
        try:
            shutil.copytree(aside, folder, dirs_exist_ok=True, symlinks=True)
            yield lambda: _mount("-o", "remount,size=1g", folder)
        finally:
            subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """A folder that cannot be written: mounted so, as root may write whatever permissions say."""
    if os.geteuid():
        folder.chmod(0o555)
        yield
        folder.chmod(0o755)
        return
    _mount("--bind", folder, folder)
    try:
        _mount("-o", "remount,ro,bind", folder)
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)
