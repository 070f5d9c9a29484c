"""Processor time of a command with all processes that it starts, detached ones included. Linux."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_EVERY_S = 0.1
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Used:
    """What a command took.

    Attributes:
        wall: seconds until it ended.
        processor: seconds of all its processes, sampled ten times a second; what a process did
            after the last look at it is not counted.
        each: the same of each process, in the order in which they were first seen.
    """

    wall: float
    processor: float
    each: tuple[float, ...] = ()


def used_by(command: Sequence[str], environment: Mapping[str, str]) -> Used:
    """Run a command and add up what its processes used.

    Raises:
        CalledProcessError: it failed; its output has been printed.
    """
    started = time.perf_counter()
    seconds: dict[int, float] = {}
    with subprocess.Popen(
        command, env=dict(environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        while process.poll() is None:
            seconds |= _family({process.pid, *seconds})
            time.sleep(_EVERY_S)
        wall = time.perf_counter() - started
        output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        print(output)
        raise subprocess.CalledProcessError(process.returncode, command)
    return Used(wall, sum(seconds.values()), tuple(seconds.values()))


def _family(members: set[int]) -> dict[int, float]:
    """Processor seconds of some processes and of all their descendants."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            parents[int(folder.name)] = int(fields[1])
            seconds[int(folder.name)] = (int(fields[11]) + int(fields[12])) / _TICKS
    while found := {c for c, parent in parents.items() if parent in members and c not in members}:
        members |= found
    return {member: seconds[member] for member in members if member in seconds}
