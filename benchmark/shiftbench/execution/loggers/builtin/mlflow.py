"""MLflow: runs in ``mlruns/`` of the results folder, or on a server."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import ClassVar

from shiftbench.core.locks import locked
from shiftbench.execution.loggers.base import Logged, Logger, Step

_AT_ONCE = 1000  # metrics in one call, which is the most that a server takes
_TAG = "shiftbench.run_id"


class MLflow(Logger):
    """Runs of MLflow, in files unless ``MLFLOW_TRACKING_URI`` names a server.

    The experiment is called like the suite. A training that goes on goes on in the same run; one
    that starts anew has a new one, and what was there is deleted as MLflow does it: it can be
    restored.
    """

    name: ClassVar[str] = "mlflow"
    package: ClassVar[str] = "mlflow"
    install: ClassVar[str] = "pip install 'shiftbench[mlflow]'"

    def __init__(self, training: Logged) -> None:
        # Files take what several nodes write at once, which SQLite on a shared folder does not.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow import MlflowClient

        files = (training.results / "mlruns").absolute().as_uri()
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", files))
        training.results.mkdir(parents=True, exist_ok=True)
        with locked(training.results / ".mlflow.lock"):  # or workers would make an experiment twice
            self._run_id, self._last = self._begun(training)

    def _begun(self, training: Logged) -> tuple[str, int]:
        """The run of MLflow, and the last step that it has."""
        from mlflow.entities import Param

        experiment = self._client.get_experiment_by_name(training.suite)
        if experiment is None:
            experiment_id = self._client.create_experiment(training.suite)
        else:
            experiment_id = experiment.experiment_id
        found = self._client.search_runs([experiment_id], f"tags.`{_TAG}` = '{training.run_id}'")
        if not training.done:
            for before in found:
                self._client.delete_run(before.info.run_id)
        elif found:
            run_id = found[0].info.run_id
            history = self._client.get_metric_history(run_id, "loss")
            self._client.update_run(run_id, status="RUNNING")
            return run_id, max((metric.step for metric in history), default=0)
        run = self._client.create_run(
            experiment_id, run_name=training.name, tags={_TAG: training.run_id}
        )
        params = [Param(name, str(value)[:500]) for name, value in training.settings.items()]
        for i in range(0, len(params), 100):  # the most that a server takes
            self._client.log_batch(run.info.run_id, params=params[i : i + 100])
        return run.info.run_id, 0

    def log(self, steps: Sequence[Step]) -> None:
        """Show steps; those that an interrupted attempt told of are there already."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(name, value, now, step)
            for step, values in steps
            if step > self._last
            for name, value in values.items()
        ]
        for i in range(0, len(metrics), _AT_ONCE):
            self._client.log_batch(self._run_id, metrics=metrics[i : i + _AT_ONCE])

    def close(self) -> None:
        """End the run."""
        self._client.set_terminated(self._run_id)
