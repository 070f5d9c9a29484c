"""What is to be known of a training under way, without making it wait for its GPU."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from shiftbench.core.errors import RunFailedError

LAG = 4
"""Steps after which a GPU is asked for the norm of a step."""
SHORT = 1e-3
"""Seconds that nobody needs to ask a GPU about."""

T = TypeVar("T")


def all_agree(act: Callable[[], None], workers: int, device: torch.device) -> None:
    """Do what may fail on one worker of a group alone; all of them fail then.

    A worker that went on without the others would wait for them in its next step.

    Args:
        act: what this worker has to do.
        workers: how many there are.
        device: that the group's collectives are on.

    Raises:
        RunFailedError: raised by ``act`` here, or on another worker.
    """
    failure: RunFailedError | None = None
    try:
        act()
    except RunFailedError as error:
        failure = error
    if workers > 1:
        failed = torch.tensor(int(failure is not None), device=device)
        dist.all_reduce(failed, dist.ReduceOp.MAX)
        if failure is None and failed.item():
            failure = RunFailedError("another worker of the group could not go on")
    if failure is not None:
        raise failure


class DivergedError(RunFailedError):
    """The loss of a training, or its gradient, is not finite."""


class Norms:
    """Gradient norms of the last steps, looked at when the GPU has long computed them.

    All workers see the same norms and look at the same steps, so they stop together.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()
        self._seen: list[float] = []

    def put(self, step: int, norm: Tensor) -> None:
        """Take a step's norm, and look at that of ``LAG`` steps ago; on a CPU at this one.

        Raises:
            DivergedError: it is not finite.
        """
        if norm.is_cuda:
            there = norm.to("cpu", non_blocking=True)  # into pinned memory
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            self._waiting.append((step, there, event))
        else:
            self._waiting.append((step, norm, None))
        self.look(LAG if norm.is_cuda else 0)

    def look(self, left: int = 0) -> None:
        """Look at all norms but the last ``left``.

        Raises:
            DivergedError: one is not finite.
        """
        while len(self._waiting) > left:
            step, norm, event = self._waiting.popleft()
            if event is not None:
                event.synchronize()
            self._seen.append(norm.item())
            if not math.isfinite(self._seen[-1]):
                raise DivergedError(f"the loss or its gradient is not finite at step {step + 1}")

    def take(self) -> list[float]:
        """The norms that were looked at since this was last asked, in the order of their steps."""
        seen, self._seen = self._seen, []
        return seen


class Idle:
    """How long a device had nothing to compute because a batch was not there.

    A GPU works on what it was given while the next batch is awaited, so it is asked itself when it
    had done all that, and when it began with the batch.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._given: torch.cuda.Event | None = None
        self._gaps: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._seconds = 0.0

    def busy(self) -> None:
        """All work so far has been given to the device."""
        if self._on_gpu:
            self._given = _now()

    def until(self, batch: Callable[[], T]) -> T:
        """The batch, whose wait counts as far as the device was idle."""
        asked = time.monotonic()
        awaited = batch()
        waited = time.monotonic() - asked
        if self._given is None:
            self._seconds += waited
        elif waited > SHORT:
            self._gaps.append((self._given, _now()))
        return awaited

    def seconds(self) -> float:
        """The waits since this was last asked; waits for a GPU to have reached the last of them."""
        for done, begun in self._gaps:
            begun.synchronize()
            self._seconds += done.elapsed_time(begun) / 1000
        seconds, self._seconds, self._gaps = self._seconds, 0.0, []
        return seconds


def _now() -> torch.cuda.Event:
    """Passed by the GPU when it has done what it was given until now."""
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event
