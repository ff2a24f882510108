"""data/ through DVC remotes on real servers, and damage to DVC's cache or to a remote: found, named, mended.

Servers that are not installed here are skipped and named.
"""

import contextlib
import dataclasses
import os

import numpy as np
import pytest

import damage
from clones import Clone, content, publish
from replimat.errors import IntegrityError, SourceError
from replimat.sources.dvc_cache import verify_cache
from servers import NEEDS, SERVERS, Remote, missing

SKIP = {kind: pytest.mark.skipif(missing(kind) != "", reason=missing(kind)) for kind in NEEDS}
KINDS = ["folder", "http", *(pytest.param(kind, marks=mark) for kind, mark in SKIP.items())]
WAYS = {"flipped": damage.flip, "truncated": damage.truncate}


@pytest.fixture
def publisher(tmp_path, monkeypatch) -> Clone:
    return publish(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """Of one server for all tests: it takes seconds to start."""
    with SERVERS["s3"](tmp_path_factory.mktemp("s3") / "store") as given:
        yield given


@pytest.fixture(params=KINDS)
def remotes(request, tmp_path):
    """An empty remote of each kind, twice: as data is pushed to it, and as it is pulled from it."""
    kind, folder = request.param, tmp_path / "store"
    if kind == "folder":
        yield (Remote(str(folder)),) * 2
    elif kind == "s3":
        given = request.getfixturevalue("bucket")
        yield (dataclasses.replace(given, url=f"{given.url}/{tmp_path.name}"),) * 2
    else:
        with SERVERS[kind](folder) as given:
            yield Remote(str(folder)) if kind == "http" else given, given  # http gives only


def harm(path, way: str) -> None:
    """Damage an object and leave it write-protected, as a failing disk would."""
    path.chmod(0o644)
    WAYS[way](path, np.random.default_rng(0))
    path.chmod(0o444)


def assert_whole(clone: Clone) -> None:
    """data/ is what its cards say, and DVC's cache and data.dvc are of the same mind."""
    clone.verify()
    assert clone.dvc("status", "--quiet", "data.dvc")
    assert (clone.folder / "data/right/three.csv").read_text() == content("three.csv")


# ------------------------------------------------------------------------------------------------------- there and back


def test_data_goes_through_a_remote(publisher, remotes):
    taking, giving = remotes
    publisher.use(taking)
    publisher.git("commit", "--quiet", "--all", "--message", "a remote")
    assert publisher.dvc("push")
    fresh = publisher.fresh()
    committed = fresh.git("grep", "", "HEAD", "--", ".dvc")
    assert taking.url in committed and not any(secret in committed for secret in taking.secrets.values())
    fresh.use(giving)
    assert fresh.dvc("pull", "data.dvc")
    assert_whole(fresh)
    assert fresh.dvc("status", "--quiet", "--cloud", "data.dvc")


def test_nothing_is_pushed_over_http(publisher, tmp_path):
    with SERVERS["http"](tmp_path) as given:
        publisher.use(given)
        assert not publisher.dvc("push")


# ------------------------------------------------------------------------------------------------- damage in the cache


@pytest.mark.parametrize("way", WAYS)
def test_a_damaged_object_is_named_by_its_files_and_brought_back(publisher, way, capsys):
    path = publisher.object("one.csv")
    harm(path, way)
    with pytest.raises(IntegrityError) as caught:
        publisher.verify()
    message = str(caught.value)
    assert "1 of 3 objects damaged" in message and "data/left/one.csv, data/right/one.csv: " in message
    assert "three.csv" not in message and "`dvc commit data.dvc`" in message
    aside = publisher.folder / ".quarantine" / "dvc-cache" / f"{path.parent.name}{path.name}"
    assert aside.is_file() and str(aside.relative_to(publisher.folder)) in message and not path.exists()
    capsys.readouterr()
    publisher.verify()
    assert "cache lacks data/left/one.csv, data/right/one.csv; `dvc pull" in capsys.readouterr().out
    assert publisher.dvc("commit", "data.dvc") and path.read_text() == content("one.csv")
    assert_whole(publisher)


def test_dvc_itself_hands_out_a_damaged_object(publisher):
    """Why `replimat verify` reads the cache, and what docs/remotes.md says of DVC. Both places are named at once."""
    harm(publisher.object("two.csv"), "flipped")
    file = publisher.folder / "data/left/two.csv"
    file.unlink()
    assert publisher.dvc("checkout", "data.dvc") and file.read_text() != content("two.csv")
    assert publisher.dvc("status", "--quiet", "data.dvc")
    with pytest.raises(IntegrityError) as caught:
        publisher.verify()
    in_data, in_cache = str(caught.value).split("DVC's cache: ")
    assert "data/left: two.csv has sha256" in in_data and "data/left/two.csv: the object has" in in_cache


def test_a_damaged_list_of_files_is_found(publisher):
    path = publisher.object(".dir")
    harm(path, "truncated")
    with pytest.raises(IntegrityError, match=r"the list of all files of data/: the object has .*; moved to"):
        publisher.verify()
    assert publisher.dvc("commit", "data.dvc") and path.exists()
    assert_whole(publisher)


def test_only_the_objects_of_the_named_datasets_are_read(publisher):
    harm(publisher.object("three.csv"), "flipped")
    publisher.verify("left")
    with pytest.raises(IntegrityError, match=r"data/right/three.csv"):
        publisher.verify("right")


def test_a_cache_elsewhere_is_read(publisher, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    os.rename(publisher.folder / ".dvc" / "cache", elsewhere)
    publisher.objects = elsewhere / "files" / "md5"
    assert publisher.dvc("cache", "dir", "--local", str(elsewhere))
    publisher.verify()
    harm(publisher.object("one.csv"), "flipped")
    with pytest.raises(IntegrityError, match=r"data/left/one.csv"):
        publisher.verify()


def test_no_cache_is_no_fault_and_a_broken_lock_is_one(publisher):
    fresh = publisher.fresh()
    with contextlib.chdir(fresh.folder):
        assert verify_cache() is None
        (fresh.folder / "data.dvc").write_text("<<<<<<< HEAD\nouts: []\n")
        with pytest.raises(SourceError, match=r"data.dvc does not name a folder `data`.*git checkout data.dvc"):
            verify_cache()


# ------------------------------------------------------------------------------------------------- damage in a remote


def test_verify_keeps_a_damaged_object_of_a_remote_out(publisher, remotes, capsys):
    taking, giving = remotes
    publisher.use(taking)
    harm(publisher.object("two.csv"), "flipped")
    assert publisher.dvc("push")  # DVC pushes what is damaged, too
    fresh = publisher.fresh()
    fresh.use(giving)
    assert not fresh.dvc("pull", "data.dvc")
    assert not list(fresh.folder.glob("data/left/two.csv"))
    capsys.readouterr()
    fresh.verify()
    assert "cache lacks data/left/two.csv; " in capsys.readouterr().out


def test_without_verify_a_damaged_object_comes_in_and_is_found(publisher, tmp_path):
    publisher.use(Remote(str(tmp_path / "store")))
    harm(publisher.object("two.csv"), "truncated")
    assert publisher.dvc("push")
    fresh = publisher.fresh()
    fresh.use(Remote(str(tmp_path / "store")), verify="false")
    assert fresh.dvc("pull", "data.dvc") and fresh.dvc("status", "--quiet", "data.dvc")
    with pytest.raises(IntegrityError, match=r"(?s)data/left: two.csv has .*data/left/two.csv: the object has"):
        fresh.verify()


@pytest.mark.parametrize("lost", [False, True])
def test_a_remote_is_mended_by_removing_the_object_and_the_list(publisher, lost, tmp_path):
    """As docs/remotes.md says: a push alone takes what is there for right, and even what is lost for being there."""
    publisher.use(Remote(str(tmp_path / "store")))
    assert publisher.dvc("push")
    stored, listed = (
        tmp_path / "store" / "files" / "md5" / publisher.object(name).relative_to(publisher.objects)
        for name in ("two.csv", ".dir")
    )
    if lost:
        stored.unlink()
    else:
        harm(stored, "flipped")
    fresh = publisher.fresh()
    fresh.use(Remote(str(tmp_path / "store")))
    assert publisher.dvc("push") and not fresh.dvc("pull", "data.dvc")
    for path in (stored, listed):
        path.unlink(missing_ok=True)
    assert publisher.dvc("push") and fresh.dvc("pull", "data.dvc")
    assert_whole(fresh)
