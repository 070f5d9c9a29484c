"""How a command ends that is stopped by SIGTERM or Ctrl-C: soon, whole, and with all it started."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

INTERRUPTED = 130
TERMINATED = 143
"""Exit codes: 128 and the number of the signal, as shells have it."""
GRACE_S = 3.0
"""Seconds after which a command that was stopped is ended whatever it is at."""
_CODES: dict[int, int] = {signal.SIGTERM: TERMINATED, signal.SIGINT: INTERRUPTED}
_OVER = b"\0"
_SET_CHILD_SUBREAPER = 36  # of Linux's prctl
_ROUNDS = 3


@contextmanager
def stoppable(grace_s: float = GRACE_S) -> Iterator[None]:
    """End the block by an exception when it is to stop, or the process if that takes too long.

    SIGTERM raises ``SystemExit`` and Ctrl-C ``KeyboardInterrupt``, so that what is half done is
    cleared away; whatever becomes of that, ``SystemExit`` with the signal's exit code leaves the
    block. Whoever waits for another process or computes in C may not get to it, so ``grace_s``
    later this process ends with all its descendants. Outside of the main thread, where no signal
    arrives, nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        _adopt_orphans()
        stopped.append(number)
        if number == signal.SIGTERM:
            raise SystemExit(TERMINATED)
        raise KeyboardInterrupt

    heard, told = os.pipe()
    os.set_blocking(told, False)
    before = {number: signal.signal(number, stop) for number in _CODES}
    # Python writes the number of every signal there, whoever has set its handler by then.
    wakeup = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(heard, grace_s, stopped), daemon=True).start()
    try:
        yield
    except BaseException as error:
        if stopped:  # Ray, for one, raises another SystemExit in place of ours
            raise SystemExit(_CODES[stopped[0]]) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.write(told, _OVER)
        os.close(told)
        if stopped:
            _kill_descendants()


def _watch(heard: int, grace_s: float, stopped: list[int]) -> None:
    """Hear of a signal to stop, and some time later end this process and its descendants."""
    text = b""
    while text != _OVER and (not text or text[0] not in _CODES):
        text = os.read(heard, 1)
    if text == _OVER:
        os.close(heard)
        return
    stopped.append(text[0])
    _adopt_orphans()
    time.sleep(grace_s)
    _kill_descendants()
    os._exit(_CODES[text[0]])


@contextmanager
def own_handler() -> Iterator[None]:
    """Keep this process's handler of SIGTERM over a call that sets another one, as Ray's does."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as ended:
        raise SystemExit(TERMINATED) from ended
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


def _adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends, so that they can be found."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _kill_descendants() -> None:
    """Kill all that this process started, and what that starts meanwhile."""
    for _ in range(_ROUNDS):
        for pid in descendants(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        time.sleep(0.02)


def descendants(pid: int) -> list[int]:
    """The ids of the processes that a process started, and that those started."""
    children = defaultdict(list)
    for child, parent in _processes():
        children[parent].append(child)
    found = [pid]
    for parent in found:
        found += children[parent]
    return found[1:]


def _processes() -> Iterator[tuple[int, int]]:
    """Every process of this machine and its parent."""
    if not Path("/proc/self/stat").exists():
        listed = subprocess.run(
            ["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=True
        )
        for line in listed.stdout.splitlines():
            pid, parent = line.split()
            yield int(pid), int(parent)
        return
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "stat").read_text()
        except OSError:  # it has ended
            continue
        yield int(folder.name), int(text.rpartition(")")[2].split()[1])
