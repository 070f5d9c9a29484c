"""Published models on ImageNet's shifts: a cloud of points, and the line of standard models."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from shiftbench.core.errors import InputError
from shiftbench.evaluation.robustness import (
    AXES,
    COLLECTION,
    band,
    baselines,
    standard_models,
)
from shiftbench.leaderboard.published.schema import published_rows
from shiftbench.leaderboard.schema import REAL
from shiftbench.report.ranking import Ranking

if TYPE_CHECKING:
    from shiftbench.evaluation.robustness import Baseline

IMAGENET = "imagenet"
GRID = 40  # points of a baseline


@dataclass(frozen=True)
class CloudPoint:
    """A published model on one shift, accuracies in (0, 1)."""

    shift: str
    model: str
    standard: bool
    id_accuracy: float
    ood_accuracy: float


@dataclass(frozen=True)
class BaselinePoint:
    """A point of the line that standard models lie on, with its 95 % band, in (0, 1)."""

    shift: str
    id_accuracy: float
    ood_accuracy: float
    low: float
    high: float


def shipped_baselines(
    rankings: Iterable[Ranking], published: pa.Table | None
) -> tuple[Mapping[str, Baseline], str | None]:
    """β of each shift, where a ranking is of the real ImageNet, and why there is none.

    Args:
        rankings: of a report.
        published: as ``read_published`` gives it; ``None`` or empty when nothing is published.

    Returns:
        β by shift, empty where nothing is of ImageNet; and the reason why it cannot be had, else
        ``None``.
    """
    if published is None or not len(published) or not any(map(_of_imagenet, rankings)):
        return {}, None
    if COLLECTION not in published["collection"].unique().to_pylist():
        return {}, f"{COLLECTION}, with its standard models, is not among the published results"
    try:
        return baselines(standard_models(published)), None
    except (InputError, ValueError) as error:
        return {}, f"the standard models of {COLLECTION} give no line: {error}"


def applicable(ranking: Ranking, baseline: Mapping[str, Baseline]) -> Mapping[str, Baseline]:
    """The baselines that a ranking's shifts may be held against."""
    if not _of_imagenet(ranking):
        return {}
    return {
        shift: line
        for shift, line in baseline.items()
        if shift in ranking.shifts and ranking.metrics.get(shift) == "accuracy"
    }


def axes(ranking: Ranking) -> dict[str, str]:
    """For shifts of the real ImageNet, the set on which ours have the baseline's ID accuracy."""
    if not _of_imagenet(ranking):
        return {}
    known = {name for method in ranking.methods for name in method.scores.by_set}
    return {
        shift: axis
        for shift, axis in AXES.items()
        if shift in ranking.shifts and axis in known and ranking.metrics.get(shift) == "accuracy"
    }


def cloud(published: pa.Table) -> tuple[CloudPoint, ...]:
    """The testbed's models on each shift.

    Args:
        published: as ``read_published`` gives it.
    """
    standard = standard_models(published)
    models: dict[str, dict[str, float]] = defaultdict(dict)
    for row in published_rows(published):
        if row.collection == COLLECTION and row.metric == "accuracy":
            models[row.backbone][row.evaluation_set] = row.value
    return tuple(
        CloudPoint(shift, model, model in standard, values[axis], values[shift])
        for shift, axis in AXES.items()
        for model, values in models.items()
        if 0 < values.get(axis, 0) < 1 and 0 < values.get(shift, 0) < 1
    )


def baseline_points(shift: str, baseline: Baseline) -> list[BaselinePoint]:
    """The line where it was fitted and some way on, with its band."""
    from scipy.special import expit, logit

    ends = logit(min(baseline.ids)), logit(min(0.97, max(baseline.ids) + 0.08))
    at = expit(np.linspace(*ends, GRID))
    low, high = band(baseline, at)
    columns = (at, baseline(at), low, high)
    return [BaselinePoint(shift, *map(float, point)) for point in zip(*columns, strict=True)]


def _of_imagenet(ranking: Ranking) -> bool:
    return ranking.data_kind == REAL and ranking.task == IMAGENET
