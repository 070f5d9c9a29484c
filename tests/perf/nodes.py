"""The dispatcher of ``run`` on four logical nodes of Ray, with workers that sleep.

See ``tests.perf.schedule --real``.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster as Nodes
from rich.console import Console
from shiftbench.distributed import dispatch, pool
from shiftbench.execution.display import Display
from shiftbench.execution.jobs import Job
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.setup import Setup
from shiftbench.execution.sharing import Sharing
from shiftbench.execution.work import Work
from shiftbench.leaderboard.leases import Leases
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

from tests.perf.schedule import GROUP, TRIAL, TRIALS
from tests.perf.sleeping import LOG, Sleeper, SleepingWorker

OVERRIDES = (
    "tasks=[cifar10]",
    "methods={full: {}, tuned-full: {method: tuned, of: full, search: {per_seed: true}}}",
    "seeds=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]",
    "resources={workers: 2, memory_per_worker: 1}",
)


class SleepingGroup:
    """A group of two workers that sleep, as ``distributed.groups.Group`` is of some that train."""

    folder = ""

    def __init__(
        self,
        setup: Setup,
        progress: Any,
        events: Any,
        ended: Any,
        over: Callable[[Any], None],
        lost_a_node: Any,
    ) -> None:
        self._events, self._settle, self._over = events, ended, over
        self._workers = [ray.remote(num_cpus=1)(Sleeper).remote(self.folder) for _ in range(2)]
        self.job: Job | None = None
        self._since = time.monotonic()

    @property
    def idle(self) -> bool:
        return self.job is None

    @property
    def idle_s(self) -> float:
        return time.monotonic() - self._since if self.idle else 0.0

    def submit(self, job: Job) -> None:
        self.job = job
        left = [*self._workers]
        for worker in self._workers:
            slept = worker.sleep.remote(f"fit {job.run_id}", GROUP)
            slept.future().add_done_callback(
                lambda _: self._events.put(partial(self._worker_done, left))
            )

    def _worker_done(self, left: list[Any]) -> None:
        left.pop()
        if not left and self.job is not None:
            job, self.job = self.job, None
            self._since = time.monotonic()
            self._settle(job, None)

    def close(self) -> None:
        for worker in self._workers:
            ray.kill(worker)
        self._over(self)


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
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(slots):
            nodes.add_node(num_cpus=1)
        ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name,
            pytest.MonkeyPatch.context() as patch,
        ):
            log = _do(graph, Path(name), patch)
    finally:
        ray.shutdown()
        nodes.shutdown()
    wall = max(entry["ended"] for entry in log) - min(entry["begun"] for entry in log)
    slept = sum(entry["ended"] - entry["begun"] for entry in log)
    busy = slept / wall / slots
    print(
        f"{len(graph)} jobs, {len(log)} sleeps, on {slots} logical nodes: {wall:.1f} s, busy "
        f"{busy:.1%}; goal at least 85%: {'met' if busy >= 0.85 else 'not met'}"
    )
    processes = len({entry["process"] for entry in log})
    lost = (wall * slots - slept) / processes
    print(f"{processes} processes slept; {lost:.1f} s of a slot were not slept for each of them")
    print(f"one kind at a time: {reference:.1f} s, busy {slept / reference / slots:.1%}")


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
    SleepingGroup.folder = str(log)
    patch.setattr(pool, "WarmWorker", SleepingWorker)
    patch.setattr(dispatch, "Group", SleepingGroup)
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
