"""Medians of variants that take turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(work: Callable[[], object]) -> float:
    """Wall time of some work, the GPU's part of it included."""
    synchronize()
    started = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - started


@dataclass(frozen=True)
class Times:
    """Seconds of the same work, one after the other."""

    each: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.each)

    def summary(self, per: float = 1.0) -> dict[str, float]:
        """Median and extremes, divided by ``per``."""
        low, high = min(self.each), max(self.each)
        return {"median": self.median / per, "min": low / per, "max": high / per}


def interleaved(
    variants: Mapping[str, Callable[[int], object]], rounds: int, steps: int, settle: int = 1
) -> dict[str, Times]:
    """Seconds of a step of every variant: in each round ``settle`` untimed steps, then ``steps``.

    Args:
        variants: each does a number of steps.
        rounds: how often each has its turn.
        steps: timed in a turn.
        settle: not timed, after the change from another variant.
    """
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, work in variants.items():
            work(settle)
            times[name].append(seconds(lambda work=work: work(steps)) / steps)  # type: ignore[misc]
    return {name: Times(values) for name, values in times.items()}
