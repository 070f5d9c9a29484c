"""The ways a command can go wrong."""

from __future__ import annotations

import errno
import os
import re
import traceback
from itertools import takewhile
from typing import Self

_LONGEST = 500  # characters of an error on one line
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # Ray puts them into tracebacks
_TRACEBACK = "Traceback (most recent call last):"
_OF_PLACE = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EROFS),
        *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP),
    }
)
_FULL = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT)))


class InputError(ValueError):
    """Input of the user that cannot be used.

    The message is one line that names the file, the key and what is accepted. The command line
    prints it and exits with code 2; nothing has been computed or lost.

    Args:
        problems: a line of each; usually there is one.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)

    def __str__(self) -> str:
        """All problems, a line of each."""
        return "\n".join(map(str, self.args))

    @property
    def lines(self) -> tuple[str, ...]:
        """All problems, each on one line."""
        return tuple(map(one_line, self.args))


class Problems:
    """Input errors that are collected, so that all of them are said at once.

    Each part that may be refused is a block ``with problems:``; ``check`` comes after them all.
    """

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}

    def __enter__(self) -> Self:
        """Begin a part that may be refused."""
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        """Note why the part is refused, if it is, and go on."""
        if isinstance(error, InputError):
            self.note(error)
            return True
        return False

    def note(self, error: InputError) -> None:
        """Add an error; problems that were noted before are said once."""
        self._lines |= dict.fromkeys(error.lines)

    def check(self) -> None:
        """Raise what was noted.

        Raises:
            InputError: something was.
        """
        if self._lines:
            raise InputError(*self._lines)


class RunFailedError(RuntimeError):
    """One run cannot go on: it is recorded as failed with this reason, and the others go on."""


class StorageError(OSError):
    """An object store does not do what it was asked, and was asked for long enough."""


def disk_full(error: BaseException) -> bool:
    """True if there was no space, whoever says so: libraries have errors of their own."""
    return any(text in str(error) for text in _FULL)


def place_refused(error: OSError) -> bool:
    """True if a file or folder may not be used, or is not what it must be: no fault of the code."""
    return error.filename is not None and error.errno in _OF_PLACE


def one_line(said: object) -> str:
    """A text, or the message of an error, without line breaks; of an error without one its kind."""
    line = " ".join(str(said).split())
    return line or (type(said).__name__ if isinstance(said, BaseException) else "")


def first_line(error: BaseException) -> str:
    """The kind and the message of an error, on one line of at most 500 characters.

    Errors of this package need no kind: their message says all.
    """
    named = isinstance(error, RunFailedError | InputError | StorageError) or not str(error).strip()
    return (one_line(error) if named else f"{type(error).__name__}: {one_line(error)}")[:_LONGEST]


def last_line(error: BaseException) -> str:
    """As ``first_line``; of a message that holds a traceback, the error that the traceback ends in.

    Errors of other processes come with the traceback there: its end says what happened.
    """
    _, found, after = str(error).rpartition(_TRACEBACK)
    if not found:
        return first_line(error)
    calls = takewhile(lambda line: not line.strip() or line[0] == " ", after.splitlines()[1:])
    raised = after.splitlines()[1 + len([*calls]) :]
    return one_line(" ".join(raised))[:_LONGEST]


def whole_text(error: BaseException) -> str:
    """An error with its traceback and those of the errors that led to it."""
    return _COLOURS.sub("", "".join(traceback.format_exception(error)))


def sendable(error: Exception) -> RunFailedError:
    """An error as it can be sent to another process: its traceback becomes a note of it."""
    sent = RunFailedError(last_line(error))
    sent.add_note(whole_text(error).rstrip())
    return sent
