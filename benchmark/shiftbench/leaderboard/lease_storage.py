"""Where the files of leases are: what is asked of a storage, and the two kinds that there are.

A file can be created by one of several at once, and what was written is seen by whoever opens it
afterwards. Local disks and NFS do so, and object stores with conditional writes.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from shiftbench.core.files import written_atomically
from shiftbench.core.locations import cache_dir
from shiftbench.core.mirror import address, placed
from shiftbench.core.remote import Remote

FOLDER = "leases"

Stamp = tuple[int, str]

_NAME = re.compile(r"[^.].*\.[0-9]+\.json")


class Storage(Protocol):
    """The files of leases, by name."""

    @property
    def everywhere(self) -> bool:
        """True if all machines see them that see the results."""

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
    """Leases on a file system.

    Attributes:
        path: of the folder.
        everywhere: whether other machines that see the results see it, too.
    """

    path: Path
    everywhere: bool = True

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


@dataclass(frozen=True)
class Objects:
    """Leases in an object store, which lets exactly one of several writers create an object.

    What is written has a first line of its own, the writer's time in nanoseconds: a touch writes
    the object again with another, since not every store tells when it was written.

    Attributes:
        remote: of the results.
        folder: name of the leases' in it.
    """

    remote: Remote
    folder: str

    @property
    def everywhere(self) -> bool:
        """See ``Storage``."""
        return True

    def create(self, name: str, text: str) -> bool:
        """See ``Storage``."""
        return self.remote.create(self._key(name), _stamped(text))

    def read(self, name: str) -> tuple[str, Stamp] | None:
        """See ``Storage``."""
        content = self.remote.read(self._key(name))
        if content is None:
            return None
        first, _, text = content.decode("utf-8", "replace").partition("\n")
        return text, (int(first) if first.isdecimal() else 0, text)

    def write(self, name: str, text: str) -> None:
        """See ``Storage``."""
        self.remote.write(self._key(name), _stamped(text))

    def touch(self, name: str, text: str) -> None:
        """See ``Storage``."""
        self.write(name, text)

    def names(self) -> list[str]:
        """See ``Storage``."""
        start = len(self.folder) + 1
        names = (name[start:] for name in self.remote.all(self.folder))
        return [name for name in names if _NAME.fullmatch(name)]

    def _key(self, name: str) -> str:
        return f"{self.folder}/{name}"


def storage_of(results: Path) -> Storage:
    """Where the leases of a results folder are.

    Those of a store that decides between no two writers hold on this machine, for all of its
    processes.
    """
    place = placed(results / FOLDER)
    if place is None:
        return Folder(results / FOLDER)
    if not place.remote.exclusive:
        return Folder(cache_dir() / FOLDER / quote(address(results), safe=""), everywhere=False)
    return Objects(place.remote, place.name)


def _stamped(text: str) -> bytes:
    return f"{time.time_ns()}\n{text}".encode()
