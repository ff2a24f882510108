"""Clones of a made-up project whose data/ is tracked by DVC, with the settings of ours."""

import contextlib
import shutil
import subprocess
from pathlib import Path

from dvc.cli import main as run_dvc

from projects import Project
from replimat import cli
from servers import Remote

SETTINGS = Path(__file__).parents[1] / ".dvc" / "config"
FILES = {"left": ["one.csv", "two.csv"], "right": ["one.csv", "three.csv"]}  # by dataset; one.csv is the same in both


class Clone:
    """A clone of the project; its commands are run in its folder."""

    def __init__(self, folder: Path):
        self.folder, self.objects = folder, folder / ".dvc" / "cache" / "files" / "md5"

    def git(self, *words: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.invalid")
        done = subprocess.run(["git", *identity, *words], cwd=self.folder, check=True, capture_output=True, text=True)
        return done.stdout

    def dvc(self, *words: str) -> bool:
        """Run dvc; whether it succeeded, or with `status --quiet` whether nothing has changed."""
        with contextlib.chdir(self.folder):
            return run_dvc(list(words)) == 0

    def verify(self, *names: str) -> None:
        """`replimat verify`."""
        with contextlib.chdir(self.folder):
            cli.verify(list(names))

    def use(self, remote: Remote, verify: str = "true") -> None:
        """Make a remote known, as docs/remotes.md says; what is secret stays out of git."""
        assert self.dvc("remote", "add", "--force", "--default", "store", remote.url)
        for name, value in (remote.options | {"verify": verify}).items():
            assert self.dvc("remote", "modify", "store", name, value)
        for name, value in remote.secrets.items():
            assert self.dvc("remote", "modify", "--local", "store", name, value)

    def object(self, name: str) -> Path:
        """The object in DVC's cache that files of this name are; `.dir`: the list of all of them."""
        paths = [path for path in self.objects.rglob("*") if path.is_file()]
        return next(path for path in paths if path.suffix == name or path.read_text() == content(name))

    def fresh(self, name: str = "fresh") -> "Clone":
        """A clone of what is committed here, without data, cache and remote."""
        self.git("clone", "--quiet", str(self.folder), str(self.folder.parent / name))
        return Clone(self.folder.parent / name)


def content(name: str) -> str:
    """What is in the files of this name."""
    return f"{name}\n" * 1000


def publish(root: Path, monkeypatch) -> Clone:
    """The first clone, the only place where data/ is. Nothing of the user's settings of DVC is read."""
    project = Project(root, monkeypatch)
    monkeypatch.delenv("REPLIMAT_ROOT")  # the project is the folder that a command is run in
    for name in ("SITE_CACHE", "GLOBAL_CONFIG", "SYSTEM_CONFIG"):
        monkeypatch.setenv(f"DVC_{name}_DIR", str(root / name.lower()))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    for dataset, names in FILES.items():
        members = project.raw(dataset, **{name.replace(".", "_"): content(name) for name in names})
        project.card(dataset, {"kind": "url", "url": "https://nowhere.invalid/", "members": members})
    (project.root / "papers" / ".gitkeep").touch()
    clone = Clone(project.root)
    clone.git("init", "--quiet")
    assert clone.dvc("init", "--quiet")
    shutil.copy(SETTINGS, clone.folder / ".dvc" / "config")
    assert clone.dvc("add", "--quiet", "data")
    clone.git("add", ".")
    clone.git("commit", "--quiet", "--message", "data")
    return clone
