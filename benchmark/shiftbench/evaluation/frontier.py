"""The trade between accuracy in distribution and under shift, and what a gain costs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shiftbench.evaluation.intervals import Floats

SECONDS_PER_HOUR = 3600.0


def pareto(points: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which points no other one dominates: at least as good in all, and better in one.

    Equal points do not dominate each other.

    Args:
        points: (n, k) such as (n, 2) ID and OOD accuracy; more is better.

    Returns:
        (n,).

    Raises:
        ValueError: not a matrix, or a coordinate is not a number.
    """
    each = np.asarray(points, dtype=np.float64)
    if each.ndim != 2 or np.isnan(each).any():
        raise ValueError("points are rows of numbers")
    no_worse = (each[:, None] >= each[None]).all(axis=2)
    better = no_worse & ~no_worse.T
    dominated: npt.NDArray[np.bool_] = np.logical_or.reduce(better, axis=0)
    return ~dominated


def area(ids: npt.ArrayLike, oods: npt.ArrayLike, reference: tuple[float, float]) -> float:
    """Area under the ID-OOD curve: what a curve of points dominates beyond a reference point.

    It is the hypervolume in two dimensions (Zitzler and Thiele, 1999, doi 10.1109/4235.797969):
    the area of all (ID, OOD) pairs that are at least the reference and at most some point in both
    coordinates. With the zero-shot model as the reference, it is 0 for a method that gains in only
    one of the two, and grows with every point that extends the frontier. Areas are comparable only
    for one reference.

    Args:
        ids: (n,) ID accuracies, such as of each mixing coefficient alpha.
        oods: (n,) OOD accuracies.
        reference: ID and OOD accuracy to gain upon.

    Returns:
        in units of accuracy squared, in [0, 1].
    """
    x = np.asarray(ids, dtype=np.float64) - reference[0]
    y = np.asarray(oods, dtype=np.float64) - reference[1]
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"accuracies must be two rows of equal length: {x.shape}, {y.shape}")
    gains = (x > 0) & (y > 0)
    order = np.argsort(x[gains])
    width = np.diff(x[gains][order], prepend=0.0)
    # Up to the ID gain of a point reach all points from it on, the highest of which counts.
    height: Floats = np.maximum.accumulate(y[gains][order][::-1])[::-1]
    return float((width * height).sum())


def gain_per_gpu_hour(gain: float, cost_seconds: float | None) -> float | None:
    """Accuracy gained per hour of device time.

    Args:
        gain: over the zero-shot model, in [-1, 1].
        cost_seconds: device time to train the method with its ancestors and to search for its
            settings; ``None`` when unknown.

    Returns:
        per hour; ``None`` when the cost is unknown, or nothing was spent.
    """
    if cost_seconds is None or cost_seconds == 0:
        return None
    if cost_seconds < 0:
        raise ValueError("time is not negative")
    return gain / (cost_seconds / SECONDS_PER_HOUR)
