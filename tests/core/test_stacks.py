"""What a process is at that hangs."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Self

import pytest
from shiftbench.core import stacks
from shiftbench.core.stacks import Place, stop

PROGRAM = """
import time
from shiftbench.core.stacks import watchable

def stuck():
    print(*watchable(), flush=True)
    time.sleep(600)

stuck()
"""


class Hung:
    """A process that does nothing any more."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        pid, descriptor, started = self.process.stdout.readline().decode().split()
        self.place = Place(int(pid), int(descriptor), started)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def hung() -> Iterator[Hung]:
    with Hung() as found:
        yield found


def test_a_process_that_hangs_says_where_and_is_killed(hung: Hung) -> None:
    text = stop(hung.place)
    assert "in stuck" in text and "most recent call first" in text
    assert hung.process.wait(20) == -signal.SIGKILL


def test_one_that_is_frozen_says_nothing_and_is_killed(
    hung: Hung, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks, "_ANSWER_S", 0.1)
    hung.process.send_signal(signal.SIGSTOP)
    assert stop(hung.place) == ""
    assert hung.process.wait(20) == -signal.SIGKILL
    assert stop(hung.place) is None  # it is gone


def test_another_process_of_the_same_id_is_left_alone(hung: Hung) -> None:
    assert stop(hung.place._replace(started="1")) is None
    assert hung.process.poll() is None
