"""Weights & Biases: runs in ``wandb/`` of the results folder, or at the service."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar

from shiftbench.execution.loggers.base import Logged, Logger, Step


class WeightsAndBiases(Logger):
    """Runs of Weights & Biases, offline unless ``WANDB_MODE`` says otherwise.

    Its own variables say all else, such as ``WANDB_PROJECT`` (by default ``shiftbench``) and
    ``WANDB_API_KEY``; ``wandb sync`` uploads what was written offline. It is told of the training's
    settings and curve, and of nothing else: no command line, code, git remote or machine.
    """

    name: ClassVar[str] = "wandb"
    package: ClassVar[str] = "wandb"
    install: ClassVar[str] = "pip install 'shiftbench[wandb]'"

    def __init__(self, training: Logged) -> None:
        import wandb

        training.results.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            id=training.run_id,
            name=training.name,
            project=os.environ.get("WANDB_PROJECT", "shiftbench"),
            group=training.suite,
            config=dict(training.settings),
            dir=str(training.results),
            mode=os.environ.get("WANDB_MODE", "offline"),
            # Steps that the service has already are left out by it, but for a run that starts anew.
            resume="allow" if training.done else None,
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_code=True,
                disable_git=True,
                x_disable_meta=True,
                x_disable_stats=True,
            ),
        )

    def log(self, steps: Sequence[Step]) -> None:
        """Show steps."""
        for step, values in steps:
            self._run.log(dict(values), step=step)

    def close(self) -> None:
        """End the run."""
        self._run.finish()
