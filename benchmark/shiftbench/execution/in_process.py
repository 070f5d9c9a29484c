"""All jobs of a launch in this process, one after the other. No ray."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shiftbench.core.errors import InputError, RunFailedError
from shiftbench.execution.display import name_of
from shiftbench.execution.scheduler import Scheduler, priorities

_TICK_S = 0.5

if TYPE_CHECKING:
    import torch

    from shiftbench.execution.display import Display
    from shiftbench.execution.jobs import Job
    from shiftbench.execution.search.study import Study
    from shiftbench.execution.work import Work
    from shiftbench.execution.workspace import Workspace
    from shiftbench.suite.plan import Plan, Run


class InProcess:
    """Does the jobs of a launch serially where it is called: in a notebook, under a debugger.

    A run is trained by one worker, whatever ``resources.workers`` says; its results are the same
    but for the order of floating-point sums. ``resources.gpus_per_worker`` above 0 means the GPU.

    Args:
        raising: whether an error of a job is raised at once, in which case nothing is recorded of
            it; else the run is recorded as failed, and the others go on.
    """

    most = 1

    def __init__(self, *, raising: bool = False) -> None:
        self._raising = raising

    def check(self, plan: Plan) -> None:
        """See that a GPU is there if one is asked for.

        Raises:
            InputError: none is.
        """
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
        every = (resources, *work.setup.own_resources.values())
        if (most := max(one.workers for one in every)) > 1:
            work.display.note(f"one worker trains, not {most}: all is in this process")
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
                    work.settle(job, self._error_of(job, workspace, work))
                    scheduler.ended(job)

    def _error_of(self, job: Job, workspace: Workspace, work: Work) -> Exception | None:
        """Do a job; what went wrong, if anything. An interrupt is no error of the job."""
        try:
            _do(job, workspace, work, raising=self._raising)
        except Exception as error:  # recorded with the run
            if not self._raising:
                return error
            if isinstance(error, InputError):  # of which the command line would show a line only
                raise RunFailedError(f"run {job.run_id} failed") from error
            raise
        return None


def _do(job: Job, workspace: Workspace, work: Work, *, raising: bool) -> None:
    from shiftbench.execution.doing import do

    def show(step: int, steps: int) -> None:
        work.display.steps({job.run_id: (step, steps)})

    if job.stage == "search":
        _search(work.setup.runs[job.run_id], workspace, work.display, raising=raising)
    else:
        do(job, workspace, show)


def _search(run: Run, workspace: Workspace, display: Display, *, raising: bool) -> None:
    from shiftbench.execution.search.merges import merge
    from shiftbench.execution.search.search import search
    from shiftbench.execution.search.serial import run_trials

    def show(study: str, ended: int, wanted: int) -> None:
        display.busy(f"{name_of(run)}: {study} {ended}/{wanted}")

    def trials(study: Study) -> None:
        if run.searched_by_training:
            run_trials(workspace, run, study, show, raising=raising)
        else:
            merge(workspace, run, study)

    search(workspace.setup, run, trials, display.warn)


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
