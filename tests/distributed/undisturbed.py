"""A suite without Ray, whose trainings are shared as by a group: what a cluster must also give.

    python -m tests.distributed.undisturbed SUITE RESULTS

As many processes train a run as a group has workers, so that sums are of as many parts; all else is
done in one process.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from rich.console import Console
from shiftbench.data.batches import WorkerPlace
from shiftbench.execution.in_process import InProcess
from shiftbench.execution.jobs import Job
from shiftbench.execution.launch import launch
from shiftbench.execution.setup import Setup
from shiftbench.execution.stages.fit import fit
from shiftbench.execution.work import Work
from shiftbench.execution.workspace import Workspace
from shiftbench.methods.base import TrainedMethod
from shiftbench.suite.suite import Suite


class Together(InProcess):
    """Does all in this process, but has runs trained by others that share them."""

    def _error_of(self, job: Job, workspace: Workspace, work: Work) -> Exception | None:
        run = workspace.runs[job.run_id]
        if job.stage == "fit" and isinstance(workspace.method(run), TrainedMethod):
            workers = work.setup.resources_of(job.run_id).workers
            with TemporaryDirectory() as folder:
                arguments = (workers, work.setup, job.run_id, f"file://{folder}/meeting")
                mp.spawn(_train, arguments, workers)  # type: ignore[attr-defined, no-untyped-call]
            return None
        return super()._error_of(job, workspace, work)


def _train(rank: int, workers: int, setup: Setup, run_id: str, meeting: str) -> None:
    """Be one of the processes that share a training."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=workers)
    fit(Workspace(setup, torch.device("cpu")), run_id, WorkerPlace(rank, workers))
    dist.destroy_process_group()


def main() -> None:
    """Do a suite."""
    suite, results = map(Path, sys.argv[1:])
    outcome = launch(Suite.load(suite), results, Together(), Console(quiet=True))
    assert not outcome.failed, outcome.failed


if __name__ == "__main__":
    main()
