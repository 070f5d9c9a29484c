"""A command that is stopped ends soon, with its own exit code, and with all it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from shiftbench.core.stopping import descendants, stoppable

STUBBORN = """
import signal, subprocess, sys, time
from shiftbench.core.stopping import own_handler, stoppable

with stoppable(grace_s=0.3):
    parent = subprocess.Popen(["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE)
    child = int(parent.stdout.readline())
    if sys.argv[1] == "foreign handler":
        signal.signal(signal.SIGTERM, lambda number, frame: None)
    print(child, flush=True)
    if sys.argv[1] == "code is lost":
        try:
            time.sleep(1000)
        except SystemExit as error:
            raise SystemExit(1) from error
    while sys.argv[1] != "heeds":
        try:
            time.sleep(1000)
        except (SystemExit, KeyboardInterrupt):
            pass
    with own_handler():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(15))  # as Ray does
    time.sleep(1000)
"""


@pytest.mark.parametrize(
    ("how", "number", "code"),
    [
        ("heeds", signal.SIGTERM, 143),
        ("heeds not", signal.SIGTERM, 143),
        ("heeds not", signal.SIGINT, 130),
        ("heeds", signal.SIGINT, 130),
        ("code is lost", signal.SIGTERM, 143),
        ("foreign handler", signal.SIGTERM, 143),
    ],
)
def test_a_command_ends_whatever_it_is_at(how: str, number: int, code: int) -> None:
    command = subprocess.Popen([sys.executable, "-c", STUBBORN, how], stdout=subprocess.PIPE)
    assert command.stdout is not None
    child = int(command.stdout.readline())
    time.sleep(0.2)  # until it waits
    command.send_signal(number)
    assert command.wait(20) == code  # 1 if it raised while it ended
    assert not runs(child)


def test_a_command_that_nobody_stops_is_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM), threading.active_count()
    with stoppable(grace_s=0):
        assert signal.getsignal(signal.SIGTERM) != before[0]
    time.sleep(0.2)
    assert (signal.getsignal(signal.SIGTERM), threading.active_count()) == before


def test_descendants_are_found_at_any_depth() -> None:
    shell = subprocess.Popen(["sh", "-c", "sh -c 'sleep 1000; true'; true"])
    try:
        end = time.monotonic() + 20
        while len(found := descendants(os.getpid())) < 3 and time.monotonic() < end:
            time.sleep(0.05)
        assert shell.pid in found
        assert len(descendants(shell.pid)) == 2
    finally:
        for pid in [*descendants(shell.pid), shell.pid]:
            os.kill(pid, signal.SIGKILL)
        shell.wait()


def runs(pid: int) -> bool:
    """True while a process has not ended; one whose parent has died is reaped by another."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
