"""Where bytes come from: package index, URL, mirror; resumable, checked, complete or absent."""

import base64
import multiprocessing
import pickle

import numpy as np
import pytest

from projects import Project, member, registry_source, serving, sha256, tar_gz
from replimat import sources
from replimat.errors import IntegrityError, SourceError
from replimat.sources import download, registry
from replimat.sources.pickles import NUMPY_GLOBALS

CONTENT = np.random.default_rng(0).bytes(300_000)


@pytest.fixture
def project(tmp_path, monkeypatch):
    return Project(tmp_path, monkeypatch)


@pytest.fixture
def package(project, tmp_path):
    """A source distribution in a folder of links, with a card for its one member."""
    archive = tmp_path / "links" / "demo-1.0.tar.gz"
    tar_gz(archive, a_csv=b"alpha", b_csv=b"beta", setup_py=b"raise SystemExit('executed')")
    project.card("demo", registry_source(archive, [member("package/a.csv", b"alpha", "deep/a.csv")]))
    project.use_links(archive.parent)
    return archive


# ------------------------------------------------------------------------------------------------ registry


def test_only_the_named_member_is_put_into_data(project, package):
    folder = sources.fetch("demo")
    assert folder == project.data / "demo"
    assert [path.read_bytes() for path in folder.rglob("*") if path.is_file()] == [b"alpha"]
    assert sources.member_path("demo", "deep/a.csv").read_bytes() == b"alpha"
    assert sources.manifest(["demo"]) == {"demo/deep/a.csv": sha256(b"alpha")}


def test_second_fetch_works_offline_from_the_cache(project, package):
    sources.fetch("demo")
    package.unlink()
    (project.data / "demo" / "deep" / "a.csv").unlink()
    sources.fetch("demo")
    assert sources.member_path("demo", "deep/a.csv").read_bytes() == b"alpha"


def test_datasets_of_one_package_share_one_download(project, tmp_path):
    archive = tmp_path / "demo-1.0.tar.gz"
    content = tar_gz(archive, a_csv=b"alpha", b_csv=b"beta")
    project.card("one", registry_source(archive, [member("package/a.csv", b"alpha")]))
    project.card("two", registry_source(archive, [member("package/b.csv", b"beta")]))
    page = f'<a href="/files/demo-1.0.tar.gz#sha256={sha256(content)}">demo-1.0.tar.gz</a>'.encode()
    with serving({"/simple/demo/": page, "/files/demo-1.0.tar.gz": content}) as (server, address):
        project.delenv("PIP_NO_INDEX")
        project.setenv("PIP_INDEX_URL", f"{address}/simple")
        sources.fetch("one")
        sources.fetch("two")
    assert [path for path, _ in server.requests].count("/files/demo-1.0.tar.gz") == 1
    assert sources.member_path("two", "b.csv").read_bytes() == b"beta"


def test_an_index_with_a_password_is_served_with_the_one_in_its_address(project, tmp_path):
    archive = tmp_path / "demo-1.0.tar.gz"
    content = tar_gz(archive, a_csv=b"alpha")
    project.card("demo", registry_source(archive, [member("package/a.csv", b"alpha")]))
    page = b'<a href="/files/demo-1.0.tar.gz">demo-1.0.tar.gz</a>'
    with serving({"/simple/demo/": page, "/files/demo-1.0.tar.gz": content}) as (server, address):
        server.credentials = "Basic " + base64.b64encode(b"me:secret").decode()
        project.delenv("PIP_NO_INDEX")
        project.setenv("PIP_INDEX_URL", f"{address}/simple".replace("//", "//me:secret@"))
        assert (sources.fetch("demo") / "a.csv").read_bytes() == b"alpha"


def test_wheels_for_other_pythons_are_found(project, tmp_path):
    wheel = tmp_path / "links" / "demo-1.0-cp27-cp27m-win32.whl"
    tar_gz(wheel, a_csv=b"alpha")  # the finder looks at names only
    project.card("demo", registry_source(wheel, [member("package/a.csv", b"alpha")]))
    project.use_links(wheel.parent)
    assert sources.fetch("demo").is_dir()


def test_a_file_the_index_lacks_is_named_with_what_it_offers(project, package):
    package.rename(package.with_name("demo-1.0.zip"))
    with pytest.raises(SourceError, match=r"demo-1.0.tar.gz is not in the package index: it offers demo-1.0.zip"):
        sources.fetch("demo")


