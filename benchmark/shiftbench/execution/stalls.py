"""Which jobs hang. No ray, no torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from shiftbench.core.errors import RunFailedError
from shiftbench.execution.jobs import Job

FLOOR_S = 600.0
PREPARING_S = 3600.0
TIMES = 100.0
DEAF_S = 60.0


@dataclass
class Course:
    """How a job goes on.

    Attributes:
        last: when it gave its last sign, or else was begun, in seconds.
        slowest: the longest time between two of its signs; ``None`` before the first.
        prepares: true of a training before its first step.
    """

    last: float
    slowest: float | None = None
    prepares: bool = False


def patience(course: Course, stall_s: float | None) -> float:
    """Seconds without a sign after which a job is taken to hang.

    Args:
        course: of the job so far.
        stall_s: the limit that the suite sets, if it does.
    """
    if stall_s is not None:
        return stall_s
    least = PREPARING_S if course.prepares or course.slowest is None else FLOOR_S
    return max(least, TIMES * (course.slowest or 0.0))


def stalled(courses: Mapping[Job, Course], now: float, stall_s: float | None) -> list[Job]:
    """The jobs that have given no sign for too long."""
    return [job for job, course in courses.items() if now - course.last > patience(course, stall_s)]


class Watch:
    """The signs of all jobs that run.

    Args:
        stall_s: of ``limits.stall_s``.
        clock: gives seconds.
    """

    def __init__(self, stall_s: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stall_s = stall_s
        self._clock = clock
        self._before = clock()
        self._courses: dict[Job, Course] = {}

    def sign(self, job: Job) -> None:
        """A job has gone on."""
        now = self._now()
        course = self._courses.get(job)
        if course is not None:
            course.slowest = max(course.slowest or 0.0, now - course.last)
            course.last = now

    def steps(self, run_id: str, step: int) -> None:
        """A training has done so many steps, of which the first may take long."""
        course = self._courses.get(Job("fit", run_id))
        if course is not None and step:
            course.prepares = False

    def among(self, running: Iterable[Job]) -> dict[Job, float]:
        """Those that hang of the jobs that run now, with the seconds since their last sign."""
        now = self._now()
        self._courses = {
            job: self._courses.get(job, Course(now, prepares=job.stage == "fit")) for job in running
        }
        hanging = stalled(self._courses, now, self._stall_s)
        return {job: now - self._courses[job].last for job in hanging}

    def forget(self, job: Job) -> None:
        """A job has ended; if it runs again, it begins anew."""
        self._courses.pop(job, None)

    def _now(self) -> float:
        """The time; none passes for the jobs while this process is frozen, and hears of nothing."""
        now = self._clock()
        deaf = now - self._before
        self._before = now
        if deaf > DEAF_S:
            for course in self._courses.values():
                course.last += deaf
        return now


def error_of(seconds: float, stack: str | None) -> RunFailedError:
    """What is recorded of a job that hung.

    Args:
        seconds: since its last sign.
        stack: of ``core.stacks.stop``.
    """
    error = RunFailedError(f"no progress for {seconds:.0f} s; its process was stopped")
    error.add_note((stack or "").strip() or "It gave no answer when it was asked for its stack.")
    return error
