"""The bootstrap: resamples of examples or of clusters, and what a metric makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from shiftbench.core.errors import InputError
from shiftbench.evaluation.examples import Examples
from shiftbench.evaluation.intervals import RESAMPLES, SEED, Counts, Floats
from shiftbench.evaluation.metrics.base import Metric

PAIRED_RESAMPLES = 2000
BLOCK = 2**22  # resampled counts held at a time
CACHED = 2**19  # of them, that stay in a processor's cache


@dataclass(frozen=True)
class Resampled:
    """A metric of several models on the same resamples of the examples.

    Attributes:
        values: (models,) on the examples themselves.
        draws: (models, resamples).
        units: how many examples, or clusters of them, were resampled.
    """

    values: Floats
    draws: Floats
    units: int


def resampled_counts(
    units: int, resamples: int = RESAMPLES, seed: int | Sequence[int] = SEED
) -> Iterator[Floats]:
    """Counts of each of ``units`` in resamples that are drawn with replacement.

    Counting draws costs the same however many units there are; a multinomial draw of as many
    counts is about ten times slower.

    Yields:
        (block, units) float64, in blocks of bounded size; every row sums to ``units``. The same
        rows follow whatever the size of the blocks.
    """
    rng = np.random.default_rng(seed)
    block = max(1, CACHED // units)
    for start in range(0, resamples, block):
        counts = np.empty((min(block, resamples - start), units))
        for row in counts:
            row[:] = np.bincount(rng.integers(0, units, size=units), minlength=units)
        yield counts


def resampled_kinds(
    kinds: Counts, resamples: int = RESAMPLES, seed: int | Sequence[int] = SEED
) -> Iterator[Floats]:
    """Counts of each kind of example in each resample, where there are few kinds.

    Drawing n examples with replacement draws the counts of their kinds from a multinomial
    distribution, so the cost depends on the number of kinds and not on n.

    Args:
        kinds: (kinds,) how many examples are of each; a one for each of a few clusters.
        resamples: how many.
        seed: of the resampling.

    Yields:
        (block, kinds) float64, in blocks of bounded size; every row sums to n.
    """
    n = int(kinds.sum())
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK // len(kinds))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        yield rng.multinomial(n, kinds / n, size=size).astype(np.float64)


def resample(
    models: Sequence[Examples],
    metric: Metric,
    seed: int | Sequence[int] = SEED,
    resamples: int = PAIRED_RESAMPLES,
) -> Resampled:
    """Bootstrap a metric of all models together: every resample is of the same examples for all.

    Whole locations are resampled where there are several, as for the interval of one model.

    Args:
        models: the answers of each, on the same examples in the same order.
        metric: what is measured.
        seed: of the resampling; sets that are to be independent need different ones.
        resamples: how many.

    Raises:
        InputError: a column or a field that the metric needs is missing, or there are no examples.
    """
    if not len(models[0]):
        raise InputError("there is no example to compare on")
    values = np.array([metric.value(examples) for examples in models])
    clusters = models[0].clusters
    units = len(models[0]) if clusters is None else int(clusters.max()) + 1
    statistic = metric.statistic_of_all(models, clusters)
    blocks = [statistic(counts) for counts in resampled_counts(units, resamples, seed)]
    draws = np.concatenate(blocks, axis=1)
    return Resampled(values, metric.centred(draws, values), units)


def over_sets(parts: Sequence[Resampled]) -> Resampled:
    """The mean over evaluation sets, which must have been resampled with different seeds.

    Its units are those of the set with the fewest, which is careful: they limit how sure a test of
    the mean can be.
    """
    return Resampled(
        np.mean([part.values for part in parts], axis=0),
        np.mean([part.draws for part in parts], axis=0),
        min(part.units for part in parts),
    )
