"""Leases in an object store, which lets exactly one of several writers create an object."""

from __future__ import annotations

import time
from dataclasses import dataclass

from shiftbench.core.remote import Remote

Stamp = tuple[int, str]


@dataclass(frozen=True)
class Objects:
    """Leases as objects: ``leases.Storage``.

    What is written has a first line of its own, the writer's time in nanoseconds: a touch writes
    the object again with another, since not every store tells when it was written.

    Attributes:
        remote: of the results.
        folder: name of the leases' in it.
    """

    remote: Remote
    folder: str

    def create(self, name: str, text: str) -> bool:
        """Make an object; false if there is one, made by whomever."""
        return self.remote.create(self._key(name), _stamped(text))

    def read(self, name: str) -> tuple[str, Stamp] | None:
        """An object's text, and what tells whether it has changed; ``None`` if there is none."""
        content = self.remote.read(self._key(name))
        if content is None:
            return None
        first, _, text = content.decode("utf-8", "replace").partition("\n")
        return text, (int(first) if first.isdecimal() else 0, text)

    def write(self, name: str, text: str) -> None:
        """Write an object in place of what was there."""
        self.remote.write(self._key(name), _stamped(text))

    def touch(self, name: str, text: str) -> None:
        """Make an object that is there, with this text, look changed."""
        self.write(name, text)

    def names(self) -> list[str]:
        """All objects."""
        start = len(self.folder) + 1
        return [name[start:] for name in self.remote.all(self.folder) if name.endswith(".json")]

    def _key(self, name: str) -> str:
        return f"{self.folder}/{name}"


def _stamped(text: str) -> bytes:
    return f"{time.time_ns()}\n{text}".encode()
