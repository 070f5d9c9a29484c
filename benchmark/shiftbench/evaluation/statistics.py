"""Which differences between methods are more than chance, from their predictions per example.

Methods are compared on the same examples, each pair with a test, all tests corrected together
(Holm, 1979). What cannot be told apart shares a group. The tests speak of the trained models and
of examples like those of the sets; how much another training run would differ is what the interval
over seeds shows (``intervals.student_t``).
"""

from __future__ import annotations

import itertools
import string
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shiftbench.core.errors import InputError
from shiftbench.evaluation.intervals import (
    SEED,
    Counts,
    Floats,
    percentiles,
    resampled_counts,
)
from shiftbench.evaluation.metrics import (
    GROUP_COLUMNS,
    METRICS,
    REGION,
    Column,
    Integers,
    clusters_of,
    f1_of_tallies,
    needed_columns,
)

if TYPE_CHECKING:
    from scipy.sparse import csr_array

RESAMPLES = 2000
SIGNIFICANT = 0.05
EXACT_UP_TO = 25  # discordant pairs
DENSE = 0.1  # share of entries that are not 0 above which a dense product is faster
ROUNDING = 1e-12  # a difference below is one of the order of summation

Booleans = npt.NDArray[np.bool_]
Seed = int | None
Predictions = Mapping[str, pa.Table]


@dataclass(frozen=True)
class Examples:
    """Predictions of several models on the same examples, in the same order.

    Attributes:
        labels: (n,) classes.
        predictions: (models, n) classes.
        metadata: columns (n,) to group by.
    """

    labels: Integers
    predictions: Integers
    metadata: Mapping[str, Column]


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


@dataclass(frozen=True)
class Difference:
    """How much better one method is than another on the same examples.

    Attributes:
        first: its name.
        second: its name.
        value: metric of the first less that of the second, in [-1, 1].
        low: lower end of the 95 % percentile bootstrap interval, of this pair alone.
        high: upper end.
        p: of the hypothesis that they are equal, two-sided.
        adjusted: ``p`` after Holm's correction for all pairs compared together.
        seeds: pairs of runs averaged.
        test: how ``p`` was made, for people.
    """

    first: str
    second: str
    value: float
    low: float
    high: float
    p: float
    adjusted: float
    seeds: int
    test: str


def mcnemar(only_first: npt.ArrayLike, only_second: npt.ArrayLike) -> Floats:
    """Two-sided p-value of McNemar's test that two models are equally accurate (McNemar, 1947).

    Up to ``EXACT_UP_TO`` discordant examples it is the exact binomial test. Above, it is the mid-p
    test, which counts the observed outcome by half: the exact test is needlessly conservative
    there, and the asymptotic one rejects too often (Fagerland, Lydersen and Laake, 2013,
    doi 10.1186/1471-2288-13-91).

    Args:
        only_first: how many examples only the first model has right, integers of any shape.
        only_second: how many only the second has, of the same shape.
    """
    from scipy.special import betainc

    b, c = np.broadcast_arrays(np.asarray(only_first, float), np.asarray(only_second, float))
    if np.any(b < 0) or np.any(c < 0):
        raise ValueError("counts are not negative")
    n, least = b + c, np.minimum(b, c)
    # P(X ≤ k) of X ~ Binomial(n, ½) is the incomplete beta function at ½ of n - k and k + 1.
    up_to = np.where(n == 0, 1.0, betainc(np.maximum(n - least, 1), least + 1, 0.5))
    below = np.where(least == 0, 0.0, betainc(n - least + 1, np.maximum(least, 1), 0.5))
    exact = np.minimum(1.0, 2 * up_to)
    mid = up_to + below  # = 2 P(X ≤ k) - P(X = k)
    p: Floats = np.where(n <= EXACT_UP_TO, exact, mid)
    return p


