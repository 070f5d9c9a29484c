"""Whether a process is still there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from shiftbench.core.liveness import alive, machine, started


def test_this_process_is_alive_since_it_was_started() -> None:
    assert alive(os.getpid())
    assert alive(os.getpid(), started(os.getpid()))
    assert machine() == machine() and len(machine()) == 16


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere starts and zombies are unknown")
def test_another_process_of_the_same_id_and_one_that_ended_are_not() -> None:
    assert not alive(os.getpid(), "1")
    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    since = started(child.pid)
    assert alive(child.pid, since)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not alive(child.pid, since)  # though nobody has asked how it ended
    child.communicate()
    assert not alive(child.pid)
