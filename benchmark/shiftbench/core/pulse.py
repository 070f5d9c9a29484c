"""Signs of life: loops give one at each turn, for whoever watches this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_felt: list[Callable[[], None]] = []  # the last one counts


def beat() -> None:
    """Work has gone on by a batch, a step or the like."""
    if _felt:
        _felt[-1]()


@contextmanager
def felt(by: Callable[[], None], every_s: float = 1.0) -> Iterator[None]:
    """Have the beats of this process felt while the block runs.

    Args:
        by: called at the first beat, and at a later one if the last call was long enough ago.
        every_s: seconds between two calls.
    """
    last = float("-inf")

    def feel() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= every_s:
            last = now
            by()

    _felt.append(feel)
    try:
        yield
    finally:
        _felt.remove(feel)