def test_no_index_and_no_links_says_there_is_nowhere_to_look(project, package):
    project.delenv("PIP_FIND_LINKS")
    with pytest.raises(SourceError, match="no-index"):
        sources.fetch("demo")


def test_pip_settings_come_from_files_and_variables_win(project, tmp_path):
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\ncert = /etc/a.pem\nindex-url = http://127.0.0.1:1/simple\nextra-index-url =\n  x\n  y\n"
    )
    project.setenv("PIP_CONFIG_FILE", str(config))
    project.setenv("PIP_INDEX_URL", "http://127.0.0.1:2/simple")
    project.delenv("PIP_CERT", raising=False)
    settings = registry.pip_settings()
    assert settings["cert"] == "/etc/a.pem"
    assert settings["index-url"] == "http://127.0.0.1:2/simple"
    assert settings["extra-index-url"].split() == ["x", "y"]


def test_an_unreadable_ca_bundle_is_named(project, package):
    project.setenv("PIP_CERT", "/nowhere/ca.pem")
    with pytest.raises(SourceError, match=r"/nowhere/ca.pem: not a readable CA bundle"):
        sources.fetch("demo")


# ------------------------------------------------------------------------------------------------ download


def get(address: str, digest: str = sha256(CONTENT), size: int = len(CONTENT)):
    return download.download(download.http_client(), f"{address}/file.bin", "file.bin", digest, size)


def test_a_broken_connection_is_resumed_where_it_stopped(project):
    with serving({"/file.bin": CONTENT}) as (server, address):
        server.break_after, server.breaks_left = 100_000, 2
        assert get(address).read_bytes() == CONTENT
    starts = [asked for _, asked in server.requests]
    assert starts[0] is None and len(starts) == 3 and all(start.startswith("bytes=") for start in starts[1:])


def test_a_later_run_goes_on_where_an_earlier_one_gave_up(project):
    with serving({"/file.bin": CONTENT}) as (server, address):
        server.break_after, server.breaks_left = 10_000, download.ATTEMPTS
        with pytest.raises(SourceError, match=r"sent 40,000 of 300,000 bytes.*goes on where it stopped"):
            get(address)
        assert get(address).read_bytes() == CONTENT
    assert server.requests[-1][1] == "bytes=40000-"


def test_a_server_without_ranges_is_read_from_the_start(project):
    with serving({"/file.bin": CONTENT}) as (server, address):
        server.ranges, server.break_after, server.breaks_left = False, 100_000, 1
        assert get(address).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("served", "message"),
    [
        (CONTENT[::-1], f"has sha256 {sha256(CONTENT[::-1])}, expected sha256 {sha256(CONTENT)}"),
        (CONTENT + bytes(10**6), "has at least 3.*, expected 300,000 bytes"),
    ],
)
def test_a_wrong_file_is_refused_and_removed(project, served, message):
    with serving({"/file.bin": served}) as (_, address):
        with pytest.raises(IntegrityError, match=message):
            get(address)
    assert not [path for path in project.cache.rglob("*") if path.suffix != ".lock" and path.is_file()]


def test_a_missing_file_says_who_answered_what(project):
    with serving({}) as (_, address):
        with pytest.raises(SourceError, match=r"file.bin: 127.0.0.1 answered 404"):
            get(address)


def test_nobody_listening(project):
    with pytest.raises(SourceError, match=r"127.0.0.1 sent 0 of 300,000 bytes"):
        get("http://127.0.0.1:9")


def _fetch_in_process(address, results):
    results.put(sha256(get(address).read_bytes()))


def test_two_processes_at_once_get_the_same_whole_file(project):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    with serving({"/file.bin": CONTENT}) as (server, address):
        processes = [context.Process(target=_fetch_in_process, args=(address, results)) for _ in range(2)]
        for process in processes:
            process.start()
        hashes = {results.get(timeout=30) for _ in processes}
        for process in processes:
            process.join(timeout=30)
    assert hashes == {sha256(CONTENT)}
    assert len(server.requests) == 1


# -------------------------------------------------------------------------------------------- url and mirror


def url_card(project, url: str, content: bytes = CONTENT) -> None:
    project.card("paper", {"kind": "url", "url": url, "members": [member("repo/file.bin", content)]}, data="paper")


