"""Differences of scores with their intervals."""

from __future__ import annotations

from dataclasses import dataclass

from shiftbench.report.scores import Estimate


@dataclass(frozen=True)
class Difference:
    """One score minus another, with its 95 % interval where both have one."""

    value: float
    low: float | None
    high: float | None


def difference(first: Estimate, second: Estimate) -> Difference:
    """The first minus the second, as if they were independent: rather too wide than too narrow."""
    from shiftbench.evaluation.intervals import of_difference

    value = first.mean - second.mean
    ends = (first.low, first.high, second.low, second.high)
    if first is second or any(end is None for end in ends):
        nothing = 0.0 if first is second else None
        return Difference(value, nothing, nothing)
    low, high = of_difference(*((e.mean, e.low or 0.0, e.high or 0.0) for e in (first, second)))
    return Difference(value, low, high)
