"""The number of steps of a training, their micro-batches and learning rates. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shiftbench.core.errors import InputError

if TYPE_CHECKING:
    from shiftbench.methods.config import TrainingConfig


@dataclass(frozen=True)
class Schedule:
    """The steps of one run.

    Attributes:
        steps: optimizer steps in all.
        batch_size: examples of one step, over all workers.
        micro_batch: examples that one worker holds in memory at a time.
        save_every: steps after which an epoch ends, and a state may be saved.
        constant: the learning rate stays at its peak, with neither warm-up nor decay.
    """

    steps: int
    batch_size: int
    micro_batch: int
    save_every: int
    constant: bool = False

    def learning_rate(self, step: int, config: TrainingConfig) -> float:
        """The rate of the step after ``step`` steps."""
        if self.constant:
            return config.lr
        return learning_rate(step, self.steps, config.peak_lr, config.warmup_steps)


def make_schedule(
    n: int,
    config: TrainingConfig,
    workers: int = 1,
    micro_batch: int | None = None,
    max_steps: int | None = None,
    *,
    whole_batch: bool = False,
) -> Schedule:
    """The schedule of a training set of ``n`` examples.

    The global batch is B = min(batch_size, n), the number of steps ⌈epochs · passes · n / B⌉, at
    most ``max_steps``. ``micro_batch`` examples go through a worker at a time (``None``: its whole
    share), and their gradients are accumulated; with ``whole_batch`` a worker has its whole share
    at once and computes the activations of so many examples again.

    Raises:
        InputError: the batch cannot be divided over workers and micro-batches, or it must not be,
            because batch norm follows the statistics of the global batch.
    """
    batch = min(config.batch_size, n)
    if batch % workers:
        raise InputError(f"a global batch of {batch} cannot be divided over {workers} workers")
    share = batch // workers
    if config.batch_norm == "train" and micro_batch is not None and micro_batch < share:
        raise InputError(
            f"batch_norm: train needs the {share} examples that each of {workers} workers has of a "
            f"global batch of {batch} at once, but resources.micro_batch is {micro_batch}; leave "
            "that out, or set batch_norm: frozen"
        )
    micro = share if whole_batch else micro_batch or share
    if share % micro:
        raise InputError(
            f"resources.micro_batch {micro} does not divide the {share} examples that each of "
            f"{workers} workers has of a global batch of {batch}"
        )
    epoch = config.passes * n
    steps = math.ceil(config.epochs * epoch / batch)
    if max_steps is not None:
        steps = min(steps, max_steps)
    return Schedule(steps, batch, micro, save_every=math.ceil(epoch / batch))


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up by steps, then a cosine to zero at every step (WiSE-FT, App. D.2).

    ``peak · (step + 1) / warmup`` while ``step < warmup``, then
    ``peak · (1 + cos(π (step - warmup) / (steps - warmup))) / 2``.
    """
    if step < warmup:
        return peak * ((step + 1) / warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
