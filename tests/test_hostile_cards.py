"""Every dataset card: a member with other bytes than the card's is found before anything reads it, and set aside."""

import os
import shutil
from pathlib import Path

import pytest

from projects import Project, sha256
from replimat import cards, datasets, sources
from replimat.cards import DatasetCard, Member
from replimat.datasets.patterns import load_patterns
from replimat.errors import IntegrityError
from replimat.sources.store import ROOTS

SMALL = 15_000_000  # bytes of a real member that is copied here
MIRROR = os.environ.get("REPLIMAT_MIRROR")
ROOT = Path(__file__).resolve().parents[1]
NAMES = sorted(path.stem for path in (ROOT / "datasets").glob("*.yaml"))
FETCHED = [name for name in NAMES if cards.dataset(name).source.members]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project with all the real dataset cards."""
    project = Project(tmp_path, monkeypatch)
    shutil.copytree(ROOT / "datasets", project.root / "datasets", dirs_exist_ok=True)
    return project


def readings(card: DatasetCard) -> list:
    """What reads the members of a card."""
    if card.kind == "patterns":
        return [sources.verify, load_patterns]
    return [sources.verify, datasets.load] if card.kind == "structures" and card.reader else [sources.verify]


def put(project: Project, card: DatasetCard, member: Member, content: bytes) -> Path:
    """Place these bytes where a member belongs."""
    path = project.root / ROOTS[card.data] / card.name / member.save_as
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def require_found(project: Project, card: DatasetCard, member: Member, content: bytes, fault: str) -> None:
    for read in readings(card):
        path = put(project, card, member, content)
        with pytest.raises(IntegrityError) as caught:
            read(card.name)
        said = str(caught.value)
        assert card.name in said and member.save_as in said and fault in said and "replimat fetch" in said
        assert not path.exists() and (project.root / ".quarantine" / card.name / path.name).read_bytes() == content


@pytest.mark.parametrize("name", FETCHED)
def test_another_file_in_the_place_of_a_member_is_never_read(project, name):
    card = cards.dataset(name)
    content = b"other" if card.source.members[0].bytes != 5 else b"others"
    require_found(project, card, card.source.members[0], content, f"{len(content)} bytes, expected")


@pytest.mark.parametrize("name", FETCHED)
def test_one_flipped_bit_of_a_real_member_is_never_read(project, name):
    card = cards.dataset(name)
    member, content = _real_member(card)
    only = card.model_copy(update={"source": card.source.model_copy(update={"members": [member]})})
    _write(project, only)
    changed = bytearray(content)
    changed[len(content) // 2] ^= 1
    require_found(project, cards.dataset(name), member, bytes(changed), f"sha256 {sha256(bytes(changed))}, expected")
    path = put(project, only, member, content)
    sources.verify(name)  # the whole one is left alone
    assert path.read_bytes() == content


def _real_member(card: DatasetCard) -> tuple[Member, bytes]:
    """The smallest member of a card that is at hand. Skips where none is, or it is not small."""
    members = sorted(card.source.members, key=lambda member: member.bytes)
    if members[0].bytes > SMALL:
        pytest.skip("its smallest member is large")
    places = [ROOT / ROOTS[card.data] / card.name / members[0].save_as]
    if MIRROR:
        places.append(Path(MIRROR) / members[0].path)
    for path in places:
        if path.is_file():
            return members[0], path.read_bytes()
    pytest.skip("its members are neither fetched nor in a mirror (REPLIMAT_MIRROR)")


def _write(project: Project, card: DatasetCard) -> None:
    """Write a card that stands for the real one of this name, with members of its own."""
    content = card.model_dump(mode="json", exclude={"name", "title", "summary", "licence", "citation", "source"})
    project.card(card.name, card.source.model_dump(mode="json", exclude={"members_from"}), **content)
