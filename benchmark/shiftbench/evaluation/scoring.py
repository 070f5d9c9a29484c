"""From the predictions of a run's variants to its results, with the selections that were made."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shiftbench.evaluation.examples import Examples
from shiftbench.evaluation.intervals import SEED, Floats, percentiles
from shiftbench.evaluation.metrics.base import Metric
from shiftbench.evaluation.metrics.registry import metric
from shiftbench.evaluation.predictions import examples_of
from shiftbench.evaluation.resampling import resampled_counts, resampled_kinds
from shiftbench.evaluation.results import Result, Score, Selection, role_of

if TYPE_CHECKING:
    import pyarrow as pa

ALWAYS = ("accuracy",)
"""Metrics that are recorded beside every headline."""

Interval = tuple[float, float]
"""Low and high."""


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
        data_remark: other things to know of the files.
        also: metrics that the task asks for beside.
    """

    variant: str
    evaluation_set: str
    metric: str
    table: pa.Table
    seconds: float | None
    fingerprint: str
    incomplete_reason: str | None = None
    data_remark: str | None = None
    also: Collection[str] = ()


def score(measured: Metric, examples: Examples) -> Score:
    """A metric of examples with its 95 % interval.

    The interval is exact where the metric has an exact one, and else a percentile bootstrap: over
    locations (a camera, say) where the examples have several, because the images of one location
    are not independent, or else over examples.

    Raises:
        InputError: a column or a field that the metric needs is missing, or nothing is left.
        ValueError: there are no examples.
    """
    value, n = measured.value(examples), len(examples)
    if exact := measured.exact_interval(examples):
        low, high, name = exact
        return Score(value, low, high, n, name)
    draws, name = _drawn(measured, examples, SEED)
    low, high = percentiles(measured.centred(draws, value))
    if measured.resamples_lie_beside:
        name += ", centred"
    return Score(value, low, high, n, name)


def interval_of_mean(tables: Mapping[str, pa.Table], metrics: Mapping[str, str]) -> Interval:
    """95 % interval of a metric's mean over evaluation sets: a percentile bootstrap.

    The examples, or locations, of each set are resampled on their own.

    Args:
        tables: of ``predictions.to_table`` by evaluation set, of one variant.
        metrics: by evaluation set.

    Raises:
        InputError: a metric is unknown, or a column or a field that it needs is empty.
    """
    of_sets = []
    for name, table in tables.items():
        measured, examples = metric(metrics[name]), examples_of(table)
        value = measured.value(examples)
        draws, _ = _drawn(measured, examples, (SEED, zlib.crc32(name.encode())))
        of_sets.append(measured.centred(draws, value))
    return percentiles(np.mean(of_sets, axis=0))


def _drawn(measured: Metric, examples: Examples, seed: int | Sequence[int]) -> tuple[Floats, str]:
    """The metric (resamples,) of resampled examples or locations, and what that is called."""
    clusters, kinds = examples.clusters, measured.kinds(examples)
    if clusters is not None:
        units = int(clusters.max()) + 1
        name = f"bootstrap over {units} locations"
        counts = resampled_kinds(np.ones(units, dtype=np.int64), seed=seed)
        statistic = measured.statistic(examples, clusters)
    elif kinds is not None:
        name = "bootstrap over examples"
        _, first, of_kind = np.unique(kinds, axis=0, return_index=True, return_counts=True)
        counts = resampled_kinds(of_kind, seed=seed)
        statistic = measured.statistic(examples.take(first))
    else:
        name = "bootstrap over examples"
        counts = resampled_counts(len(examples), seed=seed)
        statistic = measured.statistic(examples)
    return np.concatenate([statistic(block) for block in counts]), name


def rescore(table: pa.Table, text: str) -> Score:
    """Score the predictions of one variant on one evaluation set from their table alone.

    Args:
        table: of ``predictions.to_table``.
        text: the metric, as ``metric`` takes it.

    Raises:
        InputError: the metric is unknown, or a column or a field that it needs is empty.
    """
    return score(metric(text), examples_of(table))


def recorded_metrics(headline: str, also: Iterable[str] = ()) -> tuple[str, ...]:
    """The metrics to record for a set, each once, the headline first."""
    return tuple(dict.fromkeys([headline, *ALWAYS, *also]))


def results_of(prediction: Prediction) -> list[Result]:
    """Every metric that is recorded for the set, the headline first; nothing is selected yet.

    A metric beside the headline is left out where the set or its predictions lack what it needs.

    Raises:
        InputError: the headline cannot be had from these predictions.
    """
    examples = examples_of(prediction.table)
    outliers = role_of(prediction.evaluation_set) == "outliers"  # no answer is right there
    texts = (
        (prediction.metric,) if outliers else recorded_metrics(prediction.metric, prediction.also)
    )
    return [
        Result(
            variant=prediction.variant,
            evaluation_set=prediction.evaluation_set,
            metric=text,
            primary=text == prediction.metric,
            score=score(metric(text), examples),
            incomplete_reason=prediction.incomplete_reason,
            data_remark=prediction.data_remark,
            evaluation_seconds=prediction.seconds,
            data_fingerprint=prediction.fingerprint,
        )
        for text in texts
        if text == prediction.metric or metric(text).missing(examples) is None
    ]


def best_variant(scores: Mapping[str, float], measured: Metric) -> str:
    """The variant with the best score; of equal ones the first."""
    return max(scores, key=lambda variant: measured.merit(scores[variant]))


def selections(
    variants: Sequence[str],
    fixed: str,
    id_val: Mapping[str, float] | None,
    measured: Metric,
    *,
    searched: bool = False,
) -> list[tuple[str, Selection | None]]:
    """Which variants stand for the run, and how each was chosen.

    The fixed one was chosen before any data were seen, unless its settings were ``searched`` on OOD
    validation data. Of several variants, the best on ID
    validation is a second choice. The others are points of a curve that nobody chose: picking one
    of them by its test scores would be an oracle.

    Args:
        variants: all of the run.
        fixed: the one that the method names.
        id_val: headline score on the ID validation set, by variant; ``None`` where training saw
            that set, so that nothing can be selected on it.
        measured: the metric of these scores.
        searched: whether the run, or one that it builds on, is the outcome of a search.
    """
    given: Selection = "ood-val" if searched else "fixed"
    chosen: list[tuple[str, Selection | None]] = [
        (variant, given if variant == fixed else None) for variant in variants
    ]
    if len(variants) > 1 and id_val is not None:
        chosen.append((best_variant({v: id_val[v] for v in variants}, measured), "id-val"))
    return chosen
