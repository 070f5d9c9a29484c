"""The two ways a command can go wrong."""

from __future__ import annotations


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is one line that names the file, the key and what is accepted. The command line
    prints it and exits with code 2; nothing has been computed or lost.
    """


class RunFailedError(RuntimeError):
    """One run cannot go on: it is recorded as failed with this reason, and the others go on."""


def first_line(error: BaseException) -> str:
    """The kind and the message of an error, on one line of at most 500 characters."""
    message = " ".join(str(error).split())
    named = isinstance(error, RunFailedError | InputError)
    return (message if named else f"{type(error).__name__}: {message}")[:500]
