"""Spare slots, divided evenly among jobs that can grow. No ray, no torch."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shiftbench.execution.jobs import Job

Entry = tuple[int, int, "Job"]


class Shares:
    """Divides slots one by one: no job has two more than another that could use one more.

    A change takes time in the number of slots that move, times the logarithm of the number of jobs.
    """

    def __init__(self) -> None:
        self._most: dict[Job, int] = {}
        self._of: dict[Job, int] = {}
        self._divided = 0
        self._poorest: list[Entry] = []  # heaps; an entry whose share is no longer so is skipped
        self._richest: list[Entry] = []
        self._counter = count()

    def add(self, job: Job, most: int) -> None:
        """A job can grow by so many slots at most."""
        self._most[job] = most
        self._set(job, 0)

    def remove(self, job: Job) -> None:
        """A job has ended; what it had is to be divided anew."""
        self._divided -= self._of.pop(job)
        del self._most[job]

    def divide(self, spare: int) -> dict[Job, int]:
        """Divide so many slots; the jobs that have more or fewer now, with what they have."""
        before: dict[Job, int] = {}
        while self._divided > spare and (job := self._rich()) is not None:
            self._move(job, -1, before)
        while self._divided < spare and (job := self._poor()) is not None:
            self._move(job, 1, before)
        while True:
            rich, poor = self._rich(), self._poor()
            if rich is None or poor is None or self._of[rich] <= self._of[poor] + 1:
                break
            self._move(rich, -1, before)
            self._move(poor, 1, before)
        return {job: self._of[job] for job, share in before.items() if self._of[job] != share}

    def _rich(self) -> Job | None:
        """A job that has most, of those that have any."""
        return self._top(self._richest)

    def _poor(self) -> Job | None:
        """A job that has least, of those that can use more."""
        return self._top(self._poorest)

    def _top(self, heap: list[Entry]) -> Job | None:
        while heap:
            share, _, job = heap[0]
            if self._of.get(job) == abs(share):
                return job
            heappop(heap)
        return None

    def _move(self, job: Job, slots: int, before: dict[Job, int]) -> None:
        before.setdefault(job, self._of[job])
        self._divided += slots
        self._set(job, self._of[job] + slots)

    def _set(self, job: Job, share: int) -> None:
        self._of[job] = share
        if share:
            heappush(self._richest, (-share, next(self._counter), job))
        if share < self._most[job]:
            heappush(self._poorest, (share, next(self._counter), job))
