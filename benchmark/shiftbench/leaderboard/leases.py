"""Who does what in a results folder: a lease for each run, and each search, that is being done.

Whoever works on a run holds its lease, so any number of processes on any number of machines share
what is to do. A lease is a row of files in ``leases/``, ``KEY.1.json``, ``KEY.2.json``, …: each
holder makes the next one, which a file system lets exactly one of several do, and only the last
counts. The holder touches its file as long as it is at work. A lease is free when its holder has
written there how it ended, or its process is gone from this machine, or its file has not changed
for the holder's ``lease_s`` seconds of the clock of whoever looks: no two machines' clocks are
compared. A holder that was frozen meanwhile finds that it holds nothing any more.

What is asked of the storage is in ``Storage``: that a file can be created by one of several at once
and that what was written is seen by whoever opens the file afterwards. Local disks and NFS do so
(``Folder``), and object stores with conditional writes (``leaderboard.objects``).
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Literal, NamedTuple, Protocol, Self
from urllib.parse import quote

from shiftbench.core.files import written_atomically
from shiftbench.core.liveness import alive, machine, started
from shiftbench.core.locations import cache_dir
from shiftbench.core.mirror import address, placed
from shiftbench.leaderboard.objects import Objects

LEASE_S = 60.0
DAY_S = 24 * 3600.0
FOLDER = "leases"
_JOIN_S = 1.0
_BEATS = 6  # within the time after which a holder is taken for gone
_AT_ONCE = 16  # renewals, each of which waits for the storage

Ending = Literal["done", "failed", "released", "taken"]
Stamp = tuple[int, str]

_NAME = re.compile(r"[^.].*\.[0-9]+\.json")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lease:
    """What a file of a lease says.

    Attributes:
        token: of the holder, and of no other.
        host: name of its machine, for people.
        pid: its process.
        machine: of ``core.liveness.machine``.
        started: of ``core.liveness.started``.
        lease_s: seconds without a sign after which it may be taken for gone.
        ended: how the holder's work ended; ``None`` while it is at it.
        reason: why it failed.
    """

    token: str = ""
    host: str = "?"
    pid: int = 0
    machine: str = ""
    started: str = ""
    lease_s: float = LEASE_S
    ended: Ending | None = None
    reason: str = ""

    @property
    def gone(self) -> bool:
        """True if the holder's process was on this machine and is there no more."""
        return self.machine == machine() and not alive(self.pid, self.started)

    @property
    def holder(self) -> str:
        """The holder for people."""
        return f"process {self.pid} on {self.host}"

    def text(self) -> str:
        """The content of its file."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str) -> Lease:
        """What a file says; of one that is not whole yet, that somebody is at it."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return cls()


class Storage(Protocol):
    """The files of leases, by name."""

    def create(self, name: str, text: str) -> bool:
        """Make a file; false if there is one, made by whomever."""

    def read(self, name: str) -> tuple[str, Stamp] | None:
        """A file's text, and what tells whether it has changed; ``None`` if there is none."""

    def write(self, name: str, text: str) -> None:
        """Write a file in place of what was there."""

    def touch(self, name: str, text: str) -> None:
        """Make a file that is there, with this text, look changed."""

    def names(self) -> list[str]:
        """All files."""


