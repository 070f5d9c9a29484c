"""The outcome of a script here: some work against a reference of the same run, and the goal."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Measurement:
    """Something measured.

    Attributes:
        what: was measured, in words.
        ours: the suite's time or size.
        reference: what it is compared with, of the same run; ``None`` where nothing is.
        against: the reference in words.
        goal: bound of ``reference / ours`` if ``faster``, else of ``ours / reference``, or of
            ``ours`` itself without a reference; ``None`` where none was set.
        faster: whether the ratio is how many times faster ours is.
        unit: of both.
        note: what else is to be known of the figures.
    """

    what: str
    ours: float
    reference: float | None = None
    against: str = ""
    goal: float | None = None
    faster: bool = False
    unit: str = "s"
    note: str = ""

    @property
    def ratio(self) -> float:
        """The number that the goal is about."""
        if self.reference is None:
            return self.ours
        return self.reference / self.ours if self.faster else self.ours / self.reference

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; ``None`` where none was set."""
        if self.goal is None:
            return None
        return self.ratio >= self.goal if self.faster else self.ratio <= self.goal


def lines(measurements: Iterable[Measurement]) -> list[str]:
    """One line of text for each."""
    return [_line(measurement) for measurement in measurements]


def _line(m: Measurement) -> str:
    text = f"{m.what}: {m.ours:.3g} {m.unit}"
    if m.reference is not None:
        text += f", {m.against} {m.reference:.3g} {m.unit}, ratio {m.ratio:.3f}"
    if m.goal is not None:
        sign = "at least" if m.faster else "at most"
        text += f", goal {sign} {m.goal:g}: {'met' if m.met else 'not met'}"
    return f"{text}; {m.note}" if m.note else text


@dataclass(frozen=True)
class Spent:
    """Medians of some work's wall time and of this process's processor time, in seconds."""

    wall: float
    processor: float


def alternating(variants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Spent]:
    """What each variant takes, in turns A B A B …; the first turn of each is not counted."""
    wall: dict[str, list[float]] = {name: [] for name in variants}
    processor: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, work in variants.items():
            begun, used = time.perf_counter(), time.process_time()
            work()
            if turn:
                wall[name].append(time.perf_counter() - begun)
                processor[name].append(time.process_time() - used)
    return {
        name: Spent(statistics.median(wall[name]), statistics.median(processor[name]))
        for name in variants
    }
