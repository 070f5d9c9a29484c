"""Results in an object store, as a folder of this machine: its mirror.

Everything that reads and writes results works on paths. Where ``--results`` is a URL they lead into
a folder under the cache, one for each URL, whose files are copies of objects:

- what is written there by ``core.files`` is an object before it has its name here, so a row never
  names what is not there, and two machines never disagree for longer than a look takes;
- ``refresh`` looks: copies of what has changed or is gone go, small files come;
- ``fetched`` brings a large file when it is opened; those that were not opened for the longest go
  when all of them are larger than ``SHIFTBENCH_RESULTS_CACHE_BYTES``.

A copy cannot be written to, and its time is of the object's version, so one look at a file says
whether it is a copy, and of what. What else is there, such as locks, is of this machine alone.
For a plain folder every function does nothing, at once.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

from shiftbench.core.copies import (
    WRITABLE,
    comes_along,
    copies,
    drop,
    evict,
    fetch,
    is_copy,
    is_of,
    stamp,
)
from shiftbench.core.errors import InputError, StorageError
from shiftbench.core.locations import cache_dir, is_remote
from shiftbench.core.remote import Facts, Remote, plain_url

FOLDER = "mirrors"
_LONGEST = 255  # bytes of a file name


class Place(NamedTuple):
    """What a path in a mirror stands for: a folder of a store, and a name in it."""

    remote: Remote
    name: str


def local(location: str | Path) -> Path:
    """The folder of this machine that stands for a results folder; a path is its own.

    Raises:
        InputError: a URL that cannot be used.
    """
    text = str(location)
    if not is_remote(text):
        return Path(location)
    name = quote(plain_url(text), safe="")
    if len(name) > _LONGEST:
        raise InputError(f"{text.partition('?')[0]}: the URL is too long")
    return _mirrors() / name


def address(path: Path) -> str:
    """How a path is called on every machine: the inverse of ``local``."""
    place = placed(path)
    if place is None:
        return str(path)
    location, mark, query = place.remote.url.partition("?")
    return "/".join(filter(None, (location, place.name))) + mark + query


def shown(path: Path) -> str:
    """A path for people: of a mirror, the URL that it stands for, without its options."""
    return address(path).partition("?")[0] if placed(path) else str(path)


def placed(path: Path) -> Place | None:
    """What a path stands for; ``None`` outside of all mirrors."""
    inside = f"{_mirrors()}{os.sep}"
    text = str(path)
    if not text.startswith(inside):
        return None
    root, _, name = text.removeprefix(inside).partition(os.sep)
    url = unquote(root)
    return Place(Remote(url), name) if is_remote(url) else None


def opened(location: str | Path) -> Path:
    """The folder of ``local``, as it is now.

    Raises:
        InputError: a URL that cannot be used, or a store that does not answer.
    """
    folder = local(location)
    try:
        refresh(folder)
    except StorageError as error:
        raise InputError(str(error)) from error
    return folder


def refresh(folder: Path) -> None:
    """See what there is in a folder by now.

    Raises:
        StorageError: the store does not answer.
    """
    place = placed(folder)
    if place is None:
        return
    begun = time.time()
    there = place.remote.all(place.name)
    root = _root(folder, place)
    for path in copies(folder):
        facts = there.get(path.relative_to(root).as_posix())
        if facts is None or not is_of(path, facts):
            drop(path, begun)
    missing = [
        (root / name, facts)
        for name, facts in there.items()
        if comes_along(name) and not hidden(name.removeprefix(place.name)) and safe(name)
        if not (root / name).exists()
    ]
    if missing:
        with ThreadPoolExecutor(16) as pool:  # each waits for the network
            [*pool.map(lambda of: _fetch(place.remote, *of), _named(missing, root))]


def refresh_file(path: Path) -> None:
    """See what a small file is by now; see ``refresh``."""
    place = placed(path)
    if place is None:
        return
    begun = time.time()
    facts = place.remote.facts(place.name)
    if path.exists() and (facts is None or not is_of(path, facts)) and is_copy(path):
        drop(path, begun)
    if facts is not None and not path.exists():
        _fetch(place.remote, place.name, path, facts)


def fetched(path: Path) -> Path:
    """A file that may be large, brought here if it is not; the path as it is.

    Raises:
        StorageError: the store does not answer.
    """
    place = placed(path)
    if place is None:
        return path
    try:
        found = path.stat()
    except FileNotFoundError:
        facts = place.remote.facts(place.name)
        if facts is not None:
            _fetch(place.remote, place.name, path, facts)
            evict(_mirrors())
        return path
    if not found.st_mode & WRITABLE:
        with suppress(FileNotFoundError):
            os.utime(path, ns=(time.time_ns(), found.st_mtime_ns))
    return path


def there(path: Path) -> bool:
    """True if there is a file, here or in the store; it is not brought here."""
    place = placed(path)
    return path.exists() or (place is not None and place.remote.facts(place.name) is not None)


def checked_out(path: Path) -> Path:
    """A file that is written to piece by piece, as it was when it was last published.

    Raises:
        StorageError: the store does not answer.
    """
    place = placed(path)
    if place is not None:
        path.unlink(missing_ok=True)
        facts = place.remote.facts(place.name)
        if facts is not None:
            _fetch(place.remote, place.name, path, facts)
            path.chmod(path.stat().st_mode | stat.S_IWUSR)
    return path


def publish(path: Path) -> None:
    """Have everybody see a file that is written to piece by piece, as it is now.

    Raises:
        StorageError: the store does not answer.
    """
    place = placed(path)
    if place is not None:
        place.remote.put(path, place.name)


def upload(temporary: Path, path: Path) -> None:
    """Make a file an object and a copy of it, just before it gets the name ``path``.

    Raises:
        StorageError: the store does not answer.
    """
    place = placed(path)
    if place is not None:
        stamp(temporary, place.remote.put(temporary, place.name))
        if not comes_along(place.name):
            evict(_mirrors())


def forget(path: Path) -> None:
    """Delete the objects that a file or folder stands for, just before it goes here.

    Raises:
        StorageError: the store does not answer.
    """
    place = placed(path)
    if place is not None:
        names = [*place.remote.all(place.name)]
        if names or place.remote.facts(place.name) is not None:
            place.remote.delete(names or [place.name])


def move(source: Path, target: Path) -> None:
    """Give a file or a folder another place in the same results folder, in the store too.

    Raises:
        StorageError: the store does not answer.
    """
    place, to = placed(source), placed(target)
    if place is not None and to is not None:
        for name in [*place.remote.all(place.name)] or [place.name]:
            place.remote.move(name, to.name + name.removeprefix(place.name))
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)


def listed(folder: Path, pattern: str) -> list[Path]:
    """The files below a folder that fit a pattern, such as ``*/*.arrow``; sorted."""
    found = {*folder.glob(pattern)}
    place = placed(folder)
    if place is not None:
        names = (Path(name) for name in place.remote.all(place.name))
        below = (name.relative_to(place.name) for name in names)
        depth = pattern.count("/") + 1
        found = {
            folder / name
            for name in below
            if len(name.parts) == depth and fnmatch(name.as_posix(), pattern)
        }
    return sorted(found)


def sizes(folder: Path) -> dict[Path, int]:
    """The bytes of a file, or of every file below a folder, here or in the store."""
    place = placed(folder)
    if place is None:
        files = (file for file in (folder, *folder.rglob("*")) if file.is_file())
        return {file: file.stat().st_size for file in files}
    root = _root(folder, place)
    found = place.remote.all(place.name)
    alone = None if found else place.remote.facts(place.name)
    found |= {} if alone is None else {place.name: alone}
    return {root / name: facts.size for name, facts in found.items()}


@contextmanager
def shared(parent: Path, prefix: str) -> Iterator[tuple[str, Remote | None]]:
    """A folder that all machines see, for the block: its path, or its URL and the store.

    Args:
        parent: of it.
        prefix: of its name.
    """
    folder = parent / f"{prefix}{uuid.uuid4().hex[:8]}"
    place = placed(folder)
    if place is None:
        folder.mkdir(parents=True)
    try:
        yield str(folder) if place is None else place.name, place and place.remote
    finally:
        with suppress(OSError):  # it holds nothing that is needed
            forget(folder)
        shutil.rmtree(folder, ignore_errors=True)


def hidden(name: str) -> bool:
    """True of names that begin with a dot, or below such a folder."""
    return any(part.startswith(".") for part in name.split("/"))


def safe(name: str) -> bool:
    """True of names that stay in their folder, whatever somebody called an object."""
    return not {"", ".", ".."} & {*name.split("/")}


def _mirrors() -> Path:
    return (cache_dir() / FOLDER).absolute()


def _root(path: Path, place: Place) -> Path:
    """The mirror that a path is in."""
    return path.parents[place.name.count("/")] if place.name else path


def _named(missing: list[tuple[Path, Facts]], root: Path) -> Iterator[tuple[str, Path, Facts]]:
    for path, facts in missing:
        yield path.relative_to(root).as_posix(), path, facts


def _fetch(remote: Remote, name: str, path: Path, facts: Facts) -> None:
    fetch(remote, name, path, facts, among=_mirrors())
