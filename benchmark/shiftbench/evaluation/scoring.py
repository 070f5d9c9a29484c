"""From the predictions of a run's variants to its results, with the selections that were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shiftbench.evaluation.metrics import metrics_for
from shiftbench.evaluation.predictions import rescore
from shiftbench.leaderboard.schema import Result, Selection

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Prediction:
    """The predictions of one variant on one evaluation set, and where they come from.

    Attributes:
        variant: the name of the weights.
        evaluation_set: its name in the task.
        metric: the set's headline metric.
        table: of ``predictions.to_table``.
        seconds: that predicting took; ``None`` where the set is a part of another.
        fingerprint: of the evaluation set.
        incomplete_reason: what is missing from the set's files; ``None`` when they are complete.
    """

    variant: str
    evaluation_set: str
    metric: str
    table: pa.Table
    seconds: float | None
    fingerprint: str
    incomplete_reason: str | None = None


def results_of(prediction: Prediction) -> list[Result]:
    """Every metric that is recorded for the set, the headline first; nothing is selected yet."""
    return [
        Result(
            variant=prediction.variant,
            evaluation_set=prediction.evaluation_set,
            metric=metric,
            primary=metric == prediction.metric,
            score=rescore(prediction.table, metric),
            incomplete_reason=prediction.incomplete_reason,
            evaluation_seconds=prediction.seconds,
            data_fingerprint=prediction.fingerprint,
        )
        for metric in metrics_for(prediction.metric)
    ]


def best_variant(scores: Mapping[str, float]) -> str:
    """The variant with the highest score; of equal ones the first."""
    return max(scores, key=lambda variant: scores[variant])


def selections(
    variants: Sequence[str], fixed: str, id_val: Mapping[str, float], *, searched: bool = False
) -> list[tuple[str, Selection | None]]:
    """Which variants stand for the run, and how each was chosen.

    The fixed one was chosen before any data were seen, unless its settings were ``searched`` on OOD
    validation data. Of several variants, the best on ID
    validation is a second choice. The others are points of a curve that nobody chose: picking one
    of them by its test scores would be an oracle.

    Args:
        variants: all of the run.
        fixed: the one that the method names.
        id_val: headline score on the ID validation set, by variant.
        searched: whether the run, or one that it builds on, is the outcome of a search.
    """
    given: Selection = "ood-val" if searched else "fixed"
    chosen: list[tuple[str, Selection | None]] = [
        (variant, given if variant == fixed else None) for variant in variants
    ]
    if len(variants) > 1:
        chosen.append((best_variant({v: id_val[v] for v in variants}), "id-val"))
    return chosen
