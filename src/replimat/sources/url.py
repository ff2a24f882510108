"""A paper's own files: from a mirror folder when REPLIMAT_MIRROR is set, else by URL.

A mirror is a folder with `manifest.csv` (path, bytes, sha256, url, licence, note) beside the files it lists.
"""

import csv
import os
import shutil
from pathlib import Path, PurePosixPath
from urllib.parse import urljoin

from replimat.cards import Member, UrlSource
from replimat.errors import IntegrityError, SourceError
from replimat.files import atomic, sha256
from replimat.sources.download import download, http_client
from replimat.sources.registry import pip_settings

MANIFEST = "manifest.csv"


def url_members(source: UrlSource, members: list[Member], folder: Path) -> None:
    """Write the members into `folder`, from the mirror or the network. Raises SourceError or IntegrityError."""
    mirror = os.environ.get("REPLIMAT_MIRROR")
    listed = mirror_manifest(Path(mirror)) if mirror else {}
    for member in members:
        found = _from_mirror(Path(mirror), listed, member) if mirror else _from_network(source, member)
        with atomic(folder / member.save_as) as temporary:
            shutil.copyfile(found, temporary)


def mirror_manifest(mirror: Path) -> dict[str, dict[str, str]]:
    """The rows of a mirror's manifest by path. Raises SourceError when there is none."""
    try:
        with open(mirror / MANIFEST, newline="", encoding="utf-8") as stream:
            return {row["path"]: row for row in csv.DictReader(stream)}
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{mirror}: no readable {MANIFEST} ({error}). Mend or unset REPLIMAT_MIRROR.") from error


def _from_mirror(mirror: Path, listed: dict[str, dict[str, str]], member: Member) -> Path:
    path = mirror / member.path
    if ".." in PurePosixPath(member.path).parts or PurePosixPath(member.path).is_absolute():
        raise SourceError(f"mirror path {member.path!r} leaves the mirror; refused.")
    if not path.is_file():
        known = (
            "its manifest lists it, but the file is gone" if member.path in listed else "its manifest does not list it"
        )
        raise SourceError(
            f"{member.path}: not in the mirror {mirror} ({known}). Complete it, or unset REPLIMAT_MIRROR."
        )
    if (found := sha256(path)) != member.sha256:
        raise IntegrityError(f"{path}: sha256 {found}, expected {member.sha256}. Replace this file of the mirror.")
    return path


def _from_network(source: UrlSource, member: Member) -> Path:
    """A URL that ends in a slash is the folder of the members' `save_as`; any other is the one member itself."""
    url = urljoin(source.url, member.save_as) if source.url.endswith("/") else source.url
    if not url.startswith(("http://", "https://")):
        raise SourceError(
            f"{member.path}: its source is no address but {source.url!r}. Set REPLIMAT_MIRROR to a mirror of it."
        )
    return download(
        http_client(pip_settings().get("cert")), url, PurePosixPath(member.path).name, member.sha256, member.bytes
    )
