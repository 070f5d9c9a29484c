"""Scores, and the result of one variant on one evaluation set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OTHER_CLASSES = "other_classes"
"""The key of a run's ``details`` that says what named the classes of other tasks' sets."""

Selection = Literal["fixed", "id-val", "ood-val", "oracle"]
Role = Literal["id-val", "id-test", "ood-val", "shift", "also", "outliers"]


@dataclass(frozen=True)
class Score:
    """A metric's value on an evaluation set, in the metric's own unit and range.

    Attributes:
        value: of the examples.
        low: lower end of the 95 % interval.
        high: upper end.
        n: examples in the set.
        interval: how the interval was made, for people.
    """

    value: float
    low: float
    high: float
    n: int
    interval: str


@dataclass(frozen=True, kw_only=True)
class Result:
    """One variant scored with one metric on one evaluation set.

    Attributes:
        variant: the name of the weights.
        evaluation_set: its name in the task.
        metric: as ``evaluation.metrics.metric`` takes it.
        primary: whether this is the set's headline metric.
        score: the value with its interval.
        selection: how the variant was chosen; ``None`` for a point that nobody chose. A variant
            chosen in several ways has a row for each.
        incomplete_reason: what is missing from the data; ``None`` when they are complete.
        data_remark: other things to know of the data's files.
        evaluation_seconds: to predict this variant on this set.
        data_fingerprint: of the evaluation set.
    """

    variant: str
    evaluation_set: str
    metric: str
    primary: bool
    score: Score
    selection: Selection | None = None
    incomplete_reason: str | None = None
    data_remark: str | None = None
    evaluation_seconds: float | None = None
    data_fingerprint: str | None = None


def role_of(evaluation_set: str) -> Role:
    """The role of one of a task's sets: those that have no name of their own are its shifts.

    A part of the ID test set (``id-test-on-imagenet-a-classes``) has its role, and sets that are
    scored beside (``also-cifar10``, ``outliers-textures``) have those of their own.
    """
    match evaluation_set:
        case "id-val" | "id-test" | "ood-val":
            return evaluation_set
        case _ if evaluation_set.startswith("id-test-on-"):
            return "id-test"
        case _ if evaluation_set.startswith("also-"):
            return "also"
        case _ if evaluation_set.startswith("outliers-"):
            return "outliers"
        case _:
            return "shift"
