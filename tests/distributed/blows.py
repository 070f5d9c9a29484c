"""What may happen to a cluster, when it comes, and what is told of it afterwards."""

from __future__ import annotations

import random
import statistics
import time
from dataclasses import dataclass

from shiftbench.core.liveness import alive

MOMENTS = {
    "searching": (b"ray::ResourceTrainable", ("journal.log",)),
    "training": (b"ray::RayTrainWorker", ("progress.json", "state.safetensors")),
    "predicting": (b"ray::WarmWorker.", (".arrow",)),
}
"""For each, the processes that are at work, and the ends of the names of what they write."""
EVENTS = {
    "trial killed": "searching",
    "group's leader killed": "training",
    "group's worker killed": "training",
    "warm worker killed": "predicting",
    "worker frozen": None,
    "node killed, another added": None,
    "driver killed": None,
    "head killed": None,
    "disk full": None,
}
"""For each, its moment, if it has but one."""
LEADER = b"ray::TrainController"
"""The process of Train that starts the workers of a group, and starts them again."""
END_DRIVERS = ("driver killed", "head killed", "disk full")


@dataclass
class Blow:
    """Something that is done to a run.

    Attributes:
        event: one of ``EVENTS``.
        moment: one of ``MOMENTS``, at which it comes.
        files: that are written at such a moment first, since the last blow.
        at: when it came, in seconds of the monotonic clock; ``None`` before.
        recovered_s: seconds from then until work went on.
        frozen: the process that it froze.
    """

    event: str
    moment: str
    files: int
    at: float | None = None
    recovered_s: float | None = None
    frozen: int | None = None


def blows(seed: int) -> list[Blow]:
    """All events in a random order, at random moments: three at each.

    More would not come before the moment is over. What is frozen comes after all else at its
    moment: meanwhile others do what is left to do.
    """
    draw = random.Random(seed)  # noqa: S311
    fixed = [*EVENTS.values()]
    free = [moment for moment in MOMENTS for _ in range(3 - fixed.count(moment))]
    draw.shuffle(free)
    found = [
        Blow(event, moment or free.pop(), draw.randint(1, 2))
        for event, moment in draw.sample([*EVENTS.items()], len(EVENTS))
    ]
    return sorted(found, key=lambda blow: blow.event == "worker frozen")


def comes(blow: Blow, new: set[str]) -> bool:
    """True if it is the moment of a blow, by what was written since the last."""
    ends = MOMENTS[blow.moment][1]
    return sum(name.rpartition(" ")[0].endswith(ends) for name in new) >= blow.files


def went_on(struck: list[Blow]) -> bool:
    """Note that something was written; true if the work goes on as before all blows."""
    for blow in struck:
        if blow.recovered_s is None and blow.at is not None:
            if blow.frozen and alive(blow.frozen):
                return False
            blow.recovered_s = time.monotonic() - blow.at
    return True


def summary(every: list[Blow]) -> str:
    """For each event how often it came, and after how many seconds work went on."""
    lines = [f"{'':26} {'rounds':>6} {'median s':>9} {'most s':>7}"]
    for event in EVENTS:
        mine = (blow.recovered_s for blow in every if blow.event == event)
        seconds = [one for one in mine if one is not None]
        shown = [f"{of(seconds):.1f}" if seconds else "-" for of in (statistics.median, max)]
        lines.append(f"{event:26} {len(seconds):6} {shown[0]:>9} {shown[1]:>7}")
    return "\n".join(lines)
