"""Keeps the curve of a training as it goes on: in the run's folder, and where loggers show it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shiftbench.core.errors import first_line
from shiftbench.core.files import file_name
from shiftbench.execution.loggers.base import Logged, Logger, Step
from shiftbench.execution.loggers.registry import LOGGERS
from shiftbench.leaderboard.training_curve import STEP

if TYPE_CHECKING:
    from shiftbench.execution.course import Trained
    from shiftbench.execution.setup import Setup
    from shiftbench.leaderboard.training_curve import TrainingCurve
    from shiftbench.suite.plan import Run


class CurveKeeper:
    """Writes a curve whenever a state of its training is about to be saved.

    So the file is never behind the state that the training goes on from, and it is written anew
    each time: no step is missing from it or in it twice, whenever the process is killed.

    Args:
        file: of the run's folder.
        batch_size: images of a step, of all workers together.
    """

    def __init__(self, file: Path, batch_size: int) -> None:
        self._file = file
        self._batch_size = batch_size
        self._loggers: list[Logger] = []
        self._told = 0

    def take(self, course: Trained) -> None:
        """Keep the course of the training so far."""
        curve = course.curve(self._batch_size)
        curve.write(self._file)
        new = _steps(curve, self._told)
        self._told = len(curve)
        for logger in [*self._loggers]:
            if new and not _warns(logger.name, partial(logger.log, new)):
                self._loggers.remove(logger)

    @contextmanager
    def shown(self, loggers: Sequence[str], training: Logged) -> Iterator[None]:
        """Show the training by loggers while the block trains it.

        Args:
            loggers: their names.
            training: which one.
        """
        self._told = training.done
        for name in loggers:
            _warns(name, partial(self._open, name, training))
        try:
            yield
        finally:
            for logger in self._loggers:
                _warns(logger.name, logger.close)
            self._loggers = []

    def _open(self, name: str, training: Logged) -> None:
        self._loggers.append(LOGGERS.load(name)(training))


def logged(setup: Setup, run: Run, done: int) -> Logged:
    """A run as loggers are told of it.

    Args:
        setup: of its suite.
        run: that is trained.
        done: steps that a state was saved of.
    """
    shots = "" if run.shots is None else f"-{run.shots}shot"
    name = f"{run.task.name}-{run.backbone}-{run.label}{shots}-seed{run.seed}-{run.id[:8]}"
    facts = {
        "run_id": run.id,
        "task": run.task.name,
        "backbone": run.backbone,
        "method": run.method,
        "label": run.label,
        "shots": "full" if run.shots is None else run.shots,
        "seed": run.seed,
    }
    settings = facts | dict(_flat(run.config.model_dump(mode="json")))
    return Logged(run.id, setup.suite, file_name(name), setup.results, settings, done)


def _flat(values: Mapping[str, Any], above: str = "config.") -> Iterator[tuple[str, Any]]:
    """Nested settings by names with dots."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _steps(curve: TrainingCurve, first: int) -> list[Step]:
    """The steps of a curve after the first few, with the values that they have."""
    named = {name: values for name, values in curve.columns.items() if name != STEP}
    return [
        (i + 1, {n: v for n, of in named.items() if (v := of[i]) is not None and math.isfinite(v)})
        for i in range(first, len(curve))
    ]


def _warns(name: str, act: Callable[[], object]) -> bool:
    """Do what a logger may fail at, whatever it raises: no training fails for that.

    Returns:
        whether it went well.
    """
    try:
        act()
    except Exception as error:
        warnings.warn(f"logger {name}: {first_line(error)}; it shows no more", stacklevel=2)
        return False
    return True
