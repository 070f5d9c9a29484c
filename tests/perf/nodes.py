"""The dispatcher of ``run`` on four logical nodes of Ray, with workers that sleep.

See ``tests.perf.schedule --real``.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
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
from tests.perf.timeline import IDLE, drawn, seconds, spans

OVERRIDES = (
    "tasks=[cifar10]",
    "methods={full: {}, tuned-full: {method: tuned, of: full, search: {per_seed: true}}}",
    "seeds=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]",
    "resources={workers: 2, memory_per_worker: 1}",
)


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

    Args:
        graph: of ``schedule.suite``.
        slots: logical nodes of one processor.
        reference: seconds that one kind of job at a time would take.
    """
    work = sum(WORK[job.stage] for job in graph)
    log = logged(graph, slots)
    there = spans(log)
    for line in drawn(there):
        print(line)
    of = seconds(there)
    whole = of.total()
    slept = sum(of[what] for what in ("fit", "trial", "predict"))
    for why, text in IDLE.items():
        print(f"{of[why]:8.1f} s of slots {of[why] / whole:6.1%}  {why}: {text}")
    processes = {entry["process"]: entry["ready"] - entry["started"] for entry in log}
    print(f"{len(processes)} processes slept")
    busy = slept / whole
    print(
        f"{len(graph)} jobs, {len(log)} sleeps, on {slots} logical nodes: {whole / slots:.1f} s, "
        f"busy {busy:.1%}; goal at least 85%: {'met' if busy >= 0.85 else 'not met'}"
    )
    print(f"without the start of processes: busy {slept / (whole - of['starting']):.1%}")
    print(f"one kind at a time: {reference:.1f} s, busy {work / reference / slots:.1%}")


def logged(graph: Mapping[Job, set[Job]], slots: int) -> list[Any]:
    """Do all jobs of a graph on logical nodes; what was slept."""
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 0})
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
