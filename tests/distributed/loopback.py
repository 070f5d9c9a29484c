"""A Ray cluster of one node on this machine, with token authentication, for as long as needed."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

RAY = Path(sys.executable).with_name("ray")
START_S = 60


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    Attributes:
        dashboard: its URL.
        address: of its head, ``host:port``.
        environment: with which a process may use it.
    """

    dashboard: str
    address: str
    environment: dict[str, str]


@contextmanager
def cluster(cpus: int = 2) -> Iterator[Cluster]:
    """Start a head, wait until it answers, and end it: no other Ray of this machine is touched."""
    # The agent takes jobs; at its usual port may be that of another cluster of this machine.
    head, dashboard, agent = _free_ports(3)
    url = f"http://127.0.0.1:{dashboard}"
    own = {
        "PATH": os.pathsep.join((str(RAY.parent), os.environ["PATH"])),  # a job's python is ours
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_API_SERVER_ADDRESS": url,
    }
    environment = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
    environment |= own
    # Sockets lie below; their paths may have 107 bytes.
    with TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        command = [RAY, "start", "--head", "--block", "--disable-usage-stats",
                   "--node-ip-address=127.0.0.1", f"--port={head}", f"--dashboard-port={dashboard}",
                   "--dashboard-host=127.0.0.1", f"--dashboard-agent-listen-port={agent}",
                   f"--num-cpus={cpus}", f"--temp-dir={folder}",
                   f"--object-store-memory={100 * 2**20}"]  # fmt: skip
        with (Path(folder) / "head.log").open("w") as log:
            process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            _wait(process, f"{url}/api/version", own["RAY_AUTH_TOKEN"], Path(folder) / "head.log")
            yield Cluster(url, f"127.0.0.1:{head}", environment)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, token: str, log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            asked = Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310
            urlopen(asked, timeout=5).close()  # noqa: S310
        except (URLError, HTTPError, OSError):
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(f"the cluster did not start:\n{log.read_text()}")


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports: list[int] = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports
