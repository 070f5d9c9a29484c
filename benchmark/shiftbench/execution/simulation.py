"""A launch in simulated time: the real agenda and the real scheduler, and jobs that only last.

No ray, no torch, and nobody waits.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from heapq import heapify, heappop, heappush
from itertools import count
from typing import NamedTuple

from shiftbench.core.errors import InputError
from shiftbench.execution.jobs import Agenda, Job
from shiftbench.execution.scheduler import Priority, Room, Scheduler

HOUR_S = 3600.0
VAIN = 20
"""Times as long as all work takes on one slot after which a simulation is given up."""


class Lasts(NamedTuple):
    """How long a job lasts.

    Attributes:
        seconds: of the job, on the slots that it wants; of a search, of each trial.
        trials: of a search by trials, each of which takes a slot of its own; 0 for other jobs.
        saved_every: seconds between two saved states; 0 where nothing is kept before its end.
    """

    seconds: float
    trials: int = 0
    saved_every: float = 0.0


@dataclass(frozen=True)
class Preemptions:
    """Nodes are taken away, at random and independently of each other.

    Attributes:
        per_hour: times that a node is taken away in an hour, on average.
        node: slots of a node.
        back_s: seconds until another is there in its place.
        seed: of the times.
    """

    per_hour: float
    node: int
    back_s: float = 180.0
    seed: int = 0


@dataclass(frozen=True)
class Simulated:
    """What became of a launch.

    Attributes:
        slots: that there were.
        seconds: until the last job was done.
        first: seconds until the first run was done.
        work: slot-seconds that jobs were at work, what was done twice included.
        again: of those, slot-seconds that were lost with nodes.
        preempted: nodes that were taken away.
    """

    slots: int
    seconds: float
    first: float
    work: float
    again: float
    preempted: int

    @property
    def busy(self) -> float:
        """The part of all slots' time that jobs were at work."""
        return self.work / (self.seconds * self.slots) if self.seconds else 1.0


def simulate(
    graph: Mapping[Job, set[Job]],
    priorities: Mapping[str, Priority],
    room: Callable[[Job], Room],
    lasts: Callable[[Job], Lasts],
    slots: int,
    *,
    start_s: float = 0.0,
    preemptions: Preemptions | None = None,
) -> Simulated:
    """Do all jobs of a graph on a cluster that only this does.

    Args:
        graph: the jobs, each with those that it waits for.
        priorities: of the runs.
        room: the slots that a job can use.
        lasts: how long a job lasts.
        slots: of the cluster.
        start_s: seconds that a slot's first job lasts longer, in which its worker starts.
        preemptions: of nodes; ``None`` for none.

    Raises:
        InputError: a job needs more slots than there are, or nodes are taken away so often that
            nothing is ever done.
    """
    return _Simulation(graph, priorities, room, lasts, slots, start_s, preemptions).run()


@dataclass(eq=False)
class _Attempt:
    """A job on its slots, or a trial of a search on one."""

    job: Job
    slots: list[int]
    begun: float


@dataclass
class _Search:
    """Trials of a search that are left to begin, and those that are under way."""

    left: int
    running: int = 0


@dataclass(order=True)
class _Event:
    """Something that happens at a time; of several at once, what was planned first."""

    at: float
    number: int
    happen: Callable[[], None] = field(compare=False)


