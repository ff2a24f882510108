"""Files inside published packages: the one named file of `package==version`, found by the user's own index settings.

`unearth` lists what the indexes offer without regard to the running Python, so that source distributions and wheels
for other versions are found; nothing is built or imported. Which indexes are asked is read from pip (its files and
PIP_* variables): index-url, extra-index-url, find-links, no-index, cert, trusted-host, timeout.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

from replimat.cards import RegistrySource
from replimat.errors import SourceError
from replimat.sources.download import TIMEOUT, cache_path, download, http_client


def package_file(source: RegistrySource) -> Path:
    """The package file a card names, from the cache or else downloaded. Raises SourceError or IntegrityError."""
    cached = cache_path(source.file, source.sha256)
    if cached.is_file():
        return cached
    client, url = _find(source)
    return download(client, url, source.file, source.sha256, source.bytes)


def _find(source: RegistrySource):
    """An HTTP client and the address of the package file. Raises SourceError when no index offers it."""
    import httpx2
    from unearth import PackageFinder
    from unearth.auth import MultiDomainBasicAuth
    from unearth.errors import UnpackError, URLError

    settings = pip_settings()
    hosts = tuple(settings.get("trusted-host", "").split())
    client = http_client(settings.get("cert"), float(settings.get("timeout") or TIMEOUT), hosts)
    indexes, links = _locations(settings)
    client.auth = MultiDomainBasicAuth(prompting=False, index_urls=indexes)  # as in the address, .netrc or keyring
    requirement = f"{source.package}=={source.version}"
    if not indexes and not links:
        raise SourceError(f"{requirement}: pip is set to no-index and has no find-links, so there is nowhere to look.")
    finder = PackageFinder(
        session=client, index_urls=indexes, find_links=links, trusted_hosts=hosts, ignore_compatibility=True
    )
    try:
        offers = {package.link.filename: package.link.normalized for package in finder.find_matches(requirement)}
    except (httpx2.HTTPError, URLError, UnpackError, ValueError) as error:
        raise SourceError(f"{requirement}: the package index could not be read ({error}).") from error
    if source.file not in offers:
        found = f"it offers {', '.join(sorted(offers))}" if offers else "nothing of that version was found"
        raise SourceError(
            f"{source.file} is not in the package index: {found}. Check the network and pip's index settings "
            "(`pip config list`)."
        )
    return client, offers[source.file]


def _locations(settings: dict[str, str]) -> tuple[list[str], list[str]]:
    """Index addresses and find-links places, in pip's order."""
    from unearth import PackageFinder

    links = settings.get("find-links", "").split()
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        return [], links
    default = [place["url"] for place in PackageFinder().sources]  # the finder's own, when the user set none
    main = [settings["index-url"]] if settings.get("index-url") else default
    return main + settings.get("extra-index-url", "").split(), links


def pip_settings() -> dict[str, str]:
    """pip's settings for installing, by long option name; PIP_* variables win over files, as in pip itself."""
    listing = _pip_config_list()
    settings = {}
    for section in ("global", "install", "download", ":env:"):
        for line in listing.splitlines():
            key, _, value = line.partition("=")
            if key.startswith(f"{section}."):
                settings[key.removeprefix(f"{section}.").replace("_", "-")] = str(ast.literal_eval(value))
    return settings


def _pip_config_list() -> str:
    """What `pip config list` prints; where pip is not installed, the same form made from PIP_* variables."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode == 0:
        return answer.stdout
    names = {key: key.removeprefix("PIP_").lower() for key in os.environ if key.startswith("PIP_")}
    return "\n".join(f":env:.{name}={os.environ[key]!r}" for key, name in names.items())
