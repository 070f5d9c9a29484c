"""Where the stages of runs execute: warm single workers, and groups that share a training.

Starting a group of Ray Train workers takes over ten seconds, longer than a small run. So a run that
needs one worker is fitted under Train's local mode inside a warm actor, which costs milliseconds,
and runs that need several share one group, one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any

import ray
import ray.train
import torch
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from shiftbench.core.errors import RunFailedError, first_line
from shiftbench.data.batches import WorkerPlace
from shiftbench.execution.setup import Setup
from shiftbench.execution.stages.fit import fit
from shiftbench.execution.stages.predict import predict
from shiftbench.execution.stages.score import score
from shiftbench.execution.workspace import Workspace
from shiftbench.leaderboard.runfolder import RunFolder

COLLECTIVE_TIMEOUT_S = 1800
GROUP_RESTARTS = 2  # after a worker or its node was lost


class Board:
    """Where workers say how far they are: steps done and steps in all, by run."""

    def __init__(self) -> None:
        self._steps: dict[str, tuple[int, int]] = {}

    def put(self, run_id: str, step: int, steps: int) -> None:
        """Say how far a run is."""
        self._steps[run_id] = (step, steps)

    def get(self) -> dict[str, tuple[int, int]]:
        """How far every run is."""
        return dict(self._steps)


class WarmWorker:
    """A process that keeps backbones, data and weights between the jobs it is given."""

    def __init__(self, setup: Setup, board: Any) -> None:
        gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU")
        torch.set_num_threads(max(1, int(setup.resources.cpus_per_worker)))
        self._workspace = Workspace(setup, torch.device("cuda" if gpus else "cpu"))
        self._board = board

    def fit(self, run_id: str) -> None:
        """Train a run as Ray Train's only worker."""

        def loop() -> None:
            fit(self._workspace, run_id, on_step=_reporter(self._board, run_id))

        TorchTrainer(loop, scaling_config=ScalingConfig(num_workers=0)).fit()

    def predict(self, run_id: str, variant: str, evaluation_set: str) -> None:
        """Predict one evaluation set with one variant."""
        predict(self._workspace, run_id, variant, evaluation_set)

    def score(self, run_id: str) -> None:
        """Score a run's predictions and write its rows."""
        score(self._workspace, run_id)


def fit_group(setup: Setup, run_ids: Sequence[str], board: Any) -> dict[str, str]:
    """Train runs one after the other in one group of ``resources.workers`` workers.

    Returns:
        why runs failed, by id; a run in neither this nor on disk as fitted was not tried.
    """
    resources = setup.resources
    per_worker = {"CPU": resources.cpus_per_worker}
    if resources.gpus_per_worker:
        per_worker["GPU"] = resources.gpus_per_worker
    with TemporaryDirectory(
        prefix="train-", dir=setup.results, ignore_cleanup_errors=True
    ) as folder:
        trainer = TorchTrainer(
            _group_loop,
            train_loop_config={"setup": setup, "run_ids": list(run_ids), "board": board},
            torch_config=TorchConfig(timeout_s=COLLECTIVE_TIMEOUT_S),
            scaling_config=ScalingConfig(
                num_workers=resources.workers,
                use_gpu=bool(resources.gpus_per_worker),
                resources_per_worker=per_worker,
            ),
            run_config=RunConfig(
                name="group",
                storage_path=folder,
                failure_config=FailureConfig(
                    max_failures=GROUP_RESTARTS, controller_failure_limit=GROUP_RESTARTS
                ),
                logging_config=LoggingConfig(log_level="WARNING"),
            ),
        )
        try:
            failures: dict[str, str] = trainer.fit().return_value
        except TrainingFailedError as error:
            at_fault = next(i for i in run_ids if not RunFolder.of(setup.results, i).fitted)
            return {at_fault: first_line(error)}
    return failures


def _group_loop(config: dict[str, Any]) -> dict[str, str]:
    """What each worker of a group does; failed runs by id."""
    setup: Setup = config["setup"]
    context = ray.train.get_context()
    place = WorkerPlace(context.get_world_rank(), context.get_world_size())
    torch.set_num_threads(max(1, int(setup.resources.cpus_per_worker)))
    workspace = Workspace(setup, get_device())
    failures = {}
    for run_id in config["run_ids"]:
        try:
            fit(workspace, run_id, place, _reporter(config["board"], run_id))
        except RunFailedError as error:  # the gradient is averaged, so all workers get here at once
            failures[run_id] = str(error)
    return failures


def _reporter(board: Any, run_id: str) -> Any:
    def report(step: int, steps: int) -> None:
        if step % 10 == 0 or step == steps:
            board.put.remote(run_id, step, steps)

    return report
