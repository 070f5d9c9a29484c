"""Curves over mixing coefficients: every variant of a method, not only the selected one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from shiftbench.report.ranking import Ranking
from shiftbench.report.scores import Estimate

ALPHA = "alpha="


@dataclass(frozen=True)
class CurvePoint:
    """A variant of a curve: nobody need have chosen it.

    Attributes:
        label: of its method.
        alpha: mixing coefficient, in [0, 1].
        scores: mean over seeds by evaluation set, and by ``MEAN`` where no shift is missing.
    """

    label: str
    alpha: float
    scores: Mapping[str, Estimate]


def curve_points(ranking: Ranking) -> tuple[CurvePoint, ...]:
    """The points of all curves of a ranking, by method and in the order of alpha."""
    points = [
        CurvePoint(variant.label, alpha, variant.scores.with_mean())
        for variant in ranking.variants
        if (alpha := alpha_of(variant.variant)) is not None
    ]
    of_label = Counter(point.label for point in points)
    several = (point for point in points if of_label[point.label] > 1)
    return tuple(sorted(several, key=lambda point: (point.label, point.alpha)))


def alpha_of(variant: str) -> float | None:
    """0.5 of ``alpha=0.5``; ``None`` of a variant that is no point of a curve."""
    if not variant.startswith(ALPHA):
        return None
    try:
        alpha = float(variant.removeprefix(ALPHA))
    except ValueError:  # the name of a variant is any text
        return None
    return alpha if math.isfinite(alpha) else None
