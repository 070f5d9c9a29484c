"""Processes of actors that never get as far as to say where they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from shiftbench.core.stacks import Place
from shiftbench.distributed.cluster import MEMBER, own_actors
from shiftbench.distributed.place import Home, stop_at
from shiftbench.execution.jobs import Job
from shiftbench.execution.stalls import Watch

_ASK_EVERY_S = 5.0
_START_S = 120.0
"""A process loads its libraries first, which no job does: it has so long at least."""


def starting() -> dict[Job, Home]:
    """The processes of this driver's actors that may not have said where they are.

    Their actor is still being made; or it is a group's worker, which is made before it has loaded
    anything. Each is known by its actor's id, as a training that prepares: it may take as long.
    """
    there = own_actors("PENDING_CREATION")
    kinds = [facts["ActorClassName"] for facts in there.values() if not facts["Pid"]]
    if MEMBER not in kinds:  # its others would wait for that one
        there = there | own_actors("ALIVE", MEMBER)
    return {
        Job("fit", actor): Home(facts["Address"]["NodeID"], Place(facts["Pid"], -1, ""))
        for actor, facts in there.items()
        if facts["Pid"]
    }


class Births:
    """Watches the processes of actors until they can be asked what they are at.

    Args:
        stall_s: of ``limits.stall_s``, or ``_START_S`` where that is less; as long as a training
            may prepare where it is not set.
        clock: gives seconds.
    """

    def __init__(self, stall_s: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._watch = Watch(None if stall_s is None else max(stall_s, _START_S), clock)
        self._clock = clock
        self._asked = float("-inf")
        self._came: set[tuple[str, int]] = set()

    def heard(self, homes: Iterable[Home]) -> None:
        """These processes have said where they are."""
        self._came |= {(home.node, home.place.pid) for home in homes}

    def stop_stuck(self) -> list[str]:
        """Kill those that have been starting for too long; a line of each."""
        if self._clock() - self._asked < _ASK_EVERY_S:
            return []
        self._asked = self._clock()
        there = {
            job: home
            for job, home in starting().items()
            if (home.node, home.place.pid) not in self._came
        }
        stuck = self._watch.among(there)
        stop_at(there[job] for job in stuck)
        for job in stuck:
            self._watch.forget(job)
        return [
            f"a process had no work after {seconds:.0f} s and was stopped"
            for seconds in stuck.values()
        ]