def holm(p_values: npt.ArrayLike) -> Floats:
    """Adjusted p-values (Holm, 1979): rejecting those ≤ α errs at all with probability ≤ α.

    Args:
        p_values: (n,) in [0, 1], of one family of hypotheses.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not np.all((p >= 0) & (p <= 1)):
        raise ValueError("p-values are one row of numbers in [0, 1]")
    order = np.argsort(p, kind="stable")
    steps = np.minimum(1.0, p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted


def groups(differs: npt.ArrayLike) -> tuple[tuple[int, ...], ...]:
    """Groups of methods that cannot be told apart: two share a group if and only if so.

    This is a compact letter display (Piepho, 2004, doi 10.1198/1061860043515). A method may be in
    several groups, since "cannot be told apart" is not transitive: the first may not differ from
    the second nor the second from the third, although the first and the third do.

    Args:
        differs: (n, n) symmetric booleans, rows in rank order.

    Returns:
        for each method the numbers of its groups from 1, ascending; group 1 holds the best.
    """
    same = ~_symmetric(differs)
    n = len(same)
    covered = np.zeros((n, n), dtype=bool)
    found: list[list[int]] = []
    for first, second in itertools.combinations_with_replacement(range(n), 2):
        if first == second and same[first].sum() > 1:
            continue  # a group of its own is only for what differs from all others
        if covered[first, second] or not same[first, second]:
            continue
        members = list(dict.fromkeys([first, second]))
        for other in range(n):
            if other not in members and same[other, members].all():
                members.append(other)
        covered[np.ix_(members, members)] = True
        found.append(sorted(members))
    found.sort()
    return tuple(
        tuple(number for number, members in enumerate(found, start=1) if method in members)
        for method in range(n)
    )


def letters(numbers: Sequence[int]) -> str:
    """The groups of a method as letters, such as ``ab``; beyond 26 groups as numbers."""
    if max(numbers) > len(string.ascii_lowercase):
        return ",".join(map(str, numbers))
    return "".join(string.ascii_lowercase[number - 1] for number in numbers)


def align(tables: Mapping[str, pa.Table]) -> Examples:
    """Bring predictions of several models on one evaluation set into the order of the first.

    Args:
        tables: of ``predictions.to_table``, one variant and one set each; the key names the model.

    Raises:
        InputError: ids or labels differ, or an id occurs twice.
    """
    import pyarrow.compute as pc

    (leader, first), *others = tables.items()
    ids, labels = first["id"], first["label"].to_numpy()
    if pc.count_distinct(ids).as_py() < len(ids):
        raise InputError(f"{leader}: an example has several predictions")
    rows = [first["prediction"].to_numpy()]
    for name, table in others:
        if not table["id"].equals(ids):
            place = pc.index_in(ids, value_set=table["id"].combine_chunks())
            absent = pc.filter(ids, pc.is_null(place))
            if len(absent) or len(table) != len(first):
                example = f' (such as "{absent[0]}")' if len(absent) else ""
                raise InputError(
                    f"{name} and {leader} were not evaluated on the same examples: "
                    f"{len(table)} and {len(first)}, of which {len(ids) - len(absent)} "
                    f"are shared{example}"
                )
            table = table.take(place)
        wrong = np.flatnonzero(table["label"].to_numpy() != labels)
        if len(wrong):
            raise InputError(
                f"{name} and {leader} have different labels of {len(wrong)} examples "
                f'(such as "{ids[int(wrong[0])]}")'
            )
        rows.append(table["prediction"].to_numpy())
    metadata = {
        name: first[name].to_numpy().astype(str)
        for name in GROUP_COLUMNS
        if first[name].null_count == 0
    }
    return Examples(labels, np.stack(rows), metadata)


def resample(
    examples: Examples,
    metric: str,
    seed: int | Sequence[int] = SEED,
    resamples: int = RESAMPLES,
) -> Resampled:
    """Bootstrap a metric of all models together: every resample is of the same examples for all.

    Whole locations are resampled where there are several, as for the intervals of ``metrics``.

    Args:
        examples: of ``align``.
        metric: one of ``shiftbench.evaluation.metrics.METRICS``.
        seed: of the resampling; sets that are to be independent need different ones.
        resamples: how many.

    Raises:
        InputError: a column that the metric needs is missing, or there are no examples.
    """
    if metric not in METRICS:
        raise ValueError(f'unknown metric "{metric}" (known: {", ".join(METRICS)})')
    n = len(examples.labels)
    if not n:
        raise InputError("there is no example to compare on")
    for name in needed_columns(metric):
        if name not in examples.metadata:
            raise InputError(f'metric "{metric}" needs a column "{name}" in the evaluation set')
    shared, own = _contributions(examples, metric)
    clusters = clusters_of(examples.metadata)
    if clusters is not None:
        shared, own = _summed(shared, clusters), _summed(own, clusters)
    units, models = shared.shape[1], len(examples.predictions)
    fixed, varying = _ready(shared), _ready(own)

    def of(counts: Floats) -> Floats:
        return _metric_of_sums(metric, _product(counts, fixed), _product(counts, varying), models)

    draws = [of(counts) for counts in resampled_counts(units, resamples, seed)]
    return Resampled(of(np.ones((1, units)))[:, 0], np.concatenate(draws, axis=1), units)


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


def bootstrap_p(difference: float, draws: Floats, units: int) -> float:
    """Two-sided p-value of a difference from its bootstrap standard error.

    The difference over its standard error is compared with Student's t of ``units`` - 1 degrees of
    freedom. Unlike the share of resamples beyond 0, this is not limited by how many resamples there
    are, which a correction for many comparisons could not bear. It is never below 2^(1 - units),
    the least that a sign test of as many units can give.

    Args:
        difference: on the examples themselves.
        draws: (resamples,) of it.
        units: how many examples or clusters were resampled.
    """
    from scipy.special import stdtr

    if abs(difference) < ROUNDING:
        return 1.0
    least = 2.0 ** max(1 - units, -1000)
    error = float(draws.std(ddof=1))
    if error < ROUNDING or units < 2:
        return least
    return max(least, 2 * float(stdtr(units - 1, -abs(difference) / error)))


def compare(
    methods: Mapping[str, Mapping[Seed, Predictions]],
    metrics: Mapping[str, str],
    resamples: int = RESAMPLES,
) -> tuple[Difference, ...]:
    """Compare every pair of methods by a metric's mean over evaluation sets, all on the same data.

    Of several seeds, those that both methods have are paired, and the difference is the mean over
    them: for accuracy, each example counts with its mean difference over seeds. Then examples (or
    locations) are resampled, those of different sets independently of each other.

    One pair of runs on one set by accuracy, with independent examples, is tested by McNemar's test;
    all else by the bootstrap.

    Args:
        methods: by name and seed, predictions by evaluation set, of one variant. The seed ``None``
            stands for every seed: a run that none can change.
        metrics: headline metric by evaluation set; the mean is over these sets.
        resamples: of the bootstrap.

    Returns:
        each pair once, in the order of ``methods``.

    Raises:
        InputError: a set is missing, two methods share no seed, or the data differ.
    """
    runs = {
        (name, seed): predictions
        for name, seeds in methods.items()
        for seed, predictions in seeds.items()
    }
    place = {run: index for index, run in enumerate(runs)}
    pairs = {
        (first, second): _paired(first, methods[first], second, methods[second])
        for first, second in itertools.combinations(methods, 2)
    }
    if not pairs:
        return ()
    sets = {}
    for evaluation_set in metrics:
        for (name, seed), predictions in runs.items():
            if evaluation_set not in predictions:
                raise InputError(f"{_run(name, seed)}: has no predictions on {evaluation_set}")
        sets[evaluation_set] = align(
            {
                f"{_run(name, seed)} on {evaluation_set}": predictions[evaluation_set]
                for (name, seed), predictions in runs.items()
            }
        )
    mean = over_sets(
        [
            resample(examples, metrics[name], (SEED, zlib.crc32(name.encode())), resamples)
            for name, examples in sets.items()
        ]
    )
    alone = next(iter(sets.values())) if len(sets) == 1 else None
    if alone is not None and (
        set(metrics.values()) != {"accuracy"} or clusters_of(alone.metadata) is not None
    ):
        alone = None  # McNemar's test needs accuracy and independent examples
    differences = []
    for (first, second), seeds in pairs.items():
        ours = [place[first, one] for one, _ in seeds]
        theirs = [place[second, other] for _, other in seeds]
        value = float(mean.values[ours].mean() - mean.values[theirs].mean())
        draws = mean.draws[ours].mean(axis=0) - mean.draws[theirs].mean(axis=0)
        low, high = percentiles(draws)
        if alone is not None and len(seeds) == 1:
            p, test = _mcnemar_of(alone, ours[0], theirs[0])
        else:
            p, test = bootstrap_p(value, draws, mean.units), f"bootstrap of {mean.units} units"
        found = Difference(first, second, value, low, high, p, p, len(seeds), test)
        differences.append(found)
    adjusted = holm([found.p for found in differences])
    return tuple(
        replace(found, adjusted=float(p)) for found, p in zip(differences, adjusted, strict=True)
    )


def decisions(
    differences: Iterable[Difference], names: Sequence[str], level: float = SIGNIFICANT
) -> Booleans:
    """(n, n) which methods differ after correction, rows as ``names``.

    Raises:
        ValueError: two of them were not compared.
    """
    adjusted = {frozenset((d.first, d.second)): d.adjusted for d in differences}
    differs = np.zeros((len(names), len(names)), dtype=bool)
    for i, j in itertools.combinations(range(len(names)), 2):
        p = adjusted.get(frozenset((names[i], names[j])))
        if p is None:
            raise ValueError(f"{names[i]} and {names[j]} were not compared")
        differs[i, j] = differs[j, i] = p <= level
    return differs


def _symmetric(differs: npt.ArrayLike) -> Booleans:
    square: Booleans = np.asarray(differs, dtype=bool)
    if square.ndim != 2 or not np.array_equal(square, square.T) or square.diagonal().any():
        raise ValueError("decisions are a symmetric matrix, and nothing differs from itself")
    return square


def _paired(
    first: str, ours: Mapping[Seed, Predictions], second: str, theirs: Mapping[Seed, Predictions]
) -> list[tuple[Seed, Seed]]:
    """The seeds of two methods that belong together."""
    for name, seeds in ((first, ours), (second, theirs)):
        if not seeds or (None in seeds and len(seeds) > 1):
            raise ValueError(f"{name}: has either seeds or one run for all of them")
    if None in ours:
        return [(None, other) for other in theirs]
    if None in theirs:
        return [(one, None) for one in ours]
    common: list[tuple[Seed, Seed]] = [(seed, seed) for seed in ours if seed in theirs]
    if not common:
        raise InputError(f"{first} and {second} have no seed in common")
    return common


def _run(name: str, seed: Seed) -> str:
    return name if seed is None else f"{name} (seed {seed})"


def _mcnemar_of(examples: Examples, first: int, second: int) -> tuple[float, str]:
    ours = examples.predictions[first] == examples.labels
    theirs = examples.predictions[second] == examples.labels
    b, c = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    kind = "exact" if b + c <= EXACT_UP_TO else "mid-p"
    return float(mcnemar(b, c)), f"McNemar, {kind}"


def _contributions(examples: Examples, metric: str) -> tuple[csr_array, csr_array]:
    """What each example adds to the sums that a metric is a function of.

    Returns:
        the sums that do not depend on predictions (k, n), and those of each model that do
        (models · m, n).
    """
    labels, predictions = examples.labels, examples.predictions
    n, models = len(labels), len(predictions)
    right = predictions == labels
    if metric == "accuracy":
        return _indicator(np.zeros(n, np.int64), 1), _stacked(np.zeros_like(right, int), right, 1)
    if metric == "macro-f1":
        classes, label = np.unique(labels, return_inverse=True)
        found = np.minimum(np.searchsorted(classes, predictions), len(classes) - 1)
        predicted = _stacked(found, classes[found] == predictions, len(classes))
        both = _stacked(found, right, len(classes))
        return _indicator(label, len(classes)), _alternating(predicted, both, models)
    regions, region = np.unique(examples.metadata[REGION].astype(str), return_inverse=True)
    kept = np.array(["Other" not in str(name) for name in regions])
    if not kept.any():
        raise InputError('metric "worst-region" has no region to score: all are called "Other"')
    place = (np.cumsum(kept) - 1)[region]
    inside = kept[region]
    trials = _stacked(place[None], inside[None], int(kept.sum()))
    hits = _stacked(np.tile(place, (models, 1)), right & inside, int(kept.sum()))
    return trials, hits


def _metric_of_sums(metric: str, shared: Floats, own: Floats, models: int) -> Floats:
    """(models, b) a metric of the sums (b, k) and (b, models · m) of ``_contributions``."""
    each = np.split(own, models, axis=1)
    if metric == "accuracy":
        return np.stack([hits[:, 0] / shared[:, 0] for hits in each])
    if metric == "macro-f1":
        return np.stack([f1_of_tallies(np.hstack([shared, tallies])) for tallies in each])
    present = shared > 0
    # A region that a resample leaves out is not its worst.
    trials = np.where(present, shared, 1)
    return np.stack([np.where(present, hits / trials, 1.0).min(axis=1) for hits in each])


def _indicator(kinds: Counts, n_kinds: int) -> csr_array:
    """(kinds, n) of one in the row of each example's kind."""
    return _stacked(kinds[None], np.ones((1, len(kinds)), dtype=bool), n_kinds)


