"""What was looked at of local files, and whether it still is as it was, by names, sizes and times.

``core.locations`` says what it looks at. A check of many files that is made within ``observed`` can
so be remembered: as long as nothing that it looked at has changed, it would end as it did.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, NamedTuple

Look = Literal["entries", "content", "kind"]
"""What is looked at of a place: the entries of a folder with their sizes and times, the content of
a file, or only whether it is a file, a folder or nothing."""

FINE_S, COARSE_S = 0.1, 2.0
"""How finely file systems tell times: most by ticks of the clock, some by up to two seconds."""


class Stamp(NamedTuple):
    """The state of a place.

    Attributes:
        text: another one when the place has changed.
        newest: of the times in it, nanoseconds since 1970; 0 without any.
    """

    text: str
    newest: int


class Observed:
    """The places that were looked at, each with its state from before it was."""

    def __init__(self) -> None:
        self.stamps: dict[str, str] = {}
        self.settled = True
        """False if the stamps may not show a change: a place is remote, or had just changed."""

    def note(self, look: Look, location: str) -> None:
        """Remember the state of a place; called before it is looked at."""
        key = f"{look} {os.path.abspath(location)}"  # noqa: PTH100 - locations are strings
        if key in self.stamps:
            return
        stamp = _stamp(look, location)
        whole_seconds = stamp.newest % 10**9 == 0
        if time.time_ns() - stamp.newest < (COARSE_S if whole_seconds else FINE_S) * 1e9:
            self.settled = False
        self.stamps[key] = stamp.text


_observers: list[Observed] = []


@contextmanager
def observed() -> Iterator[Observed]:
    """Collect all that is looked at in the block, by whichever thread."""
    observer = Observed()
    _observers.append(observer)
    try:
        yield observer
    finally:
        _observers.remove(observer)


def note(look: Look, location: str) -> None:
    """Tell whoever observes that a local place is about to be looked at."""
    for observer in _observers:
        observer.note(look, location)


def note_remote() -> None:
    """Tell whoever observes that something is looked at that has no stamp."""
    for observer in _observers:
        observer.settled = False


def unchanged(stamps: Mapping[str, str]) -> bool:
    """True if all places are as they were when ``observed`` collected these stamps."""
    for key, text in stamps.items():
        look, _, location = key.partition(" ")
        if _stamp(look, location).text != text:
            return False
    return True


def _stamp(look: str, location: str) -> Stamp:
    try:
        state = os.stat(location)  # noqa: PTH116
    except OSError as error:
        return Stamp(f"none {error.errno}", 0)
    folder = os.path.isdir(location)  # noqa: PTH112
    if look == "kind":
        return Stamp("folder" if folder else "file", 0)
    if look == "content" or not folder:
        return Stamp(*_of_file(state))
    return _of_folder(location)


def _of_file(state: os.stat_result) -> tuple[str, int]:
    """Size and times; the second also tells that somebody set the first one back."""
    text = f"{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns}"
    return text, max(state.st_mtime_ns, state.st_ctime_ns)


def _of_folder(location: str) -> Stamp:
    lines, newest = [], 0
    with os.scandir(location) as scan:
        for item in scan:
            try:
                if item.is_dir():
                    text = "folder"
                else:
                    text, changed = _of_file(item.stat())
                    newest = max(newest, changed)
            except OSError as error:
                text = f"none {error.errno}"
            lines.append(f"{item.name}\0{text}")
    joined = "\n".join(sorted(lines))
    return Stamp(hashlib.sha256(os.fsencode(joined)).hexdigest()[:32], newest)
