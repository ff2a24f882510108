"""A made-up project with its own data, cache, package index and web server, for tests of sources and datasets."""

import contextlib
import hashlib
import http.server
import io
import tarfile
import threading
from pathlib import Path

import yaml

from replimat import cards


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Project:
    """An empty project below `root`; the environment points to it and to nothing of the user's."""

    def __init__(self, root: Path, monkeypatch):
        self.root, self.data, self.cache = root / "project", root / "project" / "data", root / "cache"
        for folder in ("papers", "datasets"):
            (self.root / folder).mkdir(parents=True)
        for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "REPLIMAT_MIRROR"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("REPLIMAT_ROOT", str(self.root))
        monkeypatch.setenv("REPLIMAT_CACHE", str(self.cache))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        self.setenv = monkeypatch.setenv
        self.delenv = monkeypatch.delenv
        cards.dataset.cache_clear()

    def card(self, name: str, source: dict, **fields) -> None:
        """Write a dataset card."""
        content = {"name": name, "title": "t", "summary": "s", "licence": "MIT", "citation": "c", "source": source}
        (self.root / "datasets" / f"{name}.yaml").write_text(yaml.safe_dump(content | fields))
        cards.dataset.cache_clear()

    def raw(self, name: str, **members: str) -> list[dict]:
        """Put raw members into data/<name>/ (file_csv="..." becomes file.csv) and return their card entries."""
        entries = []
        for key, text in members.items():
            path = self.data / name / key.replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            entries.append(member(path.name, text.encode()))
        return entries

    def use_links(self, folder: Path) -> None:
        """Let the package finder look in a folder of files and nowhere else."""
        self.setenv("PIP_FIND_LINKS", str(folder))


def member(path: str, content: bytes, save_as: str = "") -> dict:
    return {"path": path, "save_as": save_as or Path(path).name, "sha256": sha256(content), "bytes": len(content)}


def tar_gz(path: Path, **members: bytes) -> bytes:
    """Write a .tar.gz with members at package/<key with _ as .>; returns its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"package/{name.replace('_', '.')}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path.read_bytes()


def registry_source(archive: Path, members: list[dict], package: str = "demo", version: str = "1.0") -> dict:
    content = archive.read_bytes()
    source = {"kind": "registry", "package": package, "version": version, "file": archive.name}
    return source | {"sha256": sha256(content), "bytes": len(content), "members": members}


class Server:
    """What a local web server serves, what it was asked, and how often it breaks off after `break_after` bytes."""

    def __init__(self, files: dict[str, bytes]):
        self.files, self.requests = files, []
        self.break_after, self.breaks_left, self.ranges = None, 0, True
        self.credentials = None  # the Authorization header that is asked for


@contextlib.contextmanager
def serving(files: dict[str, bytes]):
    """A web server on 127.0.0.1; yields (Server, base address)."""
    state = Server(files)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            state.requests.append((self.path, self.headers.get("Range")))
            if state.credentials and self.headers.get("Authorization") != state.credentials:
                self.send_response(401)
                self.send_header("WWW-Authenticate", "Basic")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = state.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")) if self.headers.get("Range") else 0
            start = start if state.ranges else 0
            self.send_response(206 if start else 200)
            self.send_header("Content-Type", "text/html" if self.path.endswith("/") else "application/octet-stream")
            self.send_header("Content-Length", str(len(content) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            body = content[start:]
            if state.breaks_left:
                state.breaks_left -= 1
                body = body[: state.break_after]
                self.close_connection = True
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield state, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