def _stacked(kinds: Integers, counted: Booleans, n_kinds: int) -> csr_array:
    """(models · kinds, n) of one in the row of each counted example's kind, for each model.

    Args:
        kinds: (models, n) in [0, ``n_kinds``).
        counted: (models, n).
    """
    from scipy.sparse import csr_array

    models, n = kinds.shape
    model, example = np.nonzero(counted)
    row = model * n_kinds + kinds[model, example]
    return csr_array((np.ones(len(row)), (row, example)), shape=(models * n_kinds, n))


def _alternating(first: csr_array, second: csr_array, models: int) -> csr_array:
    """The rows of the first and of the second, model by model."""
    from scipy.sparse import vstack

    k = first.shape[0] // models
    blocks = [m[i * k : (i + 1) * k] for i in range(models) for m in (first, second)]
    return vstack(blocks, format="csr")


def _summed(contributions: csr_array, clusters: Counts) -> csr_array:
    """(k, clusters) the sums of (k, n) over each cluster."""
    return (contributions @ _indicator(clusters, int(clusters.max()) + 1).T).tocsr()


def _ready(contributions: csr_array) -> csr_array | Floats:
    """As ``_product`` takes them fastest: few zeros are not worth being left out."""
    k, units = contributions.shape
    dense = contributions.nnz > DENSE * k * units
    return contributions.toarray().T if dense else contributions


def _product(counts: Floats, contributions: csr_array | Floats) -> Floats:
    """(b, k) the sums of resamples: ``counts`` (b, units) times ``_ready`` contributions."""
    if isinstance(contributions, np.ndarray):
        dense: Floats = counts @ contributions
        return dense
    sparse: Floats = (contributions @ np.ascontiguousarray(counts.T)).T
    return sparse
