"""Downloads one file: from the first mirror that gives it, resumed after interruptions, checked."""

from __future__ import annotations

import errno
import hashlib
import http.client
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from shiftbench.core.errors import InputError
from shiftbench.data.downloads.catalogue import Remote

Progress = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes that are there, and the bytes in all where known."""

ATTEMPTS = 4
"""Times that nothing may arrive from a mirror before the next one is tried."""

PAUSE = 0.5
"""Seconds before another attempt; twice as many after each one in vain."""

_BLOCK = 1024 * 1024
_TIMEOUT = 60.0


class _MirrorError(Exception):
    """One mirror cannot give a file; ``broken`` when what came from it must be discarded."""

    def __init__(self, message: str, broken: bool = False) -> None:
        super().__init__(message)
        self.broken = broken


def download(file: Remote, cellar: Path, progress: Progress | None, home: str) -> Path:
    """Return the downloaded and checked file, from the first mirror that gives it.

    Args:
        file: one file of the catalogue.
        cellar: the folder for files that have not arrived whole; what is there is gone on with.
        progress: told of the bytes that have arrived.
        home: address of the data set's page, for messages.

    Raises:
        InputError: no mirror gives it.
        OSError: it cannot be written.
    """
    finished = cellar / file.name
    if finished.exists():  # unpacking it was interrupted
        return finished
    part = cellar / f"{file.name}.part"
    failures = []
    for url in file.urls:
        try:
            _with_retries(file, url, part, progress)
            _check(file, part)
        except _MirrorError as error:
            failures.append(f"{url}: {error}")
            if error.broken:
                _discard(part)
        else:
            part.replace(finished)
            _discard(part)
            return finished
    raise InputError(f"{file.name}: no mirror gives it ({'; '.join(failures)}); see {home}")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _origin(part).unlink(missing_ok=True)


def _origin(part: Path) -> Path:
    """Return the file beside a partial download that records where it came from."""
    return part.with_suffix(".origin")


def _with_retries(file: Remote, url: str, part: Path, progress: Progress | None) -> None:
    """Download ``part``, going on after interruptions as long as something arrives in between."""
    vain = 0
    while True:
        before = _size(part)
        try:
            _transfer(file, url, part, progress)
            return
        except (http.client.HTTPException, OSError) as error:
            if _is_local(error):
                raise
            vain = vain + 1 if _size(part) <= before else 0
            refused = isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500
            if refused or vain == ATTEMPTS:
                raise _MirrorError(_reason(error)) from error
            time.sleep(PAUSE * 2**vain)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _is_local(error: Exception) -> bool:
    """Tell an error of this machine's disk from one of the network."""
    if isinstance(error, urllib.error.URLError) or not isinstance(error, OSError):
        return False
    return error.filename is not None or error.errno in (errno.ENOSPC, errno.EDQUOT)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    return str(getattr(error, "reason", "") or error) or type(error).__name__


def _transfer(file: Remote, url: str, part: Path, progress: Progress | None) -> None:
    """Append what is missing to ``part``, or begin it anew when it cannot be resumed."""
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise _MirrorError("not an http address")
    request = urllib.request.Request(url, headers={"User-Agent": "shiftbench"})  # noqa: S310
    start = _resume_from(file, url, part, request)
    if file.size is not None and start == file.size:
        return
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise _MirrorError("has fewer bytes than were there already", broken=True) from error
        raise
    with response:
        if response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
            raise _MirrorError("sends a web page instead of the file")
        resumed = response.status == http.client.PARTIAL_CONTENT
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise _MirrorError("sends another part than was asked for", broken=True)
        start = start if resumed else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and length.isdecimal() else None
        if file.size is not None and total not in (None, file.size):
            raise _MirrorError(f"has {total:,} bytes instead of {file.size:,}")
        version = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        _origin(part).write_text(f"{url}\n{version}\n")
        with part.open("ab" if resumed else "wb") as out:
            done = start
            while block := response.read(_BLOCK):
                out.write(block)
                done += len(block)
                if progress is not None:
                    progress(file.name, done, total)
    if total is not None and done < total:
        raise http.client.IncompleteRead(b"", total - done)


def _resume_from(file: Remote, url: str, part: Path, request: urllib.request.Request) -> int:
    """Return the byte to go on from, and ask for the rest in ``request``.

    A file of another mirror, or a changed one, is only gone on with when a checksum will tell.
    """
    start = _size(part)
    if start == 0:
        return 0
    origin = _origin(part).read_text().splitlines() if _origin(part).exists() else []
    same, version = origin[:1] == [url], "".join(origin[1:2])
    strong = version if same and not version.startswith("W/") else ""
    if not file.checksum and not strong:
        return 0
    request.add_header("Range", f"bytes={start}-")
    if strong:
        request.add_header("If-Range", strong)
    return start


def _check(file: Remote, part: Path) -> None:
    """Refuse a download of the wrong size or checksum, or a web page in disguise."""
    size = part.stat().st_size
    if file.size is not None and size != file.size:
        raise _MirrorError(f"sent {size:,} bytes instead of {file.size:,}", broken=True)
    with part.open("rb") as content:
        if content.read(512).lstrip().lower().startswith((b"<!doctype", b"<html")):
            raise _MirrorError("sends a web page instead of the file", broken=True)
        if file.checksum:
            algorithm, _, expected = file.checksum.partition(":")
            content.seek(0)
            found = hashlib.file_digest(content, algorithm).hexdigest()
            if found != expected:
                raise _MirrorError(f"sent a file with another {algorithm} sum", broken=True)
