"""Which jobs run next, and on how much of a cluster. No ray, no torch.

The cluster is counted in *slots*: a slot is room for one worker. Most jobs take one. A training by
a group takes as many as the group has workers, and a search takes what nothing else wants. An
executor tells the scheduler what is there and what has ended; the scheduler says what to start.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from shiftbench.execution.shares import Shares
from shiftbench.methods.base import TrainedMethod

if TYPE_CHECKING:
    from shiftbench.execution.jobs import Job
    from shiftbench.suite.plan import Run

Priority = tuple[int, ...]
Weights = tuple[str, str]


class Room(NamedTuple):
    """The slots that a job can use.

    Attributes:
        least: it does not start with fewer.
        most: more would be idle; above ``least``, the job grows and shrinks as it runs.
        brief: it ends soon: a prediction or a scoring.
        sizes: the slots that it can start with, ascending, if it neither grows nor shrinks.
    """

    least: int = 1
    most: int = 1
    brief: bool = False
    sizes: tuple[int, ...] = ()

    @classmethod
    def one_of(cls, sizes: Sequence[int]) -> Room:
        """That of a job which keeps the slots that it starts with: one of some numbers."""
        return cls(sizes[0], sizes[-1], sizes=tuple(sizes) if len(sizes) > 1 else ())

    @property
    def wanted(self) -> int:
        """The slots that it would start with if there were enough."""
        return self.most if self.sizes else self.least

    @property
    def grows(self) -> bool:
        """True if it grows and shrinks as it runs."""
        return self.most > self.least and not self.sizes


Entry = tuple[Priority, int, "Job", Room]


class Scheduler:
    """Jobs that wait, jobs that run, and the slots that they have.

    Jobs start in the order of their priority. Of the brief jobs of one run, those that need the
    weights of one that has just ended come first, since a worker has them; then those whose weights
    no running job has. A job that needs more slots than are free keeps them free for itself where
    they soon will be enough; else brief jobs fill the gap. What nobody waits for is shared among
    the running jobs that can grow. One that can start with fewer slots than it wants does so when
    there are no more, and the cluster is not about to grow.

    Each call takes time logarithmic in the number of jobs, for each job that starts and each slot
    that jobs which can grow get or give back.

    Args:
        priorities: of each run; the smallest comes first.
        room: the slots that a job can use.
        needed: false for a job that is to be left out, since its run has failed.
        begin: asked before a job starts; false if it does not start, since another process does
            its run. It is left out then, and may be added again.
    """

    def __init__(
        self,
        priorities: Mapping[str, Priority],
        room: Callable[[Job], Room] = lambda job: Room(),
        needed: Callable[[Job], bool] = lambda job: True,
        begin: Callable[[Job], bool] = lambda job: True,
    ) -> None:
        self._priorities = priorities
        self._room = room
        self._needed = needed
        self._begin = begin
        self._slots = 0
        self._grows = False
        self._used = 0
        self._soon = 0  # slots of brief jobs that run
        self._wanted = 0  # slots that the jobs that wait cannot do without
        self._running: dict[Job, Room] = {}
        self._growing: dict[Job, Room] = {}  # of those, jobs that can grow
        self._shares = Shares()
        self._regranted: dict[Job, None] = {}
        self._surplus = 0  # slots that they have and could do without
        self._granted: dict[Job, int] = {}
        self._taken: dict[Job, int] = {}  # by jobs that can grow
        self._waiting: dict[bool, list[Entry]] = {True: [], False: []}
        self._of_run: dict[str, dict[str, deque[Entry]]] = {}  # brief jobs that wait, by variant
        self._early: set[Entry] = set()  # of those in the heap, jobs that started before their turn
        self._at: Counter[Weights] = Counter()  # running brief jobs
        self._loaded: dict[Weights, None] = {}  # of brief jobs that ended last, the latest last
        self._loaded_of: dict[str, dict[str, None]] = {}  # the same by run
        self._counter = count()

    @property
    def slots(self) -> int:
        """Slots of the cluster, as ``resize`` said last."""
        return self._slots

    @property
    def free(self) -> int:
        """Slots that no job has; negative after the cluster shrank under running jobs."""
        return self._slots - self._used

    @property
    def running(self) -> int:
        """Number of jobs that run."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Number of jobs that wait."""
        return sum(map(len, self._waiting.values())) - len(self._early)

    @property
    def wanted(self) -> int:
        """Slots that would let every job run that can."""
        return self._used + self._wanted

    @property
    def starved(self) -> Room | None:
        """The room that the first job that waits needs, if the whole cluster has less."""
        heads = [heap[0] for heap in self._waiting.values() if heap]
        if not heads or self._running:
            return None
        room = min(heads)[3]
        return room if room.least > self._slots else None

    def resize(self, slots: int, *, grows: bool = False) -> None:
        """The cluster now has so many slots.

        Args:
            slots: their number.
            grows: whether there may soon be more.
        """
        self._slots, self._grows = slots, grows

    def add(self, job: Job) -> None:
        """A job may start now."""
        room = self._room(job)
        entry = (self._priorities[job.run_id], next(self._counter), job, room)
        heappush(self._waiting[room.brief], entry)
        if room.brief:
            variants = self._of_run.setdefault(job.run_id, {})
            variants.setdefault(job.variant, deque()).append(entry)
        self._wanted += room.wanted

    def start(self) -> list[Job]:
        """Jobs to start now, in order."""
        started = []
        while (job := self._next()) is not None:
            started.append(job)
        self._share()
        return started

    def ended(self, job: Job) -> None:
        """A job that was started has ended."""
        room = self._running.pop(job)
        held = self.held(job)
        self._used -= held
        if self._growing.pop(job, None):
            self._surplus -= held - room.least
            self._shares.remove(job)
            self._regranted.pop(job, None)
        self._granted.pop(job)
        self._taken.pop(job, None)
        if room.brief:
            self._soon -= room.least
            self._at[weights_of(job)] -= 1
            self._unload(weights_of(job))
            self._loaded[weights_of(job)] = None
            self._loaded_of.setdefault(job.run_id, {})[job.variant] = None
            if len(self._loaded) > max(1, self._slots):  # more than there are workers
                self._unload(next(iter(self._loaded)))

    def granted(self, job: Job) -> int:
        """The slots that a running job may use now; 0 once it has ended."""
        return self._granted.get(job, 0)

    def held(self, job: Job) -> int:
        """The slots that a running job has: those granted, or more that it has not given back."""
        return max(self._granted.get(job, 0), self._taken.get(job, 0))

    def regranted(self) -> list[Job]:
        """The running jobs that can grow and were granted anew since this was asked last."""
        jobs, self._regranted = [*self._regranted], {}
        return jobs

    def takes(self, job: Job, slots: int) -> None:
        """A job that can grow now uses so many slots, of those granted or granted before."""
        if job not in self._running:
            return
        before = self.held(job)
        self._taken[job] = slots
        self._count(self.held(job) - before)

    def _next(self) -> Job | None:
        """Start one job, if one can."""
        while True:
            for brief in (True, False):
                self._drop_unneeded(self._waiting[brief])
            brief_one = self._startable()
            if brief_one is None:
                return None
            if self._begin(self._waiting[brief_one][0][2]):  # all brief jobs of a run begin as one
                return self._run(brief_one)
            self._drop(self._waiting[brief_one])

    def _startable(self) -> bool | None:
        """Whether the job to start now is the first brief one or the first other; or none is."""
        heads = {brief: heap[0] for brief, heap in self._waiting.items() if heap}
        if not heads:
            return None
        first = min(heads, key=lambda brief: heads[brief])
        least = self._size(heads[first][3])
        if least <= self.free:
            return first
        waits_long = least > self.free + self._soon + self._surplus
        if waits_long and not first and True in heads and self.free > 0:
            return True
        return None

    def _size(self, room: Room) -> int:
        """The slots that a job would start with: the most that are free, or will be soon."""
        if not room.sizes or self._grows:
            return room.wanted
        soon = self.free + self._soon + self._surplus
        return max((size for size in room.sizes if size <= soon), default=room.least)

    def _run(self, brief: bool) -> Job:
        first = self._waiting[brief][0]
        entry = self._with_weights(first[2]) if brief else first
        if entry is first:
            heappop(self._waiting[brief])
        else:
            self._early.add(entry)
        _, _, job, room = entry
        size = self._size(room)
        self._wanted -= room.wanted
        self._running[job] = room
        self._granted[job] = size
        self._used += size
        if brief:
            self._soon += room.least
            self._at[weights_of(job)] += 1
            self._unload(weights_of(job))
        if room.grows:
            self._growing[job] = room
            self._shares.add(job, room.most - room.least)
            self._regranted[job] = None
        return job

    def _with_weights(self, first: Job) -> Entry:
        """The brief job to start, of the run of the first that waits; it waits no more."""
        variants = self._of_run[first.run_id]
        here = reversed(self._loaded_of.get(first.run_id, {}))
        variant = next((v for v in here if v in variants), None)
        if variant is None:
            free = (v for v in variants if not self._at[first.run_id, v])
            variant = next(free, first.variant)
        entry = variants[variant][0]
        self._forget(entry)
        return entry

    def _unload(self, weights: Weights) -> None:
        """No idle worker is known to have these weights."""
        if weights in self._loaded:
            del self._loaded[weights]
            run_id, variant = weights
            variants = self._loaded_of[run_id]
            del variants[variant]
            if not variants:
                del self._loaded_of[run_id]

    def _forget(self, entry: Entry) -> None:
        """A brief job waits no more."""
        job = entry[2]
        variants = self._of_run[job.run_id]
        variants[job.variant].remove(entry)
        if not variants[job.variant]:
            del variants[job.variant]
        if not variants:
            del self._of_run[job.run_id]

    def _drop_unneeded(self, heap: list[Entry]) -> None:
        while heap:
            if heap[0] in self._early:
                self._early.remove(heappop(heap))
            elif not self._needed(heap[0][2]):
                self._drop(heap)
            else:
                break

    def _drop(self, heap: list[Entry]) -> None:
        """Leave the first job of a heap out."""
        entry = heappop(heap)
        room = entry[3]
        self._wanted -= room.wanted
        if room.brief:
            self._forget(entry)

    def _share(self) -> None:
        """Share the slots that no waiting job wants among the jobs that can grow."""
        spare = max(0, self.free + self._surplus - self._wanted)
        for job, more in self._shares.divide(spare).items():
            before = self.held(job)
            self._granted[job] = self._growing[job].least + more
            self._regranted[job] = None
            self._count(self.held(job) - before)

    def _count(self, more: int) -> None:
        """A job that can grow has so many more slots."""
        self._used += more
        self._surplus += more


def weights_of(job: Job) -> Weights:
    """The weights that a job needs or makes: a run's id and a variant."""
    return job.run_id, job.variant


def closest(job: Job, held: Sequence[Weights | None]) -> int:
    """Index of the worker to give a job to: one with its weights, else of its run, else the last.

    Args:
        job: to give to one of some idle workers, at least one.
        held: the weights that each of them used last.
    """
    needed = weights_of(job)
    return max(
        range(len(held)),
        key=lambda i: (held[i] == needed, (held[i] or ("",))[0] == job.run_id, i),
    )


def priorities(runs: Mapping[str, Run]) -> dict[str, Priority]:
    """Order of runs: the reference first, then those that others build on, then as planned.

    The reference method is cheap, and every later row is read against it. Of those that others
    build on the cheap ones come first: what waits for them can begin.
    """
    parents = {parent for run in runs.values() for _, parent in run.parents}

    def rank(run: Run) -> tuple[int, int]:
        method = run.create()
        if method.reference:
            return 0, 0
        if run.id not in parents:
            return 2, 0
        return 1, int(isinstance(method, TrainedMethod) and method.inputs == "images")

    return {run_id: (*rank(run), i) for i, (run_id, run) in enumerate(runs.items())}
