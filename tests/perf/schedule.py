"""How busy a cluster is: the real scheduler on simulated jobs, against one kind of job at a time.

``python -m tests.perf.schedule`` takes seconds: time is simulated, and the scheduler's own time is
measured beside it. The suite is small: on four single-CPU nodes twelve
trainings by groups of two workers, two searches of ten trials, sixty evaluations; then the same
kinds of jobs on up to 1,000 slots and with up to 10,000 runs.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

from shiftbench.execution.jobs import Agenda, Job
from shiftbench.execution.scheduler import Room, Scheduler

GROUP, SEARCH, EVALUATION = 2.0, 10.0, 0.5
"""Seconds of a training by a group, of a search's work on one slot, of an evaluation."""
TRIALS = 10


@dataclass(frozen=True)
class Simulated:
    """Seconds until all jobs were done, the part of the slots that was busy, its own seconds."""

    wall: float
    busy: float
    own: float


def suite(groups: int, searches: int, evaluations: int) -> dict[Job, set[Job]]:
    """Jobs with those that they wait for: evaluations are of the trainings, in turn."""
    fits = [Job("fit", f"g{i}") for i in range(groups)]
    graph: dict[Job, set[Job]] = {fit: set() for fit in fits}
    graph |= {Job("search", f"s{i}"): set() for i in range(searches)}
    for i in range(evaluations):
        fit = fits[i % len(fits)]
        graph[Job("predict", fit.run_id, "", f"e{i}")] = {fit}
    return graph


def room(job: Job) -> Room:
    """Slots of a job: two for a group, up to one for each trial of a search."""
    return {"fit": Room(2, 2), "search": Room(1, TRIALS), "predict": Room(brief=True)}[job.stage]


def side_by_side(graph: dict[Job, set[Job]], slots: int) -> Simulated:
    """All that there is room for, as the scheduler says."""
    runs = dict.fromkeys(job.run_id for job in graph)
    scheduler = Scheduler({run: (1, i) for i, run in enumerate(runs)}, room)
    agenda = Agenda(graph)
    clock, own = 0.0, 0.0
    ends: list[tuple[float, int, Job, str]] = []
    tie, trials, running = count(), Counter[Job](), Counter[Job]()

    def begin_trials(search: Job) -> None:
        while running[search] < scheduler.granted(search) and trials[search] < TRIALS:
            trials[search] += 1
            running[search] += 1
            heappush(ends, (clock + SEARCH / TRIALS, next(tie), search, "trial"))
        scheduler.takes(search, running[search])

    while True:
        begun = time.perf_counter()
        scheduler.resize(slots)
        for job in agenda.ready():
            scheduler.add(job)
        for job in scheduler.start():
            if job.stage == "search":
                running[job] = 0
                continue
            seconds = GROUP if job.stage == "fit" else EVALUATION
            heappush(ends, (clock + seconds, next(tie), job, ""))
        own += time.perf_counter() - begun
        for job in running:
            begin_trials(job)
        if not ends:
            break
        now, _, job, what = heappop(ends)
        clock = now
        begun = time.perf_counter()
        if what == "trial":
            running[job] -= 1
            if running[job] or trials[job] < TRIALS:
                continue
            del running[job]
        scheduler.ended(job)
        agenda.done(job)
        own += time.perf_counter() - begun
    return Simulated(clock, work(graph) / (clock * slots), own)


def work(graph: dict[Job, set[Job]]) -> float:
    """Seconds of all jobs on all their slots."""
    each = {"fit": 2 * GROUP, "search": SEARCH, "predict": EVALUATION}
    return sum(each[job.stage] for job in graph)


def one_kind_at_a_time(graph: dict[Job, set[Job]], slots: int) -> Simulated:
    """The reference: evaluations while there are any, else one search, else one group."""
    agenda = Agenda(graph)
    waiting: dict[str, list[Job]] = {"predict": [], "search": [], "fit": []}
    clock = 0.0
    while True:
        for job in agenda.ready():
            waiting[job.stage].append(job)
        stage = next((stage for stage, jobs in waiting.items() if jobs), None)
        if stage is None:
            return Simulated(clock, work(graph) / (clock * slots), 0.0)
        if stage == "predict":
            jobs, waiting[stage] = waiting[stage][:slots], waiting[stage][slots:]
            seconds = EVALUATION
        else:
            jobs = [waiting[stage].pop(0)]
            rounds = -(-TRIALS // slots)
            seconds = GROUP if stage == "fit" else SEARCH / TRIALS * rounds
        clock += seconds
        for job in jobs:
            agenda.done(job)


def main() -> None:
    """Print both ways side by side."""
    ways: dict[str, Callable[[dict[Job, set[Job]], int], Simulated]] = {
        "one kind at a time": one_kind_at_a_time,
        "side by side": side_by_side,
    }
    print(f"{'slots':>6} {'jobs':>8}  {'':20} {'seconds':>9} {'busy':>7} {'own time':>9}")
    for slots, sizes in (
        (4, (12, 2, 60)),
        (64, (200, 20, 2_000)),
        (1_000, (1_000, 100, 9_000)),
        (1_000, (10_000, 1_000, 90_000)),
    ):
        graph = suite(*sizes)
        for name, way in ways.items():
            done = way(graph, slots)
            print(
                f"{slots:6} {len(graph):8}  {name:20} {done.wall:9.1f} {done.busy:7.1%}"
                f" {done.own:8.2f}s"
            )


if __name__ == "__main__":
    main()
