"""The dispatcher of ``run`` on four logical nodes of Ray, with workers that sleep.

See ``tests.perf.schedule --real``.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster as Nodes
from rich.console import Console
from shiftbench.distributed import dispatch, groups, pool
from shiftbench.execution.display import Display
from shiftbench.execution.jobs import Job
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.setup import Setup
from shiftbench.execution.sharing import Sharing
from shiftbench.execution.work import Work
from shiftbench.leaderboard.leases import Leases
from shiftbench.suite.file import Resources
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

from tests.perf.schedule import EVALUATION, GROUP, TRIAL, TRIALS, WORK
from tests.perf.sleeping import LOG, Sleeper, SleepingWorker
from tests.perf.timeline import IDLE, SLEPT, Entry, drawn, seconds, spans

OVERRIDES = (
    "tasks=[cifar10]",
    "methods={full: {}, tuned-full: {method: tuned, of: full, search: {per_seed: true}}}",
    "seeds=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]",
    "resources={workers: 2, memory_per_worker: 1}",
)
GOAL = 0.85


def group_sleeps(folder: str, setup: Setup, resources: Resources, feed: Any, progress: Any) -> None:
    """The life of a group of workers that sleep, in place of one of Ray Train's."""
    sleeper = ray.remote(num_cpus=resources.cpus_per_worker)(Sleeper)
    workers = [sleeper.remote(folder) for _ in range(resources.workers)]
    seconds = {"fit": GROUP, "predict": EVALUATION}
    try:
        ray.get(
            [
                worker.serve.remote(rank, len(workers), feed, seconds)
                for rank, worker in enumerate(workers)
            ]
        )
    finally:
        for worker in workers:
            ray.kill(worker)


def trials(folder: str, *arguments: Any) -> None:
    """As many trials at once as a search has slots for, each in a process of its own."""
    slots = arguments[3]
    begun, running = 0, []
    idle: list[Any] = []
    while begun < TRIALS or running:
        while begun < TRIALS and len(running) < slots.granted():
            worker = idle.pop() if idle else ray.remote(num_cpus=1)(Sleeper).remote(folder)
            running.append((worker, worker.sleep.remote(f"trial {begun}", TRIAL)))
            begun += 1
            slots.taken(len(running))
        done, _ = ray.wait([slept for _, slept in running], timeout=0.1)
        for worker, slept in [*running]:
            if slept in done:
                running.remove((worker, slept))
                idle.append(worker)
        while idle and (begun == TRIALS or len(running) + len(idle) > slots.granted()):
            ray.kill(idle.pop())  # gives its place back, as Tune does
        slots.taken(len(running))


def measure(graph: Mapping[Job, set[Job]], slots: int, reference: float) -> None:
    """Do all jobs of a graph, and print how busy the slots were.

    First without lending workers of groups, so that each kind of job needs processes of its own.

    Args:
        graph: of ``schedule.suite``.
        slots: logical nodes of one processor.
        reference: seconds that one kind of job at a time would take.
    """
    work = sum(WORK[job.stage] for job in graph)
    print(f"one kind at a time: {reference:.1f} s, busy {work / reference / slots:.1%}")
    for lends in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            if not lends:
                patch.setattr(groups.Group, "to_lend", 0)
            log = logged(graph, slots)
        print("", "groups lend their workers" if lends else "groups lend no workers", sep="\n")
        _print(log)


def _print(log: Sequence[Entry]) -> None:
    """Where the slots' time went."""
    there = spans(log)
    print(*drawn(there), sep="\n")
    of = seconds(there)
    whole = of.total()
    for why, text in IDLE.items():
        print(f"{of[why]:8.1f} s of slots {of[why] / whole:6.1%}  {why}: {text}")
    slept = sum(of[what] for what in SLEPT)
    late = [span.ended - span.begun for slot in there.values() for span in slot
            if span.what == "starting" and span.ended > span.begun]  # fmt: skip
    processes = len({entry["process"] for entry in log})
    each = f"{fmean(late):.1f} s" if late else "no time"
    print(f"{processes} processes, of which {len(late)} took {each} each to start meanwhile")
    busy = slept / whole
    print(
        f"{len(log)} sleeps in {whole / len(there):.1f} s: busy {busy:.1%}, or "
        f"{slept / (whole - of['starting']):.1%} of the time in which no process starts; "
        f"goal at least {GOAL:.0%}: {'met' if busy >= GOAL else 'not met'}"
    )


def logged(graph: Mapping[Job, set[Job]], slots: int) -> list[Any]:
    """Do all jobs of a graph on logical nodes; what was slept."""
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(slots):
            nodes.add_node(num_cpus=1)
        ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name,
            pytest.MonkeyPatch.context() as patch,
        ):
            return _do(graph, Path(name), patch)
    finally:
        ray.shutdown()
        nodes.shutdown()


def _do(graph: Mapping[Job, set[Job]], folder: Path, patch: pytest.MonkeyPatch) -> list[Any]:
    """Dispatch the jobs; what was slept."""
    log = folder / LOG
    log.mkdir()
    plan = Plan.build(Suite.load("quickstart", OVERRIDES))
    trained = [run.id for run in plan.runs.values() if run.label == "full"]
    searched = [run.id for run in plan.runs.values() if run.label == "tuned-full"]
    real = {f"g{i}": run for i, run in enumerate(trained)}
    real |= {f"s{i}": run for i, run in enumerate(searched)}
    jobs = {
        job._replace(run_id=real[job.run_id]): {
            above._replace(run_id=real[above.run_id]) for above in before
        }
        for job, before in graph.items()
    }
    patch.setattr(pool, "WarmWorker", SleepingWorker)
    patch.setattr(groups, "_trainer_fit", partial(group_sleeps, str(log)))
    patch.setattr(dispatch, "search", lambda setup, run, trials, warn: trials(None))
    patch.setattr(dispatch, "run_trials", partial(trials, str(log)))
    patch.setattr(dispatch, "account", lambda found: "searched")
    found = SimpleNamespace(read_found=lambda: None)
    patch.setattr(dispatch, "SearchFolder", SimpleNamespace(of=lambda results, search_id: found))
    setup = Setup("s", plan.runs, folder, "miniature", plan.suite.resources, Remarks())
    display = Display(Console(quiet=True), plan.runs, list(jobs))
    with Leases.of(folder) as leases:
        sharing = Sharing(leases, folder, plan.runs, jobs, {}, lambda job: None)
        dispatch.Dispatcher(Work(setup, jobs, plan.runs, display, sharing)).run()
    return [json.loads(file.read_text()) for file in log.glob("*.json")]
