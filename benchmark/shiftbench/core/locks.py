"""Locks that the system releases when their holder dies."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shiftbench.core.pulse import beat

_SHORTEST_S, _LONGEST_S = 0.001, 0.1
_log = logging.getLogger(__name__)


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the lock of a file, which is made if there is none; another holder is waited for.

    Yields whether this process is alone: some network file systems have no locks, and in another
    user's folder there may be none to open.
    """
    try:
        opened = _opened(path)
    except OSError as error:
        _log.info("%s cannot be opened (%s)", path, error.strerror)
        yield False
        return
    with os.fdopen(opened) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("waiting for another process that holds %s", path)
            _wait(file.fileno())
        except OSError as error:
            _log.info("%s cannot be locked (%s)", path, error.strerror)
            yield False
            return
        yield True


def _wait(descriptor: int) -> None:
    """Take a lock as soon as it is free; whoever watches this process knows that it waits."""
    pause = _SHORTEST_S
    while True:
        time.sleep(pause)
        beat()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            pause = min(2 * pause, _LONGEST_S)


def _opened(path: Path) -> int:
    """A descriptor of a file: of another user's, which must not be written, for reading."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)  # NFS locks no file that is only read
    except OSError:
        return os.open(path, os.O_RDONLY)
