"""The scale that numbers are on, as their metric says: unit and direction."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from shiftbench.core.errors import InputError
from shiftbench.evaluation.metrics.registry import metric

NONE = "–"
"""Printed where there is no number."""


@dataclass(frozen=True)
class Scale:
    """Unit and direction of numbers.

    Attributes:
        percent: printed × 100 with one decimal; other numbers have three decimals.
        higher_is_better: ``None`` where nothing says so, such as for a metric of a plugin that is
            not installed: then nothing ranks.
        range: the least and the greatest value that there can be; no part of what makes numbers
            comparable.
    """

    percent: bool
    higher_is_better: bool | None
    range: tuple[float, float] = field(default=(-math.inf, math.inf), compare=False)

    def text(self, value: float | None) -> str:
        """A number for people."""
        if value is None:
            return NONE
        return f"{100 * value:.1f}" if self.percent else f"{value:.3f}"

    def difference(self, value: float | None) -> str:
        """A difference with its sign: percentage points, or in the metric's own unit."""
        if value is None:
            return NONE
        return f"{round(100 * value, 1) + 0.0:+.1f}" if self.percent else f"{value:+.3f}"

    def interval(self, low: float | None, high: float | None) -> str:
        """``57.1 to 60.3``, of what values there can be; empty where there is none."""
        if low is None or high is None:
            return ""
        return f"{self.text(self.inside(low))} to {self.text(self.inside(high))}"

    def inside(self, end: float) -> float:
        """The end of an interval, or that of the range where it lies beyond.

        Intervals from a spread, such as Student's t, know of no range.
        """
        least, most = self.range
        return min(max(end, least), most)

    def gain(self, value: float) -> float:
        """The value with the sign that makes more of it better."""
        return -value if self.higher_is_better is False else value


ACCURACY = Scale(percent=True, higher_is_better=True, range=(0.0, 1.0))


def scale_of(name: str) -> Scale:
    """The scale of a metric's values; without a direction for one that is not installed here."""
    try:
        measured = metric(name)
    except InputError:
        return Scale(percent=False, higher_is_better=None)
    return Scale(measured.percent, measured.higher_is_better, measured.range)


def metric_title(name: str) -> str:
    """The heading of a metric's numbers; its name, where it is not installed here."""
    try:
        return metric(name).title
    except InputError:
        return name


def common_scale(names: Iterable[str]) -> Scale | None:
    """The scale that several metrics share, on which a mean of them has a meaning."""
    scales = [scale_of(name) for name in names]
    if len({*scales}) != 1:
        return None
    least, most = zip(*(scale.range for scale in scales), strict=True)
    return replace(scales[0], range=(min(least), max(most)))
