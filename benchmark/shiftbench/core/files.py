"""Files that appear whole or not at all, and file names for texts of any kind."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shiftbench.core import mirror
from shiftbench.core.errors import InputError, one_line
from shiftbench.core.liveness import alive

_MACHINE = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
_TEMPORARY = re.compile(r"\..+\.(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}\.tmp")
_ABANDONED_S = 24 * 3600
_LONGEST = 100  # characters; all are ASCII, and file systems allow 255 bytes with the ending
_PLAIN = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.=+, -]*[A-Za-z0-9_=+-])?")
_OTHERS = re.compile(r"[^A-Za-z0-9_.=+,-]+")


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``: what is written there takes its place at the end.

    The name is unique, so several processes may write the same file; it ends in ``.tmp``, so no
    reader takes it for a result. When the block raises, nothing remains.

    The file has the permissions that the process gives new files (its umask), so that a group that
    shares a results folder can read it; some libraries write files for their owner alone. Where
    results are in an object store, it is there first (``core.mirror``).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unique = f"{_MACHINE}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    temporary = path.with_name(f".{path.name}.{unique}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)
        mirror.upload(temporary, path)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """A new folder beside ``path``, which takes its place at the end; the one before goes.

    When the block raises, all is as before. Between the two renames there is nothing at ``path``.
    """
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    unique = f"{_MACHINE}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    temporary, before = (path.with_name(f".{path.name}.{unique}{end}") for end in (".tmp", ".old"))
    try:
        temporary.mkdir()
        yield temporary
        if path.exists():
            path.rename(before)
        try:
            temporary.rename(path)
        except OSError:
            if before.exists():
                before.rename(path)
            raise
    finally:
        for folder in (temporary, before):
            shutil.rmtree(folder, ignore_errors=True)


def remove(path: Path) -> None:
    """Delete a file, or a folder with all that is in it, if it is there; in its store, too."""
    mirror.forget(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder for the block, with files that appear as ``written_atomically`` has it."""
    folder = parent / f"{prefix}{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        remove(folder)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        InputError: it does not, or cannot be read.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON: {one_line(error)}") from error
    if not isinstance(document, dict):
        raise InputError(f"{path}: not readable as JSON: it holds no object")
    return document


def sweep_temporaries(folder: Path, pattern: str = "**/.*.tmp") -> None:
    """Delete what processes left under temporary names in a folder because they were killed.

    That is what a process of this machine wrote that is no longer there, and what one of another
    machine, which cannot be asked, has not touched for a day.
    """
    for file in folder.glob(pattern):
        named = _TEMPORARY.fullmatch(file.name)
        if named is None:
            continue
        try:
            if named["machine"] == _MACHINE:
                abandoned = not alive(int(named["pid"]))
            else:
                abandoned = time.time() - file.stat().st_mtime > _ABANDONED_S
        except FileNotFoundError:  # renamed meanwhile
            continue
        if abandoned:
            file.unlink(missing_ok=True)


def file_name(text: str, ending: str = "") -> str:
    """Return a file name that stands for a text, and for no other, in every folder.

    A plain text (letters, digits, spaces and ``_.=+,-``) is its own name. Any other, such as
    ``../../x``, becomes its plain characters, ``~`` and a digest; plain texts have no ``~``.

    Args:
        text: a name that a person gave, of a shift, a task, a suite, …
        ending: of the file, such as ``.md``.
    """
    if len(text) <= _LONGEST and _PLAIN.fullmatch(text):
        return text + ending
    readable = _OTHERS.sub("-", text).strip("-.,")[: _LONGEST // 2]
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{readable}~{digest}{ending}"