@dataclass(frozen=True)
class Folder:
    """Leases on a file system."""

    path: Path

    def create(self, name: str, text: str) -> bool:
        """See ``Storage``."""
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with (self.path / name).open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            return False
        return True

    def read(self, name: str) -> tuple[str, Stamp] | None:
        """See ``Storage``. NFS asks its server when a file is opened, and not otherwise."""
        try:
            with (self.path / name).open(encoding="utf-8", errors="replace") as file:
                text = file.read()
                return text, (os.fstat(file.fileno()).st_mtime_ns, text)
        except FileNotFoundError:
            return None

    def write(self, name: str, text: str) -> None:
        """See ``Storage``."""
        with written_atomically(self.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def touch(self, name: str, text: str) -> None:
        """See ``Storage``."""
        with suppress(FileNotFoundError):
            os.utime(self.path / name)

    def names(self) -> list[str]:
        """See ``Storage``."""
        return [file.name for file in self.path.glob("*.json") if _NAME.fullmatch(file.name)]


class _Held(NamedTuple):
    """A lease that is held here: the number of its file, and who writes there."""

    number: int
    writing: Lock


class Leases:
    """The leases that this process holds, and what it sees of others'; a context manager.

    At the end of the block all are released.

    Args:
        storage: of the results folder.
        lease_s: seconds without a sign after which others take this process for gone.
        clock: gives seconds.
    """

    def __init__(
        self,
        storage: Storage,
        lease_s: float = LEASE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        pid = os.getpid()
        self._me = Lease(uuid.uuid4().hex, platform.node(), pid, machine(), started(pid), lease_s)
        self._storage = storage
        self._lease_s = lease_s
        self._clock = clock
        self._held: dict[str, _Held] = {}
        self._watched: dict[str, tuple[Stamp, float, float]] = {}  # unchanged since, looked at
        self._over = Event()
        self._beating: Thread | None = None

    @classmethod
    def of(cls, results: Path, lease_s: float = LEASE_S) -> Leases:
        """Those of a results folder."""
        return cls(_storage(results), lease_s)

    @property
    def token(self) -> str:
        """Tells this holder from all others; see ``holds``."""
        return self._me.token

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self._over.set()
        if self._beating is not None:
            self._beating.join(_JOIN_S)  # the storage may not answer
        for key in [*self._held]:
            try:
                self.end(key, "released")
            except OSError as error:  # others find that this process is gone, or silent
                _log.warning("the lease of %s cannot be given back: %s", key, error)

    def take(self, key: str) -> Lease | None:
        """Have a lease, if it is free or held here already; else that of its holder."""
        if self.held(key):
            return None
        while True:
            last, lease = self._last(key)
            if lease is not None and lease.ended is None:
                return lease
            if self._storage.create(_name(key, last + 1), self._me.text()):
                break
        self._held[key] = _Held(last + 1, Lock())
        if lease is not None and lease.ended == "taken":  # the holder may be frozen, and wake up
            self._storage.write(_name(key, last), lease.text())
        self._beat()
        return None

    @contextmanager
    def taken(self, key: str) -> Iterator[bool]:
        """Have a lease for the block; yields whether it is ours."""
        before = self.held(key)
        ours = before or self.take(key) is None
        try:
            yield ours
        finally:
            if ours and not before:
                self.end(key, "released")

    def held(self, key: str) -> bool:
        """True while this process holds a lease; it asks the storage."""
        held = self._held.get(key)
        return held is not None and _holds(self._storage, key, held.number, self.token)

    def look(self, key: str) -> Lease | None:
        """A lease as it is now, ``taken`` if its holder is gone; ``None`` if nobody ever had it."""
        return self._last(key)[1]

    def end(self, key: str, ended: Ending, reason: str = "") -> None:
        """Give a lease back, and say how the work ended; nothing if it was lost."""
        held = self._held.get(key)
        if held is None:
            return
        with held.writing:
            if _holds(self._storage, key, held.number, self.token):
                lease = replace(self._me, ended=ended, reason=reason)
                self._storage.write(_name(key, held.number), lease.text())
            self._held.pop(key, None)

    def _last(self, key: str) -> tuple[int, Lease | None]:
        """The number of a lease's last file, 0 if there is none, and what it says."""
        number, found = 0, None
        while (content := self._storage.read(_name(key, number + 1))) is not None:
            number, found = number + 1, content
        if found is None:
            return 0, None
        text, stamp = found
        lease = Lease.of(text)
        name = _name(key, number)
        if lease.ended is None and (lease.gone or self._silent(name, stamp, lease.lease_s)):
            lease = replace(lease, ended="taken")
        return number, lease

    def _silent(self, name: str, stamp: Stamp, lease_s: float) -> bool:
        """True if a file has been seen unchanged for too long."""
        now = self._clock()
        before, since, looked = self._watched.get(name, (None, now, now))
        if before != stamp or now - looked > lease_s:  # frozen together, both wake up together
            since = now
        self._watched[name] = stamp, since, now
        return now - since >= lease_s

    def _beat(self) -> None:
        """Touch what is held, now and then, in a thread of its own."""
        if self._beating is None:
            self._beating = Thread(target=self._beats, name="leases", daemon=True)
            self._beating.start()

    def _beats(self) -> None:
        renewed: dict[str, Future[None]] = {}
        pool = ThreadPoolExecutor(_AT_ONCE, "leases")
        while not self._over.wait(self._lease_s / _BEATS):
            renewed = {key: one for key, one in renewed.items() if not one.done()}
            for key, held in [*self._held.items()]:
                if key not in renewed:  # one that the storage does not answer keeps up no other
                    renewed[key] = pool.submit(self._renew, key, held)
        pool.shutdown(cancel_futures=True)

    def _renew(self, key: str, held: _Held) -> None:
        """Touch the file of a lease, if it is still held."""
        try:
            with held.writing:  # or it could write once more what has ended meanwhile
                if _holds(self._storage, key, held.number, self.token):
                    self._storage.touch(_name(key, held.number), self._me.text())
        except Exception as error:  # it may work the next time
            _log.warning("the lease of %s cannot be renewed: %s", key, error)


def holds(results: Path, key: str, token: str) -> bool:
    """True if a lease is held by the process that a worker works for.

    Args:
        results: the results folder.
        key: of the lease.
        token: of that process.
    """
    storage, number = _storage(results), 1
    while storage.read(_name(key, number + 1)) is not None:
        number += 1
    return _holds(storage, key, number, token)


def search_key(search_id: str) -> str:
    """The key of a search's lease; that of a run's is its id."""
    return f"search-{search_id}"


def held_now(results: Path) -> Mapping[str, Lease]:
    """The leases whose holders may be at work, by key: as far as one look can tell.

    Whoever has shown no sign for a day on another machine is gone, unless clocks are that wrong.
    """
    storage = _storage(results)
    last: dict[str, int] = {}
    for name in storage.names():
        key, number = _parts(name)
        last[key] = max(number, last.get(key, 0))
    found = {}
    for key, number in sorted(last.items()):
        content = storage.read(_name(key, number))
        if content is None:
            continue
        text, (touched_ns, _) = content
        lease = Lease.of(text)
        age = time.time() - touched_ns / 1e9
        silent = lease.machine != machine() and age > max(DAY_S, lease.lease_s)
        if lease.ended is None and not lease.gone and not silent:
            found[key] = lease
    return found


def files(results: Path) -> dict[str, list[Path]]:
    """The files of all leases that anybody ever had, by key.

    The last of a lease is first: as they can be deleted without a gap before one.
    """
    storage = _storage(results)
    folder = storage.path if isinstance(storage, Folder) else results / FOLDER
    found: dict[str, list[Path]] = {}
    for key, number in sorted(map(_parts, storage.names()), key=lambda of: (of[0], -of[1])):
        found.setdefault(key, []).append(folder / _name(key, number))
    return found


def _storage(results: Path) -> Storage:
    """Where the leases of a results folder are."""
    place = placed(results / FOLDER)
    if place is None:
        return Folder(results / FOLDER)
    if not place.remote.exclusive:  # they hold on this machine alone, for all of its processes
        return Folder(cache_dir() / FOLDER / quote(address(results), safe=""))
    return Objects(place.remote, place.name)


def _holds(storage: Storage, key: str, number: int, token: str) -> bool:
    """True if a file of a lease is its last, and its holder has this token and is at work."""
    content = storage.read(_name(key, number))
    if content is None or storage.read(_name(key, number + 1)) is not None:
        return False
    lease = Lease.of(content[0])
    return lease.token == token and lease.ended is None


def _name(key: str, number: int) -> str:
    return f"{key}.{number}.json"


def _parts(name: str) -> tuple[str, int]:
    key, number, _ = name.rsplit(".", 2)
    return key, int(number)
