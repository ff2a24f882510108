"""Ways to harm files and processes: truncation, flipped bits, code in a checkpoint, a kill at a file operation."""

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np

# Run by every Python whose PYTHONPATH begins with a folder that holds it as sitecustomize.py: counts what is done to
# the files below $KILL_BELOW and ends the process, as kill -9 does, before operation number $KILL_AT.
KILLER = """
import os, signal, sys

below, left = os.environ["KILL_BELOW"], int(os.environ["KILL_AT"])
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "os.truncate"}

def count(event, arguments):
    global left
    writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if (writes or event in CHANGES) and str(arguments[0]).startswith(below):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
"""


def killed_at(operation: int, below: Path, modules: Path, path: str) -> dict[str, str]:
    """The environment in which Python is killed before its file operation of this number below a folder; modules: a
    folder for the killer's code; path: the rest of PYTHONPATH.
    """
    modules.mkdir(exist_ok=True)
    (modules / "sitecustomize.py").write_text(KILLER)
    return {"PYTHONPATH": f"{modules}{os.pathsep}{path}", "KILL_BELOW": str(below), "KILL_AT": str(operation)}


def truncate(path: Path, rng: np.random.Generator) -> None:
    """Keep a random part of a file, as a power cut may."""
    os.truncate(path, rng.integers(path.stat().st_size))


def flip(path: Path, rng: np.random.Generator) -> None:
    """Flip one random bit of a file."""
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    path.write_bytes(content)


class _Code:
    """What a pickle runs when it is loaded."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def poison(checkpoint: Path, marker: Path) -> None:
    """Replace the pickle of a torch file by one that makes the folder `marker` when it is loaded."""
    with zipfile.ZipFile(checkpoint) as content:
        members = {name: content.read(name) for name in content.namelist()}
    new = io.BytesIO()
    with zipfile.ZipFile(new, "w") as content:
        for name, value in members.items():
            content.writestr(name, pickle.dumps(_Code(marker), 2) if name.endswith("data.pkl") else value)
    checkpoint.write_bytes(new.getvalue())
