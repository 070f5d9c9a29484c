"""Groups of Ray Train workers that share the training of a run.

Starting a group takes over ten seconds, so runs share one, one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any

import ray.train
import torch
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from shiftbench.core.errors import RunFailedError, last_line, whole_text
from shiftbench.data.batches import WorkerPlace
from shiftbench.distributed.workers import reporter
from shiftbench.execution.setup import Setup
from shiftbench.execution.stages.fit import fit
from shiftbench.execution.workspace import Workspace
from shiftbench.leaderboard.runfolder import RunFolder


def fit_group(setup: Setup, run_ids: Sequence[str], progress: Any) -> dict[str, RunFailedError]:
    """Train runs one after the other in one group of ``resources.workers`` workers.

    Returns:
        errors of the runs that failed, by id; a run that is not among them and not fitted was
        not tried.
    """
    resources, limits = setup.resources, setup.resources.limits
    per_worker = {"CPU": resources.cpus_per_worker}
    if resources.gpus_per_worker:
        per_worker["GPU"] = resources.gpus_per_worker
    with TemporaryDirectory(
        prefix="train-", dir=setup.results, ignore_cleanup_errors=True
    ) as folder:
        trainer = TorchTrainer(
            _group_loop,
            train_loop_config={"setup": setup, "run_ids": list(run_ids), "progress": progress},
            torch_config=TorchConfig(timeout_s=limits.collective_timeout_s),
            scaling_config=ScalingConfig(
                num_workers=resources.workers,
                use_gpu=bool(resources.gpus_per_worker),
                resources_per_worker=per_worker,
            ),
            run_config=RunConfig(
                name="group",
                storage_path=folder,
                failure_config=FailureConfig(
                    max_failures=limits.group_restarts,
                    controller_failure_limit=limits.group_restarts,
                ),
                logging_config=LoggingConfig(log_level="WARNING"),
            ),
        )
        try:
            failures: dict[str, RunFailedError] = trainer.fit().return_value
        except TrainingFailedError as error:
            at_fault = next(i for i in run_ids if not RunFolder.of(setup.results, i).fitted)
            return {at_fault: sendable(error)}
    return failures


def _group_loop(config: dict[str, Any]) -> dict[str, RunFailedError]:
    """The loop of each worker of a group; errors of the runs that failed, by id."""
    setup: Setup = config["setup"]
    context = ray.train.get_context()
    place = WorkerPlace(context.get_world_rank(), context.get_world_size())
    torch.set_num_threads(max(1, int(setup.resources.cpus_per_worker)))
    workspace = Workspace(setup, get_device())
    failures = {}
    for run_id in config["run_ids"]:
        try:
            fit(workspace, run_id, place, reporter(config["progress"], run_id))
        except RunFailedError as error:  # the gradient is averaged, so all workers get here at once
            failures[run_id] = sendable(error)
    return failures


def sendable(error: Exception) -> RunFailedError:
    """An error as it can be sent to another process: its traceback becomes a note of it."""
    sent = RunFailedError(last_line(error))
    sent.add_note(whole_text(error))
    return sent
