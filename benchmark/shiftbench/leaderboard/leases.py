"""Who does what in a results folder: a lease for each run, and each search, that is being done.

Whoever works on a run holds its lease, so any number of processes on any number of machines share
what is to do. A lease is a row of files in ``leases/``, ``KEY.1.json``, ``KEY.2.json``, …: each
holder makes the next one, which a file system lets exactly one of several do, and only the last
counts. The holder touches its file as long as it is at work. A lease is free when its holder has
written there how it ended, or its process is gone from this machine, or its file has not changed
for the holder's ``lease_s`` seconds of the clock of whoever looks: no two machines' clocks are
compared. A holder that was frozen meanwhile finds that it holds nothing any more.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Literal, NamedTuple, Self

from shiftbench.core.liveness import alive, machine, started
from shiftbench.leaderboard.lease_storage import FOLDER, Folder, Stamp, Storage, storage_of

LEASE_S = 60.0
DAY_S = 24 * 3600.0
_JOIN_S = 1.0
_BEATS = 6  # within the time after which a holder is taken for gone
_AT_ONCE = 16  # renewals, each of which waits for the storage

Ending = Literal["done", "failed", "released", "taken"]

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
        return cls(storage_of(results), lease_s)

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
    storage, number, last, ours = storage_of(results), 0, None, False
    while (content := storage.read(_name(key, number + 1))) is not None:
        number, last = number + 1, Lease.of(content[0])
        ours = ours or last.token == token
    if last is not None and (ours or storage.everywhere):
        return last.token == token and last.ended is None
    # What is seen of this machine alone tells nothing of a process that is on another.
    return not storage.everywhere and (last is None or last.ended is not None or last.gone)


def search_key(search_id: str) -> str:
    """The key of a search's lease; that of a run's is its id."""
    return f"search-{search_id}"


class Seen(NamedTuple):
    """A lease as one look finds it.

    Attributes:
        lease: what its last file says.
        age: seconds since that was written or touched, unless clocks are wrong.
        files: all that there are of it; the last is first: as they can be deleted without a gap
            before one.
    """

    lease: Lease
    age: float
    files: list[Path]

    @property
    def held(self) -> bool:
        """True if its holder may be at work.

        Whoever has shown no sign for a day on another machine is gone, unless clocks are that
        wrong.
        """
        lease = self.lease
        silent = lease.machine != machine() and self.age > max(DAY_S, lease.lease_s)
        return lease.ended is None and not lease.gone and not silent


def seen(results: Path) -> Mapping[str, Seen]:
    """All leases that anybody ever had, by key."""
    storage = storage_of(results)
    folder = storage.path if isinstance(storage, Folder) else results / FOLDER
    numbers: dict[str, list[int]] = {}
    for key, number in map(_parts, storage.names()):
        numbers.setdefault(key, []).append(number)
    names = {
        key: [_name(key, number) for number in sorted(of, reverse=True)]
        for key, of in sorted(numbers.items())
    }
    with ThreadPoolExecutor(_AT_ONCE, "leases") as pool:  # a store answers slowly
        read = pool.map(storage.read, [last for last, *_ in names.values()])
        return {
            key: Seen(Lease.of(text), time.time() - touched_ns / 1e9, [*map(folder.joinpath, of)])
            for (key, of), content in zip(names.items(), read, strict=True)
            if content is not None
            for text, (touched_ns, _) in [content]
        }


def held_now(results: Path) -> Mapping[str, Lease]:
    """The leases whose holders may be at work, by key: as far as one look can tell."""
    return {key: found.lease for key, found in seen(results).items() if found.held}


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
