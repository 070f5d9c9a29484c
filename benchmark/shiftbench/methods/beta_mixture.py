"""A mixture of Beta distributions, fitted to numbers between 0 and 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Numbers = npt.NDArray[np.float64]

STARTS = 3
TOLERANCE, ROUNDS = 1e-4, 1000
TINY = 10 * np.finfo(np.float64).eps
EDGE = 1e-6  # closer to an end of [0, 1] no number is told from another


def fit_mixture(
    values: Numbers, components: int, starts: int = STARTS
) -> tuple[Numbers, npt.NDArray[np.int64]]:
    """The means of the components, and the likeliest component of each value.

    Expectation maximisation whose second step matches moments, from several starts by k-means, of
    which the likeliest is kept (DaWin, arXiv 2410.03782, its released code). With fewer different
    values than components there are as many components as values.

    Args:
        values: (n,) in [0, 1]; those at an end are moved inside by 1e-6.
        components: of the mixture, 1 at least.
        starts: with seeds 0, 1, ….

    Returns:
        Means (k,) and components (n,), from 0 to k - 1.
    """
    inside = values.clip(EDGE, 1 - EDGE)
    components = min(components, len(np.unique(inside)))
    if components == 1:
        return np.array([inside.mean()]), np.zeros(len(inside), np.int64)
    ordered = np.sort(inside)  # so that the order of the values cannot matter
    found = [_from(ordered, _clusters(ordered, components, seed)) for seed in range(starts)]
    _, a, b, weights = max(found, key=lambda fitted: fitted[0])
    return a / (a + b), _log_joint(inside, a, b, weights).argmax(axis=1)


def _clusters(values: Numbers, components: int, seed: int) -> Numbers:
    """Responsibilities (n, k) of k-means."""
    from scipy.cluster.vq import kmeans2

    _, of = kmeans2(values[:, None], components, minit="++", rng=seed)
    one_hot: Numbers = np.eye(components)[of]
    return one_hot


def _from(values: Numbers, responsibilities: Numbers) -> tuple[float, Numbers, Numbers, Numbers]:
    """The log-likelihood of the last round, and the components' a, b and weights after it."""
    from scipy.special import logsumexp

    likelihood = -np.inf
    a, b, weights = _moments(values, responsibilities + TINY)
    for _ in range(ROUNDS):
        joint = _log_joint(values, a, b, weights)
        total = logsumexp(joint, axis=1)
        a, b, weights = _moments(values, np.exp(joint - total[:, None]))
        before, likelihood = likelihood, float(total.mean())
        if abs(likelihood - before) < TOLERANCE:
            break
    return likelihood, a, b, weights


def _moments(values: Numbers, responsibilities: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Parameters a, b (k,) of Betas with the weighted means and variances, and weights (k,)."""
    counts = responsibilities.sum(axis=0) + TINY
    means = values @ responsibilities / counts
    variances = values**2 @ responsibilities / counts - means**2
    spread = means * (1 - means)
    scale = spread / (np.minimum(variances, spread / 4) + TINY + 1e-10) - 1
    return scale * means, scale * (1 - means), counts / counts.sum()


def _log_joint(values: Numbers, a: Numbers, b: Numbers, weights: Numbers) -> Numbers:
    """Log of weight times density, (n, k)."""
    from scipy.special import betaln

    logs, complements = np.log(values)[:, None], np.log1p(-values)[:, None]
    joint: Numbers = (a - 1) * logs + (b - 1) * complements - betaln(a, b) + np.log(weights)
    return joint
