"""What tests need that start programs which listen: where they are, ports for them, waiting until they answer."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

GRACE = 2  # seconds between SIGTERM and SIGKILL


def found(name: str) -> str | None:
    """Where a program is; daemons lie outside an ordinary user's PATH."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 on which nothing listens."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait(ready: Callable[[], bool], complaint: str, seconds: float = 60.0) -> None:
    """Return when `ready()`. Raises TimeoutError with the complaint."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(complaint)
        time.sleep(0.1)


@contextlib.contextmanager
def running(command: Sequence[str | Path], log: Path, port: int) -> Iterator[subprocess.Popen]:
    """Run a program until the block ends; yields it once something listens on its port of 127.0.0.1.

    Raises TimeoutError, naming the log, when nothing comes to listen there.
    """

    def answers() -> bool:
        if process.poll() is not None:
            raise TimeoutError(f"{command[0]} ended at once: {log.read_text()}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        try:
            wait(answers, f"{command[0]} does not answer, see {log}")
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
