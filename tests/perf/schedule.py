"""How busy a cluster is, and how long the scheduler takes itself.

    python -m tests.perf.schedule [--real]

Simulated, in seconds: jobs of three kinds on up to 1,000 slots and with up to 10,000 runs, against
one kind of job at a time; the time of each job must not grow with their number.

``--real``: twelve trainings of two seconds by groups of two workers, two searches of ten trials of
a second, and sixty evaluations of half a second, on four nodes of one processor, which are four
logical nodes of Ray on this machine. The dispatcher, its pool, its groups and its leases are those
of ``run``; what workers do is to sleep, in processes that import little else, and to log it: from
this log, the part of the slots' time that was slept, between the first job's beginning and the last
one's end, where the rest went, and a line of letters for each slot. Once without lending workers of
groups between trainings, and once as ``run`` does.
"""

from __future__ import annotations

import argparse
import time

from shiftbench.execution.jobs import Agenda, Job
from shiftbench.execution.scheduler import Room
from shiftbench.execution.simulation import Lasts, simulate

GROUP, TRIAL, EVALUATION = 2.0, 1.0, 0.5
"""Seconds of a training by a group, of a trial of a search, of an evaluation."""
TRIALS = 10
ROOMS = {"fit": Room(2, 2), "search": Room(1, TRIALS), "predict": Room(brief=True)}
LASTS = {"fit": Lasts(GROUP), "search": Lasts(TRIAL, TRIALS), "predict": Lasts(EVALUATION)}
WORK = {"fit": 2 * GROUP, "search": TRIALS * TRIAL, "predict": EVALUATION}
"""Seconds of a job on all its slots."""
SIZES = (
    (4, (12, 2, 60)),
    (64, (200, 20, 2_000)),
    (1_000, (1_000, 100, 9_000)),
    (1_000, (2_000, 200, 18_000)),
    (1_000, (5_000, 500, 45_000)),
    (1_000, (10_000, 1_000, 90_000)),
)
"""Slots; groups, searches and evaluations."""


def suite(groups: int, searches: int, evaluations: int) -> dict[Job, set[Job]]:
    """Jobs with those that they wait for: evaluations are of the trainings, in turn."""
    fits = [Job("fit", f"g{i}") for i in range(groups)]
    graph: dict[Job, set[Job]] = {fit: set() for fit in fits}
    graph |= {Job("search", f"s{i}"): set() for i in range(searches)}
    for i in range(evaluations):
        fit = fits[i % len(fits)]
        graph[Job("predict", fit.run_id, "", f"e{i}")] = {fit}
    return graph


def work(graph: dict[Job, set[Job]]) -> float:
    """Seconds of all jobs on all their slots."""
    return sum(WORK[job.stage] for job in graph)


def one_kind_at_a_time(graph: dict[Job, set[Job]], slots: int) -> float:
    """Seconds of the reference: evaluations while there are any, else one search, or one group."""
    agenda = Agenda(graph)
    waiting: dict[str, list[Job]] = {"predict": [], "search": [], "fit": []}
    clock = 0.0
    while True:
        for job in agenda.ready():
            waiting[job.stage].append(job)
        stage = next((stage for stage, jobs in waiting.items() if jobs), None)
        if stage is None:
            return clock
        if stage == "predict":
            jobs, waiting[stage] = waiting[stage][:slots], waiting[stage][slots:]
            seconds = EVALUATION
        else:
            jobs = [waiting[stage].pop()]
            seconds = GROUP if stage == "fit" else TRIAL * -(-TRIALS // slots)
        clock += seconds
        for job in jobs:
            agenda.done(job)


def simulated() -> None:
    """Print simulated time beside the reference, and the scheduler's own."""
    print(
        f"{'slots':>6} {'jobs':>8} {'one kind at a time':>20} {'side by side':>16} {'own time':>24}"
    )
    own = {}
    for slots, sizes in SIZES:
        graph = suite(*sizes)
        order = {run: (1, i) for i, run in enumerate(dict.fromkeys(job.run_id for job in graph))}
        begun = time.process_time()
        done = simulate(
            graph, order, lambda job: ROOMS[job.stage], lambda job: LASTS[job.stage], slots
        )
        own[len(graph)] = (time.process_time() - begun) / len(graph)
        before = one_kind_at_a_time(graph, slots)
        print(
            f"{slots:6} {len(graph):8} {before:10,.1f} s {work(graph) / before / slots:7.1%}"
            f" {done.seconds:8.1f} s {done.busy:6.1%} {own[len(graph)] * len(graph):10.2f} s "
            f"{own[len(graph)] * 1e6:5.1f} µs a job"
        )
    most, tenth = max(own), min(own, key=lambda jobs: abs(jobs - max(own) / 10))
    ratio = own[most] / own[tenth]
    met = "met" if ratio <= 1.5 else "not met"
    print(f"a job of {most:,} takes {ratio:.2f} of one of {tenth:,}; goal at most 1.5: {met}")


def main() -> None:
    """Simulate, or do it on logical nodes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--real", action="store_true", help="on four logical nodes of Ray")
    if parser.parse_args().real:
        from tests.perf.nodes import measure

        measure(suite(12, 2, 60), slots=4, reference=one_kind_at_a_time(suite(12, 2, 60), 4))
    else:
        simulated()


if __name__ == "__main__":
    main()
