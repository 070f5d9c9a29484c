"""When the state of a training is saved: at ends of epochs, in time, and at a notice."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.distributed as dist

from shiftbench.core import notices
from shiftbench.data.batches import WorkerPlace

LOOK_S = 2.0
"""Seconds after which workers that share a training ask each other whether to save."""
WORTH = 10
"""Times as long as a save takes, the training goes on before an epoch's end is saved again."""


class RecalledError(Exception):
    """Others are to go on with a training, whose state is saved."""


class Signals(NamedTuple):
    """What a training is told from outside; all its workers ask at once.

    Attributes:
        leaving: whether this worker's machine is to go, so that the state is saved at once.
        recalled: whether others are to go on with the training.
    """

    leaving: Callable[[], bool] = lambda: False
    recalled: Callable[[], bool] = lambda: False


class Saving:
    """Says after which steps a state is saved.

    That is at the end of an epoch, unless epochs follow each other so fast that a tenth of the time
    would go into saving: 300 passes over the features of a few shots need not write 300 models. It
    is also when the last state is old, when a worker has notice that it is about to end, and when
    the training is recalled.
    Workers that share a training save at the same step, so they ask each other; not at every step,
    where all would wait for their GPUs, but at ends of epochs, and after as many as they do in
    ``LOOK_S``.

    Args:
        every_s: most seconds of training that may be lost; ``None``: an epoch.
        place: this worker among those that share the run.
        device: that collectives are on.
        signals: from outside.
        clock: gives seconds.
    """

    def __init__(
        self,
        every_s: float | None,
        place: WorkerPlace,
        device: torch.device,
        signals: Signals = Signals(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._every_s = every_s
        self._place = place
        self._device = device
        self._signals = signals
        self._clock = clock
        self._saved_at = self._looked_at = clock()
        self._looked, self._next = 0, 0
        self._cost_s = 0.0  # of the last save
        self._going = self._left = False  # what `leaving` said last, and when a state was saved
        self._recalled = False

    def begin(self, step: int) -> None:
        """The training goes on after so many steps; a state of them is saved, if any."""
        self._saved_at = self._looked_at = self._clock()
        self._looked, self._next = step, step + 1

    def due(self, step: int, over: bool = False) -> bool:
        """Whether to save after so many steps; all workers ask after every step.

        Args:
            step: steps done.
            over: whether an epoch ends with them.
        """
        now = self._clock()
        worth = over and now - self._saved_at >= WORTH * self._cost_s
        if self._place.size == 1:
            if now - self._looked_at >= LOOK_S:
                self._looked_at = now
                self._listen()
            return worth or self._wanted(0.0)
        if step < self._next and not over:
            return False
        self._listen()
        each = max(now - self._looked_at, 1e-6) / (step - self._looked)
        ahead = max(1, min(int(LOOK_S / each), 2 * (step - self._looked)))
        wanted = worth or self._wanted(LOOK_S)
        said = torch.tensor(
            [int(wanted), -ahead, int(self._recalled)], dtype=torch.int64, device=self._device
        )
        dist.all_reduce(said, dist.ReduceOp.MAX)
        any_wants, next_look, recalled = said.tolist()
        self._looked, self._looked_at, self._next = step, now, step - next_look
        self._recalled = bool(recalled)
        return bool(any_wants)

    def saved(self, seconds: float = 0.0, last: bool = False) -> None:
        """A state was saved, as all workers know: one that ends could take others with it before.

        Args:
            seconds: that it took.
            last: whether nothing of the training is left.

        Raises:
            RecalledError: others are to go on with what is left; raised by all workers.
            SystemExit: this process has been told to end, and has nothing more to lose.
        """
        self._saved_at, self._left = self._clock(), self._going
        self._cost_s = seconds
        if notices.given():
            notices.end()
        if self._recalled and not last:
            raise RecalledError

    def _listen(self) -> None:
        """Hear what there is to be heard from outside."""
        self._going = self._signals.leaving()
        self._recalled = self._recalled or self._signals.recalled()

    def _wanted(self, margin_s: float) -> bool:
        """Whether this worker would have a state saved before it asks again."""
        old = self._clock() - self._saved_at + margin_s
        aged = self._every_s is not None and old >= self._every_s
        going = self._going and not self._left
        return aged or notices.given() or going or self._recalled
