"""What workers that share a training must be able to: checked before they are started. No torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shiftbench.suite.file import Resources

ROUNDING = 1e-6  # Ray counts in units of 1e-4


def group_sizes(resources: Resources, batch_size: int) -> tuple[int, ...]:
    """The numbers of workers that may share a training, ascending; the last one is asked for.

    Args:
        resources: of the run.
        batch_size: global batch, which fewer workers must divide as their micro-batches do.
    """
    most, micro = resources.workers, resources.micro_batch
    fewer = (
        n
        for n in range(resources.min_workers or most, most)
        if batch_size % n == 0 and (micro is None or batch_size // n % micro == 0)
    )
    return (*fewer, most)


def needs_whole_weights(name: str) -> str:
    """Why a method is not trained by workers that each have a part of the weights."""
    return (
        f"resources.sharding: fsdp2 leaves each worker a part of the weights, and {name} looks at "
        "whole ones; set ddp"
    )


def bundle(resources: Resources) -> dict[str, float]:
    """What a worker takes, by Ray's names."""
    worker = {
        "CPU": resources.cpus_per_worker,
        "GPU": resources.gpus_per_worker,
        "memory": resources.memory_per_worker,
    }
    return {kind: each for kind, each in worker.items() if each}


def slots_of_worker(own: Resources, base: Resources) -> int:
    """Slots that a worker of a run takes: as many as there could be in its place.

    Args:
        own: the run's resources.
        base: those that slots are counted in.
    """
    worker, slot = bundle(own), bundle(base)
    return max(math.ceil(worker.get(kind, 0.0) / each - ROUNDING) for kind, each in slot.items())
