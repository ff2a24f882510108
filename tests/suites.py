"""A copy of the project in a folder of its own, and commands run there as a person types them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = (
    "Snakefile",
    "workflow",
    "profiles",
    "papers",
    "datasets",
    "params.yaml",
    "dvc.yaml",
    "data.dvc",
    ".dvcignore",
    "src",
)


def copy_project(folder: Path, parts: tuple[str, ...] = PARTS) -> Path:
    """Copy these parts of the project into `folder` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        source = ROOT / part
        copy = shutil.copytree if source.is_dir() else shutil.copy2
        copy(source, folder / part)
    return folder


def environment(project: Path) -> dict[str, str]:
    """The environment in which this environment's commands work in a copy, whose own sources are the ones imported."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"PYTHONPATH": str(project / "src"), "REPLIMAT_ROOT": str(project)}
    return os.environ | own | {"OMP_NUM_THREADS": "1", "PATH": path}


def call(project: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess:
    """Run a command in a copy to its end; with `check` it must succeed."""
    done = subprocess.run(words, cwd=project, capture_output=True, text=True, env=environment(project))
    assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def snakemake(project: Path, *words: str) -> subprocess.CompletedProcess:
    return call(project, "snakemake", "--cores", "2", *words, "--config", "scale=smoke")
