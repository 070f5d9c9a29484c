"""Whether a process is still there, seen from this machine."""

from __future__ import annotations

import hashlib
import os
import platform
import uuid
from functools import lru_cache
from pathlib import Path

_GONE = "ZXx"
"""States of Linux's processes that have ended, and whose parent has not asked how."""


@lru_cache(maxsize=1)
def machine() -> str:
    """Tells this machine, from its start to its next, from all others: 16 hexadecimal digits.

    A container that has process ids of its own is a machine of its own.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        facts = [boot, str(Path("/proc/self/ns/pid").readlink())]
    except OSError:  # not Linux
        facts = [f"{uuid.getnode():x}"]
    return hashlib.sha256(" ".join([platform.node(), *facts]).encode()).hexdigest()[:16]


def started(pid: int) -> str:
    """When a process of this machine was started, in the system's own words; "" if unknown."""
    found = _state_and_start(pid)
    return found[1] if found else ""


def alive(pid: int, since: str = "") -> bool:
    """True if there is a process of this id.

    Args:
        pid: of a process of this machine.
        since: of ``started``; ids are used again.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        pass
    found = _state_and_start(pid)
    if found is None:
        return True
    state, start = found
    return state not in _GONE and since in ("", start)


def _state_and_start(pid: int) -> tuple[str, str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:  # not Linux, hidden, or just gone
        return None
    fields = text.rpartition(")")[2].split()
    return fields[0], fields[19]
