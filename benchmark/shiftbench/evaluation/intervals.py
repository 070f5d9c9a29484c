"""95 % intervals: of proportions, over seeds, and of resampled values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
RESAMPLES = 1000
SEED = 0

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


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


def student_t(values: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Student's t-interval of a mean, such as over seeds; it supposes normal values.

    Args:
        values: (…, n ≥ 2), along the last axis.

    Returns:
        low and high, (…) float64. They are not cut to the values that there can be: what shows
        them is.
    """
    from scipy.special import stdtrit

    each = np.asarray(values, dtype=np.float64)
    n = each.shape[-1]
    if n < 2:
        raise ValueError("one value has no spread")
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * each.std(axis=-1, ddof=1) / np.sqrt(n)
    mean = each.mean(axis=-1)
    return mean - half, mean + half


def of_mean(
    values: Sequence[float], low: Sequence[float], high: Sequence[float]
) -> tuple[float, float]:
    """Interval of the mean of independent numbers, from the interval of each.

    How far each end lies from the value stands for its standard error on that side, and the squares
    add up (Zou and Donner, 2008, doi 10.1002/sim.3095).

    Args:
        values: the numbers.
        low: lower ends of their intervals.
        high: upper ends.
    """
    numbers, n = np.asarray(values), len(values)
    down = float(np.sqrt(np.sum((numbers - low) ** 2))) / n
    up = float(np.sqrt(np.sum((high - numbers) ** 2))) / n
    mean = float(numbers.mean())
    return mean - down, mean + up


def of_difference(
    first: tuple[float, float, float], second: tuple[float, float, float]
) -> tuple[float, float]:
    """Interval of the first minus the second of two independent numbers.

    As for ``of_mean``: how far each end lies from the value stands for its standard error on that
    side (Zou and Donner, 2008, doi 10.1002/sim.3095).

    Args:
        first: a number with the ends of its interval.
        second: the one that is subtracted, likewise.
    """
    value, low, high = first
    other, other_low, other_high = second
    down = math.hypot(value - low, other_high - other)
    up = math.hypot(high - value, other - other_low)
    return value - other - down, value - other + up


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


def percentiles(values: Floats) -> tuple[float, float]:
    """The middle 95 % of resampled values."""
    low, high = percentiles_of_rows(values)
    return float(low), float(high)


def percentiles_of_rows(values: Floats) -> tuple[Floats, Floats]:
    """The middle 95 % of each of several rows (…, resamples): low and high (…)."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=-1)
    return low, high


def _counts(successes: npt.ArrayLike, trials: npt.ArrayLike) -> tuple[Floats, Floats]:
    k, n = np.broadcast_arrays(
        np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    )
    if np.any(n < 1) or np.any(k < 0) or np.any(k > n):
        raise ValueError("needs at least one trial, and 0 to all of them successful")
    return k, n
