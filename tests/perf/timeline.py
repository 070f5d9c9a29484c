"""Where the time of slots goes, from the log of workers that sleep (``tests.perf.sleeping``)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

Entry = Mapping[str, Any]


class Span(NamedTuple):
    """What a slot was at for some time.

    Attributes:
        what: ``fit``, ``trial`` or ``predict``, which sleep, or a reason why nothing did.
        begun: by the clock.
        ended: by the clock.
    """

    what: str
    begun: float
    ended: float


SLEPT = {"fit": "F", "trial": "T", "predict": "P"}
"""What a slot was busy with, and its letter."""
IDLE = {
    "nothing asked": "a process was there, and nothing was asked of it",
    "making room": "until another kind's process was started in place of the last one",
    "starting": "from the start of a process until it could work",
    "handing out": "from there until it was at work",
    "end": "the last jobs of others were awaited",
}
"""Why a slot was idle."""


def spans(log: Sequence[Entry]) -> dict[str, list[Span]]:
    """What each slot was at between the first job's beginning and the last one's end."""
    by_slot = defaultdict(list)
    for entry in sorted(log, key=lambda entry: float(entry["begun"])):
        by_slot[entry["slot"]].append(entry)
    begun = min(entry["begun"] for entry in log)
    ended = max(entry["ended"] for entry in log)
    first = {"process": None, "ended": begun}
    return {
        slot: [
            *(span for pair in pairwise([first, *entries]) for span in _until(*pair)),
            Span("end", entries[-1]["ended"], ended),
        ]
        for slot, entries in by_slot.items()
    }


def _until(before: Entry, entry: Entry) -> list[Span]:
    """What a slot was at from the end of one sleep until that of the next one."""
    idle, begun = before["ended"], entry["begun"]
    slept = Span(entry["what"].split()[0], begun, entry["ended"])
    if entry["process"] == before["process"]:
        return [Span("nothing asked", idle, begun), slept]
    started, ready = (min(max(entry[name], idle), begun) for name in ("started", "ready"))
    return [
        Span("making room", idle, started),
        Span("starting", started, ready),
        Span("handing out", ready, begun),
        slept,
    ]


def seconds(of: Mapping[str, Sequence[Span]]) -> Counter[str]:
    """Slot-seconds by what slots were at."""
    found: Counter[str] = Counter()
    for slot in of.values():
        for span in slot:
            found[span.what] += span.ended - span.begun
    return found


def drawn(of: Mapping[str, Sequence[Span]], step: float = 0.25) -> list[str]:
    """A line for each slot, a letter for each step of seconds: in capitals where a worker slept."""
    letters = SLEPT | {"starting": "s", "making room": "m"}
    begun = min(slot[0].begun for slot in of.values())
    ended = max(slot[-1].ended for slot in of.values())
    lines = []
    for slot in of.values():
        line = ""
        for i in range(round((ended - begun) / step)):
            at = begun + (i + 0.5) * step
            what = next((span.what for span in slot if span.begun <= at < span.ended), "end")
            line += letters.get(what, ".")
        lines.append(line)
    return lines