class _Simulation:
    def __init__(
        self,
        graph: Mapping[Job, set[Job]],
        priorities: Mapping[str, Priority],
        room: Callable[[Job], Room],
        lasts: Callable[[Job], Lasts],
        slots: int,
        start_s: float,
        preemptions: Preemptions | None,
    ) -> None:
        self._agenda = Agenda(graph)
        self._scheduler = Scheduler(priorities, room)
        self._room = room
        self._lasts = lasts
        self._slots = slots
        self._start_s = start_s
        self._there = slots
        self._free = [*range(slots)]
        self._cold = {*self._free}
        self._at: dict[int, _Attempt] = {}  # by slot
        self._left: dict[Job, float] = {}  # seconds of jobs that were begun and lost
        self._searches: dict[Job, _Search] = {}
        self._events: list[_Event] = []
        self._numbers = count()
        self._clock = 0.0
        self._first: float | None = None
        self._work = self._again = 0.0
        self._preempted = 0
        self._preemptions = preemptions
        self._chance = random.Random(preemptions.seed if preemptions else 0)  # noqa: S311
        self._away: set[int] = set()  # nodes
        every = (lasts(job) for job in graph)
        alone = sum(each.seconds * max(1, each.trials) for each in every) + start_s * slots
        self._in_vain = VAIN * (alone + HOUR_S)

    def run(self) -> Simulated:
        """Let everything happen."""
        self._scheduler.resize(self._slots)
        self._plan_preemption()
        self._begin()
        while self._scheduler.running or self._scheduler.waiting:
            if self._scheduler.starved and not self._away:
                least = self._scheduler.starved.least
                raise InputError(f"{least} workers at once do not fit: there is room for "
                                 f"{self._slots}")  # fmt: skip
            self._clock = self._events[0].at
            if self._clock > self._in_vain:
                raise InputError("nodes are taken away so often that nothing is ever done")
            while self._events and self._events[0].at <= self._clock:
                heappop(self._events).happen()
            self._begin()
        return Simulated(
            self._slots, self._clock, self._first or self._clock, self._work, self._again,
            self._preempted,
        )  # fmt: skip

    def _begin(self) -> None:
        """Start whatever can."""
        for job in self._agenda.ready():
            self._scheduler.add(job)
        for job in self._scheduler.start():
            lasts = self._lasts(job)
            if lasts.trials:
                self._searches[job] = _Search(lasts.trials)
            else:
                room = self._room(job)
                slots = self._scheduler.granted(job) if room.sizes else room.least
                left = self._left.get(job, lasts.seconds)
                self._attempt(job, left * room.wanted / slots, slots)
        for search in self._scheduler.regranted():
            self._begin_trials(search)

    def _begin_trials(self, job: Job) -> None:
        """Begin as many trials of a search as it has slots for, and say so."""
        search = self._searches[job]
        while search.left and search.running < self._scheduler.granted(job) and self._free:
            search.left -= 1
            search.running += 1
            self._attempt(job, self._lasts(job).seconds, 1)
        self._scheduler.takes(job, search.running)

    def _attempt(self, job: Job, seconds: float, slots: int) -> None:
        """Put a job, or a trial of a search, on free slots for so long."""
        taken = [heappop(self._free) for _ in range(slots)]
        if not self._cold.isdisjoint(taken):
            self._cold.difference_update(taken)
            seconds += self._start_s
        attempt = _Attempt(job, taken, self._clock)
        for slot in taken:
            self._at[slot] = attempt
        self._after(seconds, partial(self._ended, attempt))

    def _ended(self, attempt: _Attempt) -> None:
        """A job or a trial is done, unless it was lost meanwhile."""
        if self._at.get(attempt.slots[0]) is not attempt:
            return
        self._work += self._leave(attempt)
        job = attempt.job
        if job in self._searches:
            search = self._searches[job]
            search.running -= 1
            if search.left or search.running:
                self._begin_trials(job)
                return
            del self._searches[job]
        self._scheduler.ended(job)
        self._agenda.done(job)
        if job.stage == "score" and self._first is None:
            self._first = self._clock

    def _leave(self, attempt: _Attempt) -> float:
        """Free the slots of an attempt that are still there; the slot-seconds that it had."""
        for slot in attempt.slots:
            del self._at[slot]
            if self._node(slot) not in self._away:
                heappush(self._free, slot)
        return (self._clock - attempt.begun) * len(attempt.slots)

    def _after(self, seconds: float, happen: Callable[[], None]) -> None:
        heappush(self._events, _Event(self._clock + seconds, next(self._numbers), happen))

    def _node(self, slot: int) -> int:
        return slot // self._preemptions.node if self._preemptions else 0

    def _plan_preemption(self) -> None:
        """A node is taken away some time later, if it is there then."""
        if self._preemptions is None or not self._preemptions.per_hour:
            return
        nodes = -(-self._slots // self._preemptions.node)
        node = self._chance.randrange(nodes)
        later = self._chance.expovariate(nodes * self._preemptions.per_hour / HOUR_S)
        self._after(later, partial(self._preempt, node, self._preemptions))

    def _preempt(self, node: int, preemptions: Preemptions) -> None:
        """A node is taken away; what was on it is to be done again from what was saved."""
        self._plan_preemption()
        if node in self._away:
            return
        self._preempted += 1
        self._away.add(node)
        slots = range(node * preemptions.node, min((node + 1) * preemptions.node, self._slots))
        for attempt in {self._at[slot]: None for slot in slots if slot in self._at}:
            self._lose(attempt)
        self._free = [slot for slot in self._free if slot not in slots]
        heapify(self._free)
        self._resize(-len(slots))
        self._after(preemptions.back_s, partial(self._come_back, node, slots))

    def _come_back(self, node: int, slots: range) -> None:
        self._away.remove(node)
        for slot in slots:
            heappush(self._free, slot)
        self._cold.update(slots)
        self._resize(len(slots))
        for search in self._searches:
            self._begin_trials(search)

    def _resize(self, more: int) -> None:
        self._there += more
        self._scheduler.resize(self._there)

    def _lose(self, attempt: _Attempt) -> None:
        """The worker of a job or of a trial is gone, or one of its workers."""
        job, lasts = attempt.job, self._lasts(attempt.job)
        had = self._leave(attempt)
        self._work += had
        if job in self._searches:
            self._again += had
            self._searches[job].left += 1
            self._searches[job].running -= 1
            self._scheduler.takes(job, self._searches[job].running)
            return
        wanted = self._room(job).wanted
        seconds = (self._clock - attempt.begun) * len(attempt.slots) / wanted
        saved = seconds - seconds % lasts.saved_every if lasts.saved_every else 0.0
        left = self._left.get(job, lasts.seconds)
        self._left[job] = max(0.0, left - saved)
        self._again += had - min(left, saved) * wanted
        self._scheduler.ended(job)
        self._scheduler.add(job)
