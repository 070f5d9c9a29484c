"""One job of a launch, done with a workspace of the process that does it. No ray."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from shiftbench.execution.stages.fit import fit
from shiftbench.execution.stages.predict import predict
from shiftbench.execution.stages.score import score

if TYPE_CHECKING:
    from shiftbench.execution.jobs import Job
    from shiftbench.execution.workspace import Workspace


def do(job: Job, workspace: Workspace, on_step: Callable[[int, int], None]) -> None:
    """Do a stage of a run.

    Args:
        job: any but a search by trials that train, which needs several processes.
        workspace: of this process.
        on_step: called with the steps done and in all while a run is trained.
    """
    match job.stage:
        case "fit":
            fit(workspace, job.run_id, on_step=on_step)
        case "predict":
            predict(workspace, job.run_id, job.variant, job.evaluation_set)
        case "score":
            score(workspace, job.run_id)
        case "search":
            from shiftbench.execution.search.merges import merge
            from shiftbench.execution.search.search import search

            run = workspace.runs[job.run_id]
            search(workspace.setup, run, partial(merge, workspace, run))
