"""The metrics of the nine shifts with their 95 % intervals: pure functions of NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shiftbench.core.errors import InputError
from shiftbench.evaluation.intervals import (
    Counts,
    Floats,
    bootstrap_clusters,
    bootstrap_examples,
    clopper_pearson,
    worst_of_groups,
)

Integers = npt.NDArray[np.integer]
Column = npt.NDArray[np.generic]

REGION = "region"
LOCATION = "location"
GROUP_COLUMNS = (REGION, LOCATION)


@dataclass(frozen=True)
class Score:
    """A metric's value on an evaluation set.

    Attributes:
        value: in [0, 1].
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


def score(
    metric: str, labels: Integers, predictions: Integers, metadata: Mapping[str, Column]
) -> Score:
    """Score predictions.

    - ``accuracy``: top-1. Clopper–Pearson interval, as in the WiSE-FT paper (arXiv 2109.01903, §2).
    - ``macro-f1``: F1 averaged over the classes present in ``labels``, as ``F1-macro_all`` of the
      ``wilds`` package. Bootstrap interval.
    - ``worst-region``: lowest accuracy over regions, without those whose name contains "Other", as
      ``acc_worst_region`` of ``wilds``. Clopper–Pearson interval over all these regions.

    Where ``metadata`` has a ``location`` (a camera, say), accuracy and macro-F1 get a bootstrap
    interval over locations, because the images of one location are not independent.

    Args:
        metric: one of ``METRICS``.
        labels: (n,) classes.
        predictions: (n,) classes.
        metadata: columns (n,) to group by.

    Raises:
        InputError: a column that the metric needs is missing, or leaves nothing to score.
        ValueError: no examples, arrays that do not fit together, or an unknown metric.
    """
    if metric not in METRICS:
        raise ValueError(f'unknown metric "{metric}" (known: {", ".join(METRICS)})')
    shapes = {labels.shape, predictions.shape, *(column.shape for column in metadata.values())}
    if shapes != {(len(labels),)}:
        raise ValueError(f"labels, predictions and metadata must all be (n,), got {shapes}")
    if not len(labels):
        raise ValueError("there is no example to score")
    for name in needed_columns(metric):
        if name not in metadata:
            raise InputError(f'metric "{metric}" needs a column "{name}" in the evaluation set')
    return METRICS[metric](labels, predictions, metadata)


def needed_columns(metric: str) -> tuple[str, ...]:
    """The metadata columns without which a metric has no value."""
    return (REGION,) if metric == "worst-region" else ()


def metrics_for(headline: str) -> tuple[str, ...]:
    """The metrics to record for a set whose headline metric this is, the headline first."""
    return tuple(dict.fromkeys([headline, "accuracy"]))


def _accuracy(labels: Integers, predictions: Integers, metadata: Mapping[str, Column]) -> Score:
    correct = labels == predictions
    n, hits = len(labels), int(correct.sum())
    clusters = clusters_of(metadata)
    if clusters is None:
        low, high = clopper_pearson(hits, n)
        return Score(hits / n, float(low), float(high), n, "Clopper-Pearson")
    counts = _group_counts(correct.astype(np.int64), clusters, 2)
    low_value, high_value = bootstrap_clusters(counts, lambda c: c[:, 1] / c.sum(axis=1))
    return Score(hits / n, low_value, high_value, n, _over_locations(len(counts)))


def _macro_f1(labels: Integers, predictions: Integers, metadata: Mapping[str, Column]) -> Score:
    n, clusters = len(labels), clusters_of(metadata)
    kinds, cells, tally = _confusions(labels, predictions)
    value = float(f1_of_tallies(cells[None] @ tally)[0])
    if clusters is None:
        low, high = bootstrap_examples(cells, lambda counts: f1_of_tallies(counts @ tally))
        return Score(value, low, high, n, "bootstrap over examples")
    totals = _group_counts(kinds, clusters, len(cells)) @ tally
    low, high = bootstrap_clusters(totals, f1_of_tallies)
    return Score(value, low, high, n, _over_locations(len(totals)))


def _worst_region(labels: Integers, predictions: Integers, metadata: Mapping[str, Column]) -> Score:
    regions, region_of = np.unique(metadata[REGION].astype(str), return_inverse=True)
    counts = _group_counts((labels == predictions).astype(np.int64), region_of, 2)
    kept = np.array(["Other" not in str(region) for region in regions])
    if not kept.any():
        raise InputError(
            'metric "worst-region" has no region to score: all are called "Other" '
            f"({len(labels)} examples)"
        )
    hits, trials = counts[kept, 1], counts[kept].sum(axis=1)
    worst = int(np.argmin(hits / trials))
    low, high = worst_of_groups(hits, trials)
    name = f"Clopper-Pearson, worst of {len(trials)} regions: {regions[kept][worst]}"
    return Score(float(hits[worst] / trials[worst]), low, high, len(labels), name)


METRICS: Mapping[str, Callable[[Integers, Integers, Mapping[str, Column]], Score]] = {
    "accuracy": _accuracy,
    "macro-f1": _macro_f1,
    "worst-region": _worst_region,
}


def _confusions(labels: Integers, predictions: Integers) -> tuple[Counts, Counts, Floats]:
    """The pairs of label and prediction that occur: all that macro-F1 depends on.

    Returns:
        which pair each example is (n,); how many examples each pair has (pairs,); and what one
        example of a pair adds to the tallies of each class in the labels (pairs, 3 · classes):
        labelled so, predicted so, both.
    """
    pairs, kinds, counts = np.unique(
        np.stack([labels, predictions], axis=1), axis=0, return_inverse=True, return_counts=True
    )
    classes = np.unique(labels)
    labelled, predicted = (pairs[:, :1] == classes), (pairs[:, 1:] == classes)
    tally = np.concatenate([labelled, predicted, labelled & predicted], axis=1)
    return kinds.reshape(-1), counts, tally.astype(np.float64)


def f1_of_tallies(tallies: Floats) -> Floats:
    """Macro-F1 (resamples,) over the classes that a resample's labels hold.

    Args:
        tallies: (resamples, 3 · classes), see ``_confusions``.
    """
    labelled, predicted, both = np.split(tallies, 3, axis=1)
    present = labelled > 0
    f1 = 2 * both / np.where(present, labelled + predicted, 1)
    mean: Floats = np.where(present, f1, 0).sum(axis=1) / present.sum(axis=1)
    return mean


def clusters_of(metadata: Mapping[str, Column]) -> Counts | None:
    """(n,) the location of each example as 0, 1, …; ``None`` without two of them to resample."""
    if LOCATION not in metadata:
        return None
    locations, location_of = np.unique(metadata[LOCATION].astype(str), return_inverse=True)
    return location_of.astype(np.int64) if len(locations) > 1 else None


def _group_counts(kinds: Counts, groups: Integers, n_kinds: int) -> Counts:
    """(groups, kinds) how many examples of each kind are in each group; no group is empty."""
    n_groups = int(groups.max()) + 1
    flat = np.bincount(groups.astype(np.int64) * n_kinds + kinds, minlength=n_groups * n_kinds)
    return flat.reshape(n_groups, n_kinds).astype(np.int64)


def _over_locations(n: int) -> str:
    return f"bootstrap over {n} locations"
