"""Notices that this process is about to end, which a training hears before it does: SIGTERM.

Whoever takes a machine away says so first, and ends its processes some seconds or minutes later. A
training saves its state at once then. What listens to nothing ends as it always would.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from shiftbench.core.stopping import TERMINATED

_SAME_S = 1.0  # a process group is told at once, and its server tells its workers again
_listening = 0
_given = False
_given_at = 0.0


def heed() -> None:
    """Have SIGTERM wait for what listens in this process; for the main thread.

    A later one, or one while nothing listens, does what it did before.
    """
    before = signal.getsignal(signal.SIGTERM)

    def hear(number: int, frame: FrameType | None) -> None:
        global _given, _given_at
        now = time.monotonic()
        if _listening and not _given:
            _given, _given_at = True, now
        elif _listening and now - _given_at < _SAME_S:
            pass
        elif callable(before):
            before(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, hear)


def given() -> bool:
    """True once this process was told to end."""
    return _given


@contextmanager
def listening() -> Iterator[None]:
    """Have the block hear of a notice by ``given``: it ends soon by itself, by ``end``."""
    global _listening
    _listening += 1
    try:
        yield
    finally:
        _listening -= 1
        if not _listening and _given:
            end()


def end() -> None:
    """End this process as SIGTERM does, now that what was to be saved is.

    Raises:
        SystemExit: always.
    """
    raise SystemExit(TERMINATED)
