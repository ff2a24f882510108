"""What produced a number: code, packages, machine, time and memory."""

import hashlib
import importlib.metadata
import os
import platform
import re
import resource
import subprocess
import time
from pathlib import Path

import replimat
from replimat import files
from replimat.cards import project_root

PACKAGE = Path(replimat.__file__).parent
PLANNING = {PACKAGE / "experiments" / "base.py"}  # descriptions only: what they decide is hashed by its content
IMPORTED = re.compile(r"^\s*from replimat\.(models|experiments|representations)\.(\w+) import", re.MULTILINE)
COUNTED = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
NAMED_PACKAGES = ("torch", "torch_geometric", "lightning", "numpy", "pymatgen", "ase", "scikit-learn")


def code_commit() -> str:
    """The commit of the source tree, "+changes" if files differ from it; $REPLIMAT_COMMIT where there is no git
    (images).
    """
    if given := os.environ.get("REPLIMAT_COMMIT"):
        return given
    try:
        commit = _git("rev-parse", "HEAD")
        changed = _git(
            "status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock"
        )  # DVC writes it after a run
        return commit + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def code_sha256(paper: str) -> str:
    """Hash of the source that decides a paper's weights: see `sources_of`."""
    return files.sha256_json([files.sha256(path) for path in sources_of(paper)])


def physics_sha256() -> str:
    """Hash of the source that decides physical properties of a potential, beside its weights."""
    return files.sha256_json([files.sha256(path) for path in sorted((PACKAGE / "physics").glob("*.py"))])


def sources_of(paper: str) -> list[Path]:
    """A paper's model and experiment, the models, experiments and representations these import, and the training
    code.
    """
    found, waiting = set(), [PACKAGE / folder / f"{paper}.py" for folder in ("models", "experiments")]
    while waiting:
        path = waiting.pop()
        if path not in found and path.is_file():
            found.add(path)
            waiting += [PACKAGE / folder / f"{name}.py" for folder, name in IMPORTED.findall(path.read_text())]
    return sorted({*found, PACKAGE / "models" / "forces.py", *(PACKAGE / "training").glob("*.py")} - PLANNING)


def environment() -> dict:
    """Versions of the packages that matter, and the hash of all that are installed."""
    installed = sorted(
        {f"{dist.name.lower()}=={dist.version}" for dist in importlib.metadata.distributions() if dist.name}
    )
    versions = {}
    for name in NAMED_PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # a lean training machine has no pymatgen, ase or scikit-learn
    return {
        "environment_sha256": hashlib.sha256("\n".join(installed).encode()).hexdigest(),
        "packages": {"python": platform.python_version()} | versions,
    }


def hardware(device: str, devices: int = 1) -> str:
    """The machine in words: the accelerator's name and how many trained, or processor and cores."""
    if device == "cuda":
        import torch

        return (f"{devices} x " if devices > 1 else "") + torch.cuda.get_device_name()
    return f"{_processor()}, {os.cpu_count()} cores"


class Stopwatch:
    """Wall and processor seconds since it was made, those of ended processes that this one started included, and the
    peak memory of any of them so far.
    """

    def __init__(self):
        self.wall, self.cpu = time.perf_counter(), _processor_seconds()

    def read(self) -> dict[str, float]:
        return {
            "wall_seconds": round(time.perf_counter() - self.wall, 2),
            "cpu_seconds": round(_processor_seconds() - self.cpu, 2),
            "peak_memory_mb": round(max(resource.getrusage(who).ru_maxrss for who in COUNTED) / 1024),
        }


def _processor_seconds() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=project_root(), capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()