def test_a_url_is_downloaded(project):
    with serving({"/x/file.bin": CONTENT}) as (_, address):
        url_card(project, f"{address}/x/file.bin")
        assert (sources.fetch("paper") / "file.bin").read_bytes() == CONTENT


def test_a_url_that_ends_in_a_slash_is_a_folder(project):
    with serving({"/x/file.bin": CONTENT}) as (_, address):
        url_card(project, f"{address}/x/")
        assert (sources.fetch("paper") / "file.bin").read_bytes() == CONTENT


@pytest.fixture
def mirror(project, tmp_path):
    folder = tmp_path / "mirror"
    (folder / "repo").mkdir(parents=True)
    (folder / "repo" / "file.bin").write_bytes(CONTENT)
    row = f"repo/file.bin,{len(CONTENT)},{sha256(CONTENT)},http://127.0.0.1:9/,MIT,note"
    (folder / "manifest.csv").write_text(f"path,bytes,sha256,url,licence,note\n{row}\n")
    project.setenv("REPLIMAT_MIRROR", str(folder))
    url_card(project, "http://127.0.0.1:9/file.bin")
    return folder


def test_the_mirror_comes_first(project, mirror):
    assert (sources.fetch("paper") / "file.bin").read_bytes() == CONTENT


def test_a_file_the_mirror_lacks_is_named(project, mirror):
    (mirror / "repo" / "file.bin").unlink()
    with pytest.raises(SourceError, match=r"repo/file.bin: not in the mirror .* \(its manifest lists it"):
        sources.fetch("paper")


def test_a_changed_file_of_the_mirror_is_refused(project, mirror):
    (mirror / "repo" / "file.bin").write_bytes(CONTENT[::-1])
    with pytest.raises(IntegrityError, match=f"sha256 {sha256(CONTENT[::-1])}, expected {sha256(CONTENT)}"):
        sources.fetch("paper")
    assert not (project.data / "paper" / "file.bin").exists()


def test_a_mirror_without_manifest_is_refused(project, mirror):
    (mirror / "manifest.csv").unlink()
    with pytest.raises(SourceError, match=r"no readable manifest.csv"):
        sources.fetch("paper")


# ---------------------------------------------------------------------------------------------------- store


def test_a_changed_member_is_set_aside_and_fetched_again(project, package):
    path = sources.fetch("demo") / "deep" / "a.csv"
    path.write_bytes(b"alphb")
    with pytest.raises(IntegrityError) as caught:
        sources.verify("demo")
    message = str(caught.value)
    assert f"deep/a.csv has sha256 {sha256(b'alphb')}, expected {sha256(b'alpha')}" in message
    assert "registry package demo 1.0" in message and "`replimat fetch demo`" in message
    assert not path.exists()
    assert (project.root / ".quarantine" / "demo" / "a.csv").read_bytes() == b"alphb"
    sources.fetch("demo")
    sources.verify("demo")


def test_a_truncated_member_is_repaired_by_fetch_alone(project, package):
    path = sources.fetch("demo") / "deep" / "a.csv"
    path.write_bytes(b"al")
    sources.fetch("demo")
    assert path.read_bytes() == b"alpha"


def test_a_missing_member_says_how_to_get_it(project, package):
    with pytest.raises(IntegrityError, match=r"data/demo: deep/a.csv is missing. Run `replimat fetch demo`"):
        sources.verify("demo")


def test_a_file_that_is_not_on_the_card_is_named(project, package):
    (sources.fetch("demo") / "notes.txt").write_text("mine")
    with pytest.raises(IntegrityError, match=r"notes.txt: not on the card"):
        sources.verify("demo")


# -------------------------------------------------------------------------------------------------- pickles


def test_arrays_come_through_and_other_globals_do_not(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"x": np.arange(3.0)}))
    assert sources.load_pickle(path, NUMPY_GLOBALS)["x"].tolist() == [0.0, 1.0, 2.0]

    class Attack:
        def __reduce__(self):
            return eval, ("open('/tmp/never', 'w')",)

    path.write_bytes(pickle.dumps(Attack()))
    with pytest.raises(SourceError, match=r"asks for builtins.eval, which is not allowed"):
        sources.load_pickle(path, NUMPY_GLOBALS)


def test_a_truncated_pickle_is_refused(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"x": np.arange(300.0)})[:-40])
    with pytest.raises(SourceError, match="not a readable pickle"):
        sources.load_pickle(path, NUMPY_GLOBALS)
