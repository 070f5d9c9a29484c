"""What runs print, warn of and log in a worker, line by line to whoever can show it. No ray."""

from __future__ import annotations

import io
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from shiftbench.core.errors import RunFailedError

MOST = 10_000
"""Characters after which a line that has no end is shown as it is."""
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_QUIET = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)

Tell = Callable[[str], None]


class Voice:
    """Stands in for standard output and error of a worker, whose lines nobody would see.

    What is printed while a job is done is told line by line, besides going where it went before;
    logging and warnings, which go to standard error, are among it. What a library prints in C, or
    another process that the worker starts, is not.
    """

    def __init__(self) -> None:
        self._tell: Tell | None = None
        self._lock = threading.RLock()  # a handler of a signal may print while this prints
        self._streams = (_Stream(self, sys.stdout), _Stream(self, sys.stderr))

    def take_over(self) -> None:
        """From now on be the output of this process, whose end it stays.

        Warnings are shown as Python shows them by default, but each on one line.
        """
        sys.stdout, sys.stderr = self._streams
        sys.breakpointhook = _no_terminal
        warnings.formatwarning = _on_one_line
        warnings.simplefilter("default")
        for kind in _QUIET:
            warnings.simplefilter("ignore", kind)

    @contextmanager
    def heard(self, tell: Tell) -> Iterator[None]:
        """Tell what is printed in the block.

        Args:
            tell: called with each line, without its end.
        """
        self._tell = tell
        try:
            yield
        finally:
            for stream in self._streams:
                stream.end()
            self._tell = None

    def say(self, line: str) -> None:
        """Tell a line, as a terminal would show it."""
        shown = _CONTROL.sub("", line.rstrip("\r").rpartition("\r")[2]).rstrip()
        if shown and self._tell is not None:
            self._tell(shown)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other threads of the process from printing."""
        with self._lock:
            yield


class _Stream(io.TextIOBase):
    """One of the two outputs of a process.

    Args:
        voice: told of every whole line.
        before: where the text goes, too; ``None`` if a process has no such output.
    """

    encoding = "utf-8"

    def __init__(self, voice: Voice, before: TextIO | None) -> None:
        self._voice = voice
        self._before = before
        self._begun = ""

    def write(self, text: str) -> int:
        """Take a text, of which whole lines are told at once."""
        with self._voice.alone():
            if self._before is not None:
                self._before.write(text)
            *lines, begun = (self._begun + text).split("\n")
            self._begun = begun[begun.rstrip("\r").rfind("\r") + 1 :]  # bars draw over themselves
            if len(self._begun) > MOST:
                lines, self._begun = [*lines, self._begun], ""
            for line in lines:
                self._voice.say(line)
        return len(text)

    def end(self) -> None:
        """Tell what has no end of line yet."""
        with self._voice.alone():
            begun, self._begun = self._begun, ""
            self._voice.say(begun)

    def flush(self) -> None:
        """Have it written where it went before."""
        if self._before is not None:
            self._before.flush()

    def writable(self) -> bool:
        """Always."""
        return True

    def fileno(self) -> int:
        """Of the output that it stands in for, whose content is not told."""
        if self._before is None:
            raise io.UnsupportedOperation("fileno")
        return self._before.fileno()


def _on_one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: object = None
) -> str:
    return f"{category.__name__}: {message} ({filename}:{lineno})\n"


def _no_terminal(*arguments: object, **options: object) -> None:
    raise RunFailedError(
        "breakpoint() has no terminal in a worker; shiftbench run SUITE --debug RUN does the run "
        "in the process that you start"
    )
