"""Sentences for people: of names that nothing is called by, and of more than fits a line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

MOST_NAMES = 40
"""Names that a message lists at most."""


def nearest(name: str, valid: Iterable[str], most: int = MOST_NAMES) -> str:
    """The end of a message about an unknown ``name``: the likeliest valid one, or the first."""
    choices = sorted(valid)
    close = difflib.get_close_matches(name, choices, n=1)
    if close:
        return f' (did you mean "{close[0]}"?)'
    return f" (known: {some(choices, most)})" if choices else ""


def some(values: Sequence[object], most: int = 3) -> str:
    """The first few values, each cut, with ", …" where there are more."""
    shown = ", ".join(shortened(str(value), 60) for value in values[:most])
    return f"{shown}, …" if len(values) > most else shown


def duration(seconds: float) -> str:
    """Such as ``40 s``, ``12 min``, ``3.5 h``: whichever reads best."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:,.1f} h"


def size(count: float) -> str:
    """Bytes for people, such as ``3.1 GiB``."""
    return f"{count / 2**30:,.1f} GiB" if count >= 2**29 else f"{count / 2**20:,.1f} MiB"


def shortened(text: str, most: int = 200) -> str:
    """A text on one line; what is beyond ``most`` characters is cut off from its middle."""
    line = " ".join(text.split())
    half = (most - 1) // 2
    return line if len(line) <= most else f"{line[:half]}…{line[-half:]}"
