"""All jobs of a launch in this process, one after the other. No ray."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shiftbench.execution.scheduler import Scheduler, priorities

_TICK_S = 0.5

if TYPE_CHECKING:
    import torch

    from shiftbench.execution.jobs import Job
    from shiftbench.execution.work import Work
    from shiftbench.execution.workspace import Workspace
    from shiftbench.suite.plan import Plan


class InProcess:
    """Does the jobs of a launch serially where it is called: in a notebook, under a debugger.

    A run is trained by one worker, whatever ``resources.workers`` says; its results are the same
    but for the order of floating-point sums. ``resources.gpus_per_worker`` above 0 means the GPU.
    """

    def check(self, plan: Plan) -> None:
        """See that no run searches, which needs Ray Tune, and that a GPU is there if one is asked.

        Raises:
            InputError: one of these does not hold.
        """
        for run in plan.runs.values():
            if run.searched:
                message = "searches by trials, which Ray does: use the executor ray"
                raise plan.suite.error(message, "methods", run.label)
        if plan.suite.resources.gpus_per_worker:
            import torch

            if not torch.cuda.is_available():
                message = "asks for a GPU, and PyTorch finds none here"
                raise plan.suite.error(message, "resources", "gpus_per_worker")

    def prepare(self, plan: Plan) -> None:
        """Nothing: the caller would wait for it."""

    def release(self) -> None:
        """Nothing."""

    def execute(self, work: Work) -> None:
        """Do all jobs one after the other."""
        import torch

        from shiftbench.execution.workspace import Workspace

        resources = work.setup.resources
        device = torch.device("cuda" if resources.gpus_per_worker else "cpu")
        if resources.workers > 1:
            work.display.note(f"one worker trains, not {resources.workers}: all is in this process")
        workspace = Workspace(work.setup, device)
        scheduler = Scheduler(priorities(work.setup.runs), needed=work.needed, begin=work.begin)
        scheduler.resize(1)
        with _as_a_worker(max(1, int(resources.cpus_per_worker)), device):
            while True:
                for job in work.ready():
                    scheduler.add(job)
                started = scheduler.start()
                if not started and not work.awaits_others():
                    break
                if not started:
                    time.sleep(_TICK_S)
                for job in started:
                    work.settle(job, _error_of(job, workspace, work))
                    scheduler.ended(job)


def _error_of(job: Job, workspace: Workspace, work: Work) -> Exception | None:
    """Do a job; what went wrong, if anything. An interrupt is no error of the job."""
    try:
        _do(job, workspace, work)
    except Exception as error:  # recorded with the run
        return error
    return None


def _do(job: Job, workspace: Workspace, work: Work) -> None:
    from shiftbench.execution.doing import do
    from shiftbench.execution.search.search import search

    def show(step: int, steps: int) -> None:
        work.display.steps({job.run_id: (step, steps)})

    if job.stage == "search":
        search(work.setup, work.setup.runs[job.run_id])
    else:
        do(job, workspace, show)


@contextmanager
def _as_a_worker(threads: int, device: torch.device) -> Iterator[None]:
    """Compute with a worker's number of threads; leave the caller's and the random state alone."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng([] if device.type == "cpu" else [torch.cuda.current_device()]):
            yield
    finally:
        torch.set_num_threads(before)
