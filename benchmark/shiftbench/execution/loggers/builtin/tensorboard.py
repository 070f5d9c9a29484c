"""TensorBoard: event files in ``tensorboard/`` of the results folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from shiftbench.execution.loggers.base import Logged, Logger, Step


class TensorBoard(Logger):
    """Event files for ``tensorboard --logdir RESULTS/tensorboard``, a folder for each run."""

    name: ClassVar[str] = "tensorboard"
    package: ClassVar[str] = "tensorboard"
    install: ClassVar[str] = "pip install 'shiftbench[tensorboard]'"

    def __init__(self, training: Logged) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(
            str(training.results / "tensorboard" / training.name),
            purge_step=training.done + 1,  # what an interrupted attempt told beyond that
        )
        settings = (f"    {name}: {value}" for name, value in training.settings.items())
        self._writer.add_text("settings", "\n".join(settings))

    def log(self, steps: Sequence[Step]) -> None:
        """Show steps."""
        for step, values in steps:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
