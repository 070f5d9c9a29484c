"""The scale that numbers are on, as their metric says: unit and direction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

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
    """

    percent: bool
    higher_is_better: bool | None

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
        """``57.1 to 60.3``; empty where there is none."""
        return "" if low is None or high is None else f"{self.text(low)} to {self.text(high)}"

    def gain(self, value: float) -> float:
        """The value with the sign that makes more of it better."""
        return -value if self.higher_is_better is False else value


ACCURACY = Scale(percent=True, higher_is_better=True)


def scale_of(name: str) -> Scale:
    """The scale of a metric's values; without a direction for one that is not installed here."""
    try:
        measured = metric(name)
    except InputError:
        return Scale(percent=False, higher_is_better=None)
    return Scale(measured.percent, measured.higher_is_better)


def metric_title(name: str) -> str:
    """The heading of a metric's numbers; its name, where it is not installed here."""
    try:
        return metric(name).title
    except InputError:
        return name


def common_scale(names: Iterable[str]) -> Scale | None:
    """The scale that several metrics share, on which a mean of them has a meaning."""
    scales = {scale_of(name) for name in names}
    return scales.pop() if len(scales) == 1 else None
