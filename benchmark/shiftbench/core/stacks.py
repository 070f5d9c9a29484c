"""What a process is at that hangs: it is asked for its stack, and killed."""

from __future__ import annotations

import faulthandler
import os
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from shiftbench.core.liveness import alive, started

_SIGNAL = signal.SIGUSR2
_ANSWER_S = 2.0
_LOOK_S = 0.05
_answers: list[IO[bytes]] = []  # open as long as this process lives


class Place(NamedTuple):
    """Where a process writes its stack when it is asked to: to an open file without a name.

    Attributes:
        pid: the process.
        descriptor: the file's in that process.
        started: of ``core.liveness.started``.
    """

    pid: int
    descriptor: int
    started: str


def watchable() -> Place:
    """Let this process be asked for the stacks of its threads, even if it runs no more Python."""
    answer = tempfile.TemporaryFile()  # noqa: SIM115 - see above
    _answers.append(answer)
    faulthandler.register(_SIGNAL, answer, all_threads=True)
    return Place(os.getpid(), answer.fileno(), started(os.getpid()))


def stop(place: Place) -> str | None:
    """Kill a process of this machine.

    Returns:
        the stacks of its threads; "" if it does not answer, as one that is frozen; ``None`` if it
        was gone.
    """
    if not alive(place.pid, place.started):
        return None
    with suppress(ProcessLookupError):
        os.kill(place.pid, _SIGNAL)
        text = _answer(Path(f"/proc/{place.pid}/fd/{place.descriptor}"))
        os.kill(place.pid, signal.SIGKILL)
        return text
    return None


def _answer(file: Path) -> str:
    """What is written to a file within some time, once that is all."""
    text, deadline = "", time.monotonic() + _ANSWER_S
    while time.monotonic() < deadline:
        time.sleep(_LOOK_S)
        try:
            now = file.read_text(errors="replace")
        except OSError:  # gone, or not on Linux
            break
        if now and now == text:
            break
        text = now
    return text
