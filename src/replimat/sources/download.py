"""One file by HTTP (or file://) into a user cache: resumable, size- and hash-checked, safe with several processes.

A download grows in `<sha256>-<name>.part` and takes its final name only when size and sha256 are right, so whatever
stands in the cache under a final name is complete. An interrupted download goes on where it stopped (HTTP Range).
"""

import os
import ssl
import sys
from pathlib import Path
from urllib.parse import urlsplit

from replimat.errors import IntegrityError, SourceError
from replimat.files import sha256

ATTEMPTS = 4  # a broken connection is resumed this often before giving up
TIMEOUT = 60.0  # seconds without a byte


def cache_folder() -> Path:
    """$REPLIMAT_CACHE, else $XDG_CACHE_HOME/replimat, else ~/.cache/replimat."""
    if given := os.environ.get("REPLIMAT_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "replimat"


def cache_path(name: str, digest: str) -> Path:
    """Where the file `name` with this sha256 stands in the cache, whether or not it is there yet."""
    return cache_folder() / "downloads" / f"{digest}-{name}"


def http_client(certificates: str | None = None, timeout: float = TIMEOUT, trusted_hosts: tuple[str, ...] = ()):
    """An HTTP client that also reads file:// and honours proxies.

    `certificates`: a CA bundle; without it REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, then the system's store are used.
    """
    from unearth.fetchers import PyPIClient

    bundle = certificates or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    try:
        verify = ssl.create_default_context(cafile=bundle) if bundle else True
    except OSError as error:
        raise SourceError(f"{bundle}: not a readable CA bundle ({error.strerror or error}); mend `cert`.") from error
    return PyPIClient(verify=verify, timeout=timeout, trusted_hosts=trusted_hosts, follow_redirects=True)


def download(client, url: str, name: str, digest: str, size: int) -> Path:
    """The cached file `name` with this sha256 and size in bytes, downloaded from `url` if it is not cached yet.

    Raises SourceError when it cannot be had, IntegrityError when it is not the expected file (then it is removed).
    """
    from filelock import FileLock

    path = cache_path(name, digest)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.is_file():
                part = path.with_name(f"{path.name}.part")
                _grow(client, url, part, name, size)
                _accept(part, path, url, name, digest, size)
    except OSError as error:
        raise SourceError(
            f"{path}: could not be written ({error.strerror or error}). Free some space, or name another folder in "
            "REPLIMAT_CACHE."
        ) from error
    return path


def _grow(client, url: str, part: Path, name: str, size: int) -> None:
    """Append to `part` until it has `size` bytes, resuming after every broken connection."""
    import httpx2

    fault = ""
    for _ in range(ATTEMPTS):
        try:
            _stream(client, url, part, name, size)
        except httpx2.HTTPStatusError as error:
            status = f"{error.response.status_code} {error.response.reason_phrase}".strip()
            raise SourceError(f"{name}: {_host(url)} answered {status}.") from error
        except httpx2.HTTPError as error:
            fault = str(error) or type(error).__name__
        if part.exists() and part.stat().st_size >= size:
            return
    got = part.stat().st_size if part.exists() else 0
    reason = f" ({' '.join(fault.split())})" if fault else ""
    raise SourceError(
        f"{name}: {_host(url)} sent {got:,} of {size:,} bytes{reason}. Check the network and run it again: "
        "it goes on where it stopped."
    )


def _stream(client, url: str, part: Path, name: str, size: int) -> None:
    """One connection: append what the server sends to `part`, never more than one block beyond `size`."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    have = part.stat().st_size if part.exists() else 0
    if have >= size:
        return
    # identity: bytes on the disk must be the file's own, or a Range request would count something else.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with client.stream("GET", url, headers=headers) as response, bar as progress:
        response.raise_for_status()
        resumed = response.status_code == 206
        task = progress.add_task(name, total=size, completed=have if resumed else 0)
        with open(part, "ab" if resumed else "wb") as stream:
            for block in response.iter_raw():
                stream.write(block)
                progress.advance(task, len(block))
                if stream.tell() > size:
                    return


def _accept(part: Path, path: Path, url: str, name: str, digest: str, size: int) -> None:
    """Give the finished download its final name, or remove it when it is not the expected file."""
    came = part.stat().st_size
    found = f"sha256 {sha256(part)}" if came == size else f"at least {came:,} bytes"
    expected = f"sha256 {digest}" if came == size else f"{size:,} bytes"
    if found != expected:
        part.unlink()
        raise IntegrityError(
            f"{name} from {_host(url)} has {found}, expected {expected}. The download was removed; "
            "if it comes again, the file was replaced at its source."
        )
    os.replace(part, path)


def _host(url: str) -> str:
    """Where a URL points, without credentials and query."""
    parts = urlsplit(url)
    return parts.hostname or parts.path
