"""Files that are copies of objects in a store: what tells them, how they come and when they go.

A copy cannot be written to, and its time is of the object's version.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from shiftbench.core.errors import InputError, disk_full
from shiftbench.core.remote import Facts, Remote

LIMIT_VARIABLE = "SHIFTBENCH_RESULTS_CACHE_BYTES"
LEFT_FREE_BYTES = 10 * 2**30
LIMIT_BYTES = 100 * 2**30
WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
_ROWS = ("/leaderboard/", "/leaderboard.parquet")
_TEXTS = (".json", ".yaml", ".txt", ".md")
_LEASES = "/leases/"  # are asked for where they are
_IN_USE_S = 300.0
_ABANDONED_S = 24 * 3600.0
_DOWNLOADS = ".*." + "[0-9a-f]" * 8 + ".tmp"  # as ``_copy`` names them


def comes_along(name: str) -> bool:
    """True of files that are small or needed by whoever looks at results."""
    path = f"/{name}"
    if _LEASES in path:
        return False
    return any(rows in path for rows in _ROWS) or name.endswith(_TEXTS)


def copies(folder: Path) -> Iterator[Path]:
    """All copies of objects below a folder."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if not name.endswith(".tmp") and is_copy(path):
                yield path


def is_copy(path: Path) -> bool:
    """True if a file is a copy."""
    with suppress(FileNotFoundError):
        found = path.lstat()
        return stat.S_ISREG(found.st_mode) and not found.st_mode & WRITABLE
    return False


def is_of(path: Path, facts: Facts) -> bool:
    """True if a copy is of this version of its object."""
    with suppress(FileNotFoundError):
        found = path.stat()
        return facts.stamped(found.st_mtime_ns, found.st_size)
    return False


def stamp(file: Path, facts: Facts) -> None:
    """Make a file a copy of an object."""
    file.chmod(file.stat().st_mode & ~WRITABLE)
    os.utime(file, ns=(time.time_ns(), facts.stamp))


def drop(path: Path, begun: float) -> None:
    """Delete a copy of what is no longer there, unless it came after that was seen."""
    with suppress(FileNotFoundError):
        if path.lstat().st_ctime < begun:
            path.unlink()
    with suppress(OSError):  # others are still in it
        path.parent.rmdir()


def fetch(remote: Remote, name: str, path: Path, facts: Facts, among: Path) -> None:
    """Copy an object to here; where the disk is full, what can be brought again makes room."""
    try:
        _copy(remote, name, path, facts)
    except OSError as error:
        if not disk_full(error):
            raise
        evict(among, 0)
        _copy(remote, name, path, facts)


def _copy(remote: Remote, name: str, path: Path, facts: Facts) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        if remote.get(name, temporary):
            temporary.chmod(mode)
            stamp(temporary, facts)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _limit() -> int:
    text = os.environ.get(LIMIT_VARIABLE, "")
    if not text:
        return LIMIT_BYTES
    try:
        return int(text)
    except ValueError:
        raise InputError(f'{LIMIT_VARIABLE}: "{text}" is no number of bytes') from None


def evict(folder: Path, limit: int | None = None) -> None:
    """Delete the copies of large files that were not opened for the longest, down to a limit.

    Those of the last minutes stay, since somebody may be about to open them. What processes left of
    downloads because they were killed goes after a day.

    Args:
        folder: of all copies.
        limit: bytes; by default ``SHIFTBENCH_RESULTS_CACHE_BYTES``.
    """
    limit = _limit() if limit is None else limit
    for path in folder.rglob(_DOWNLOADS):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                path.unlink()
    large = []
    for path in copies(folder):
        if not comes_along(path.relative_to(folder).as_posix()):
            with suppress(FileNotFoundError):
                found = path.stat()
                large.append((found.st_atime, found.st_size, path))
    total = sum(size for _, size, _ in large)
    if large:  # what is written here needs room, too
        limit = max(0, min(limit, total + shutil.disk_usage(folder).free - LEFT_FREE_BYTES))
    for used, size, path in sorted(large):
        if total <= limit or time.time() - used < _IN_USE_S:
            return
        path.unlink(missing_ok=True)
        total -= size
