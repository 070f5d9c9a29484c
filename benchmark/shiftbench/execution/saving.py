"""When the state of a training is saved: at ends of epochs, in time, and at a notice."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.distributed as dist

from shiftbench.core import notices
from shiftbench.data.batches import WorkerPlace

LOOK_S = 2.0
"""Seconds after which workers that share a training ask each other whether to save."""
WORTH = 10
"""Times as long as a save takes, the training goes on before an epoch's end is saved again."""


class Saving:
    """Says after which steps a state is saved.

    That is at the end of an epoch, unless epochs follow each other so fast that a tenth of the time
    would go into saving: 300 passes over the features of a few shots need not write 300 models. It
    is also when the last state is old, and when a worker has notice that it is about to end.
    Workers that share a training save at the same step, so they ask each other; not at every step,
    where all would wait for their GPUs, but at ends of epochs, and after as many as they do in
    ``LOOK_S``.

    Args:
        every_s: most seconds of training that may be lost; ``None``: an epoch.
        place: this worker among those that share the run.
        device: that collectives are on.
        leaving: whether this worker's machine is to go; asked by all workers at once.
        clock: gives seconds.
    """

    def __init__(
        self,
        every_s: float | None,
        place: WorkerPlace,
        device: torch.device,
        leaving: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._every_s = every_s
        self._place = place
        self._device = device
        self._leaving = leaving
        self._clock = clock
        self._saved_at = self._looked_at = clock()
        self._looked, self._next = 0, 0
        self._cost_s = 0.0  # of the last save
        self._going = self._left = False  # what `leaving` said last, and when a state was saved

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
                self._looked_at, self._going = now, self._leaving()
            return worth or self._wanted(0.0)
        if step < self._next and not over:
            return False
        self._going = self._leaving()
        each = max(now - self._looked_at, 1e-6) / (step - self._looked)
        ahead = max(1, min(int(LOOK_S / each), 2 * (step - self._looked)))
        wanted = worth or self._wanted(LOOK_S)
        said = torch.tensor([int(wanted), -ahead], dtype=torch.int64, device=self._device)
        dist.all_reduce(said, dist.ReduceOp.MAX)
        any_wants, next_look = said.tolist()
        self._looked, self._looked_at, self._next = step, now, step - next_look
        return bool(any_wants)

    def saved(self, seconds: float = 0.0) -> None:
        """A state was saved, as all workers know: one that ends could take others with it before.

        Args:
            seconds: that it took.

        Raises:
            SystemExit: this process has been told to end, and has nothing more to lose.
        """
        self._saved_at, self._left = self._clock(), self._going
        self._cost_s = seconds
        if notices.given():
            notices.end()

    def _wanted(self, margin_s: float) -> bool:
        """Whether this worker would have a state saved before it asks again."""
        old = self._clock() - self._saved_at + margin_s
        aged = self._every_s is not None and old >= self._every_s
        return aged or notices.given() or (self._going and not self._left)
