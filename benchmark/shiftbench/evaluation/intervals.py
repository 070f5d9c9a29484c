"""95 % intervals: of proportions, over seeds, and the percentile bootstrap from counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
RESAMPLES = 1000
SEED = 0
BLOCK = 2**22  # resampled cells held at a time
CACHED = 2**19  # of them, that stay in a processor's cache

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Statistic = Callable[[Floats], Floats]


def clopper_pearson(
    successes: npt.ArrayLike,
    trials: npt.ArrayLike,
    lower_tail: float = (1 - LEVEL) / 2,
    upper_tail: float = (1 - LEVEL) / 2,
) -> tuple[Floats, Floats]:
    """Exact binomial interval of a proportion (Clopper and Pearson, 1934).

    Args:
        successes: integers, of any shape.
        trials: integers ≥ 1, of a shape that broadcasts with it.
        lower_tail: probability, at most, that the truth lies below the interval.
        upper_tail: probability, at most, that it lies above.

    Returns:
        low and high, float64 in [0, 1].
    """
    from scipy.special import betaincinv

    k, n = _counts(successes, trials)
    low = np.where(k == 0, 0.0, betaincinv(np.maximum(k, 1), n - k + 1, lower_tail))
    high = np.where(k == n, 1.0, betaincinv(k + 1, np.maximum(n - k, 1), 1 - upper_tail))
    return low, high


def wilson(successes: npt.ArrayLike, trials: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Score interval of a proportion (Wilson, 1927), without continuity correction.

    Its coverage is 95 % on average over proportions, but less at some; ``clopper_pearson`` never
    covers less and is wider.

    Args:
        successes: integers, of any shape.
        trials: integers ≥ 1, of a shape that broadcasts with it.

    Returns:
        low and high, float64 in [0, 1].
    """
    from scipy.special import ndtri

    k, n = _counts(successes, trials)
    z = float(ndtri((1 + LEVEL) / 2))
    p = k / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low: Floats = np.where(k == 0, 0.0, centre - half)
    high: Floats = np.where(k == n, 1.0, centre + half)
    return low, high


def student_t(values: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Student's t-interval of a mean, such as over seeds; it supposes normal values.

    Args:
        values: (…, n ≥ 2), along the last axis.

    Returns:
        low and high, (…) float64. They are not cut to [0, 1].
    """
    from scipy.special import stdtrit

    each = np.asarray(values, dtype=np.float64)
    n = each.shape[-1]
    if n < 2:
        raise ValueError("one value has no spread")
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * each.std(axis=-1, ddof=1) / np.sqrt(n)
    mean = each.mean(axis=-1)
    return mean - half, mean + half


def worst_of_groups(successes: Counts, trials: Counts) -> tuple[float, float]:
    """Interval of the lowest of several proportions, valid although the data choose which one.

    The truth lies above the interval only if some group's upper limit fails, hence an equal part
    of that tail for each (Bonferroni); it lies below only if the lower limit of the one truly worst
    group fails, hence no correction there.

    Args:
        successes: (groups,) integers.
        trials: (groups,) integers ≥ 1.
    """
    tail = (1 - LEVEL) / 2
    low, high = clopper_pearson(successes, trials, tail, tail / len(trials))
    return float(low.min()), float(high.min())


def bootstrap_examples(
    cells: Counts, statistic: Statistic, seed: int = SEED
) -> tuple[float, float]:
    """Percentile bootstrap over examples, of a statistic of how many of each kind there are.

    Drawing n examples with replacement draws the counts of their kinds from a multinomial
    distribution, so the cost depends on the number of kinds and not on n.

    Args:
        cells: (kinds,) how many examples are of each kind, such as each pair of label and
            prediction.
        statistic: from resampled counts (block, kinds) float64 to values (block,).
        seed: of the resampling.
    """
    n = int(cells.sum())
    shares = cells / n
    rng = np.random.default_rng(seed)
    values = [
        statistic(rng.multinomial(n, shares, size=size).astype(np.float64))
        for size in _blocks(len(cells))
    ]
    return percentiles(np.concatenate(values))


def bootstrap_clusters(
    totals: Counts | Floats, statistic: Statistic, seed: int = SEED
) -> tuple[float, float]:
    """Percentile bootstrap over clusters of examples that are not independent of each other.

    Args:
        totals: (clusters, k) what each cluster adds to the k sums that ``statistic`` looks at.
        statistic: from resampled sums (block, k) float64 to values (block,).
        seed: of the resampling.
    """
    clusters, width = totals.shape
    shares = np.full(clusters, 1 / clusters)
    each = totals.astype(np.float64)
    rng = np.random.default_rng(seed)
    values = [
        statistic(rng.multinomial(clusters, shares, size=size).astype(np.float64) @ each)
        for size in _blocks(max(clusters, width))
    ]
    return percentiles(np.concatenate(values))


def resampled_counts(
    units: int, resamples: int, seed: int | Sequence[int] = SEED
) -> Iterator[Floats]:
    """How often each of ``units`` is drawn in each resample with replacement.

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


def percentiles(values: Floats) -> tuple[float, float]:
    """The middle 95 % of resampled values."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _counts(successes: npt.ArrayLike, trials: npt.ArrayLike) -> tuple[Floats, Floats]:
    k, n = np.broadcast_arrays(
        np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    )
    if np.any(n < 1) or np.any(k < 0) or np.any(k > n):
        raise ValueError("needs at least one trial, and 0 to all of them successful")
    return k, n


def _blocks(width: int) -> Iterator[int]:
    block = max(1, BLOCK // width)
    for start in range(0, RESAMPLES, block):
        yield min(block, RESAMPLES - start)
