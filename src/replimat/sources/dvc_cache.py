"""DVC's cache of data/: objects named after their md5, each the content of one or more files that data.dvc lists.

DVC takes an object in its cache for right while it is write-protected. One that was damaged all the same, by a disk or
a transfer, goes into data/ and to remotes without a word, and `dvc status` finds nothing. So they are read here.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import yaml

from replimat import cards
from replimat.errors import IntegrityError, SourceError
from replimat.sources.store import set_aside

LOCK = "data.dvc"
BRING_BACK = "`dvc pull data.dvc`, or `replimat fetch` and then `dvc commit data.dvc`,"


@dataclass
class Cached:
    """What DVC's cache holds of data/: the number of its objects, all sound, and the files it has none for."""

    objects: int
    absent: list[str]


def verify_cache(datasets: Collection[str] = ()) -> Cached | None:
    """Compare every cached object of data/, or of these datasets in it, with its md5.

    None where DVC is not installed or has cached nothing of them. Absent objects are no fault: a part of data/ may have
    been pulled. Raises IntegrityError with a line for every damaged object, after moving it to .quarantine/dvc-cache/,
    and SourceError when an object, data.dvc or DVC's settings cannot be read.
    """
    objects = _objects()
    if objects is None or not (listing := _listing(objects, datasets)):
        return None
    present = [md5 for md5 in listing if _path(objects, md5).is_file()]
    faults = [fault for md5 in _with_bar(present) if (fault := _damage(_path(objects, md5), md5, listing[md5]))]
    if faults:
        raise IntegrityError(
            f"DVC's cache: {len(faults)} of {len(present)} objects damaged.\n" + "\n".join(faults) + f"\n{BRING_BACK} "
            "brings them back. What was pushed from here may be damaged too, and so may be the remote that was pulled "
            "from: see docs/remotes.md."
        )
    return Cached(len(present), sorted(path for md5 in listing.keys() - set(present) for path in listing[md5]))


def _objects() -> Path | None:
    """The folder of DVC's objects; None where DVC is not installed or not used."""
    try:
        from dvc.config import Config, ConfigError
    except ImportError:
        return None
    if not (home := cards.project_root() / ".dvc").is_dir():
        return None
    try:
        cache = Config(str(home))["cache"].get("dir") or home / "cache"
    except ConfigError as error:
        raise SourceError(f"DVC's settings cannot be read: {error}") from error
    return Path(cache) / "files" / "md5"


def _path(objects: Path, md5: str) -> Path:
    return objects / md5[:2] / md5[2:]


def _listing(objects: Path, datasets: Collection[str]) -> dict[str, list[str]]:
    """md5 of each object -> the files of data/, or of these datasets, that it is. Empty where data/ is not cached."""
    if not (md5 := _locked()):
        return {}
    path = _path(objects, md5)
    if not path.is_file():
        return {}
    if fault := _damage(path, md5, ["the list of all files of data/"]):
        raise IntegrityError(f"DVC's cache:\n{fault}\n{BRING_BACK} brings it back.")
    listing = defaultdict(list)
    for entry in json.loads(path.read_bytes()):
        if not datasets or entry["relpath"].split("/")[0] in datasets:
            listing[entry["md5"]].append(f"data/{entry['relpath']}")
    return listing


def _locked() -> str:
    """Name of the object that lists data/, as data.dvc says; empty without data.dvc."""
    lock = cards.project_root() / LOCK
    if not lock.is_file():
        return ""
    try:
        return next(out["md5"] for out in yaml.safe_load(lock.read_text())["outs"] if out["path"] == "data")
    except (yaml.YAMLError, UnicodeError, LookupError, TypeError, StopIteration) as error:
        raise SourceError(f"{LOCK} does not name a folder `data` with its md5. Run `git checkout {LOCK}`.") from error


def _damage(path: Path, md5: str, files: list[str]) -> str:
    """Where an object is not what its name says, a line about it, after moving it away; else empty."""
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "md5").hexdigest()
    except OSError as error:
        raise SourceError(f"{', '.join(files)}: {path} cannot be read ({error.strerror}).") from error
    if found == md5.removesuffix(".dir"):
        return ""
    size, moved = path.stat().st_size, set_aside(path, "dvc-cache", md5)
    return f"  {', '.join(files)}: the object has {size:,} bytes with md5 {found}, expected {md5}; moved to {moved}"


def _with_bar(md5s: list[str]):
    """The same, with a bar on standard error while they are gone through."""
    from rich.console import Console
    from rich.progress import track

    return track(md5s, description="DVC's cache", console=Console(stderr=True), transient=True)
