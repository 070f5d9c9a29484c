"""The batch script with programs that stand for Slurm's, Ray's and the system's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ray.scripts.scripts import start

from tests.cluster.test_files import SCRIPT

PROGRAMS = {
    "scontrol": 'printf "%s\\n" ${NODES}',
    # Its own options first, then the command.
    "srun": 'while [[ "$1" == --* ]]; do shift; done; exec "$@"',
    "hostname": '[[ "$1" == -I ]] && exec echo "$INTERFACES "; [[ -n "$NAME" ]] && echo "$NAME"',
    "python": "echo 4",
    "ray": 'echo "$@" >> "$HERE/ray-commands"',
    # Until all nodes, of which there are two at most, have started Ray.
    "shiftbench": 'until [[ "$(wc -l < "$HERE/ray-commands")" == "$(wc -w <<< "$NODES")" ]]; '
    'do sleep 0.05; done; echo "$@"',
}


def ran(here: Path, job: int = 7, nodes: str = "n1", **answers: str) -> tuple[int, str]:
    """The exit code of a job and what it printed; what Ray was started with is in a file."""
    (here / "bin").mkdir()
    (here / "ray-commands").touch()
    for name, text in PROGRAMS.items():
        program = here / "bin" / name
        program.write_text(f"#!/bin/bash\n{text}\n")
        program.chmod(0o755)
    given = {"NAME": "", "INTERFACES": "", **answers, "NODES": nodes, "HERE": str(here)}
    slurm = {"SLURM_JOB_ID": str(job), "SLURM_JOB_NODELIST": "n", "HOME": str(here)}
    path = f"{here / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", SCRIPT, "quickstart"],
        cwd=here,
        env={"PATH": path, **given, **slurm},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


def head(here: Path) -> dict[str, Any]:
    """What Ray's command line makes of the head's options."""
    (words,) = (
        line.split()
        for line in (here / "ray-commands").read_text().splitlines()
        if "--head" in line.split()
    )
    given: dict[str, Any] = start.make_context("start", words[1:]).params
    return given


@pytest.mark.parametrize(
    ("name", "interfaces", "address"),
    [
        ("10.0.0.5", "10.9.9.9", "10.0.0.5"),
        ("127.0.0.1 10.0.0.5", "10.9.9.9", "10.0.0.5"),
        ("127.0.1.1", "169.254.3.4 10.1.2.3 fe80::1", "10.1.2.3"),
        ("fe80::1", "10.1.2.3", "10.1.2.3"),
        ("", "10.1.2.3", "10.1.2.3"),
        ("127.0.1.1", "", "127.0.0.1"),
    ],
)
def test_the_head_has_an_address_that_is_not_of_loopback_where_there_is_one(
    name: str, interfaces: str, address: str, tmp_path: Path
) -> None:
    code, printed = ran(tmp_path, NAME=name, INTERFACES=interfaces)
    assert code == 0, printed
    given = head(tmp_path)
    assert given["node_ip_address"] == address
    assert f"run quickstart --address {address}:{given['port']}" in printed


def test_other_nodes_join_the_head(tmp_path: Path) -> None:
    code, printed = ran(tmp_path, nodes="n1 n2", NAME="127.0.1.1", INTERFACES="10.1.2.3")
    assert code == 0, printed
    (worker,) = (
        line
        for line in (tmp_path / "ray-commands").read_text().splitlines()
        if "--head" not in line
    )
    assert worker.startswith(f"start --address=10.1.2.3:{head(tmp_path)['port']} ")


def test_nodes_that_could_not_meet_are_not_started(tmp_path: Path) -> None:
    code, printed = ran(tmp_path, nodes="n1 n2", NAME="127.0.1.1")
    assert code == 1
    assert printed == (
        "n1 has no address for the other nodes: neither of its name nor by hostname -I\n"
    )
    assert not (tmp_path / "ray-commands").read_text()
    assert not (tmp_path / ".ray").exists()  # nor is a token left


def test_jobs_on_one_node_have_ports_of_their_own(tmp_path: Path) -> None:
    seen = []
    for job in (123_456, 123_457, 9_999, 10_000):
        here = tmp_path / str(job)
        here.mkdir()
        code, printed = ran(here, job, NAME="10.0.0.5")
        assert code == 0, printed
        given = head(here)
        seen += [given[key] for key in ("port", "dashboard_port", "ray_client_server_port")]
    assert len({*seen}) == 12
    assert all(20_000 <= port < 52_365 for port in seen)  # which is Ray's for its agents
