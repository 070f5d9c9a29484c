"""The contract of a metric, and three bases that leave little to write.

A metric is a class with a ``name``. What a task's YAML says after a colon is its argument:
``ece:15``. ``Metric`` asks for its values under resampled examples, ``SumMetric`` for what each
example adds to sums, ``MeanMetric`` for a number per example and ``Proportion`` for right or wrong.
Intervals, paired bootstrap and tests follow from that.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from shiftbench.core.errors import InputError
from shiftbench.evaluation.examples import Examples, Field, Integers
from shiftbench.evaluation.intervals import Counts, Floats, clopper_pearson
from shiftbench.evaluation.pair_tests import EXACT_UP_TO, mcnemar

if TYPE_CHECKING:
    from scipy.sparse import csr_array

DENSE = 0.1  # share of entries that are not 0 above which a dense product is faster

Statistic = Callable[[Floats], Floats]
"""From how often each unit is drawn (b, units) to the metric (b,)."""


class Metric(ABC):
    """A number that says how good predictions are.

    Attributes:
        name: what a task calls it, before the colon.
        title: the header of its column.
        higher_is_better: the direction of rankings, selections and searches.
        percent: whether it is printed times 100.
        range: the least and the greatest value that it can have.
        needs: fields of ``Examples`` without which it has no value, beside label and prediction.
        columns: metadata columns that it groups by.
        argument: the text after the colon; ``None`` when there is none.
        resamples_lie_beside: whether its resamples are systematically higher or lower than its
            value, so that they are moved to have it as their mean before an interval is read off.

    Args:
        argument: of the metric's text.

    Raises:
        ValueError: the argument is none that the metric takes; the message says what it takes.
    """

    name: ClassVar[str]
    title: str
    higher_is_better: ClassVar[bool] = True
    percent: ClassVar[bool] = True
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    needs: ClassVar[frozenset[Field]] = frozenset()
    resamples_lie_beside: ClassVar[bool] = False
    columns: tuple[str, ...] = ()

    def __init__(self, argument: str | None = None) -> None:
        if argument is not None:
            raise ValueError(f'takes nothing after "{self.name}"')
        self.argument: str | None = argument

    @abstractmethod
    def values(self, examples: Examples, weights: Floats) -> Floats:
        """The metric where every example counts as often as its weight says.

        Args:
            examples: n of them, with all that the metric needs.
            weights: (b, n) float64, whole numbers ≥ 0; each row has one above 0.

        Returns:
            (b,) float64.
        """

    def exact_interval(self, examples: Examples) -> tuple[float, float, str] | None:
        """Ends of an exact 95 % interval and what it is called; ``None``: bootstrap."""
        del examples
        return None

    def pair_test(self, first: Examples, second: Examples) -> tuple[float, str] | None:
        """The p-value of an exact test that two models are equal on the same examples.

        Returns:
            two-sided p, and what the test is called; ``None``: bootstrap.
        """
        del first, second
        return None

    def kinds(self, examples: Examples) -> Integers | None:
        """Rows (n, m) that are equal for examples that count alike; ``None``: no two may be.

        Of few kinds the bootstrap draws counts, which is faster than drawing examples.
        """
        del examples
        return None

    def value(self, examples: Examples) -> float:
        """The metric of the examples themselves.

        Raises:
            InputError: a column or a field that it needs is missing.
            ValueError: there are no examples.
        """
        self.check(examples)
        return float(self.values(examples, np.ones((1, len(examples))))[0])

    def statistic(self, examples: Examples, clusters: Counts | None = None) -> Statistic:
        """The metric as a function of how often each example, or each cluster, is drawn.

        Args:
            examples: n of them.
            clusters: (n,) the cluster of each, 0, 1, …; ``None`` where examples are drawn.
        """
        if clusters is None:
            return lambda counts: self.values(examples, counts)
        return lambda counts: self.values(examples, counts[:, clusters])

    def statistic_of_all(
        self, models: Sequence[Examples], clusters: Counts | None = None
    ) -> Statistic:
        """The same of several models on the same examples: from (b, units) to (models, b)."""
        each = [self.statistic(examples, clusters) for examples in models]
        return lambda counts: np.stack([of(counts) for of in each])

    def centred(self, draws: Floats, values: npt.ArrayLike) -> Floats:
        """Resamples (…, b) moved to the values (…), for a metric whose resamples lie beside it."""
        if not self.resamples_lie_beside:
            return draws
        moved = draws + (np.asarray(values) - draws.mean(axis=-1))[..., None]
        inside: Floats = np.clip(moved, *self.range)
        return inside

    @property
    def text(self) -> str:
        """Its text in tasks and rows: the name, and after a colon the argument."""
        return self.name if self.argument is None else f"{self.name}:{self.argument}"

    @property
    def worst(self) -> float:
        """The worst finite value, which stands for a training that failed."""
        low, high = self.range
        return max(low, -LARGEST) if self.higher_is_better else min(high, LARGEST)

    def merit(self, value: float) -> float:
        """The value, negated where less is better: of two, the better has more merit."""
        return value if self.higher_is_better else -value

    def better(self, value: float, other: float) -> bool:
        """True if the first value is better than the second in this metric's direction."""
        return self.merit(value) > self.merit(other)

    def available(self, fields: Collection[str]) -> bool:
        """True if predictions with these fields give a value; class-only ones have no field."""
        return self.needs <= set(fields)

    def check(self, examples: Examples) -> None:
        """See that the metric has a value.

        Raises:
            InputError: a column or a field that it needs is missing.
            ValueError: there are no examples.
        """
        if not len(examples):
            raise ValueError("there is no example to score")
        if (missing := self.missing(examples)) is not None:
            raise InputError(f'metric "{self.text}" needs {missing}')

    def missing(self, examples: Examples) -> str | None:
        """The first field or column that the metric needs and examples lack; ``None`` if none."""
        for column in self.columns:
            if column not in examples.metadata:
                return f'a column "{column}" in the evaluation set'
        if not self.available(examples.fields):
            return "logits, and these predictions are classes only"
        return None


LARGEST = float(np.finfo(np.float64).max)


class SumMetric(Metric):
    """A metric that is a function of sums over examples."""

    @abstractmethod
    def contributions(self, examples: Examples) -> Floats | csr_array:
        """(k, n) what each example adds to each of k sums, dense or sparse."""

    @abstractmethod
    def of_sums(self, sums: Floats) -> Floats:
        """The metric (b,) of sums (b, k)."""

    def values(self, examples: Examples, weights: Floats) -> Floats:
        """The metric of weighted sums."""
        return self.statistic(examples)(weights)

    def value(self, examples: Examples) -> float:
        """The metric of the examples; its sums are exactly rounded, so their order is nothing."""
        self.check(examples)
        amounts = self.contributions(examples)
        if isinstance(amounts, np.ndarray):
            parts = [*amounts]
        else:
            parts = np.split(amounts.data, amounts.indptr[1:-1])
        return float(self.of_sums(np.array([[math.fsum(part.tolist()) for part in parts]]))[0])

    def statistic(self, examples: Examples, clusters: Counts | None = None) -> Statistic:
        """The metric of drawn sums: those of each cluster are made once."""
        of_all = self.statistic_of_all([examples], clusters)
        return lambda counts: of_all(counts)[0]

    def statistic_of_all(
        self, models: Sequence[Examples], clusters: Counts | None = None
    ) -> Statistic:
        """The metric of drawn sums; dense ones are made by one product for all models."""
        of_models = [self._of_units(examples, clusters) for examples in models]
        dense = [amounts for amounts in of_models if isinstance(amounts, np.ndarray)]
        if len(dense) < len(of_models):
            return lambda counts: np.stack([self._drawn(each, counts) for each in of_models])
        together, k = np.concatenate(dense).T, len(dense[0])

        def of(counts: Floats) -> Floats:
            sums = (counts @ together).reshape(-1, k)
            return self.of_sums(sums).reshape(len(counts), len(dense)).T

        return of

    def _drawn(self, amounts: Floats | csr_array, counts: Floats) -> Floats:
        return self.of_sums(np.ascontiguousarray((amounts @ np.ascontiguousarray(counts.T)).T))

    def _of_units(self, examples: Examples, clusters: Counts | None) -> Floats | csr_array:
        """(k, units) what each example, or each cluster, adds to each sum; sparse if mostly 0."""
        from scipy.sparse import csr_array

        amounts = self.contributions(examples)
        if clusters is not None:
            members = tally(clusters, int(clusters.max()) + 1)
            amounts = (csr_array(amounts) @ members.T).tocsr()
        if isinstance(amounts, np.ndarray):
            few = np.count_nonzero(amounts) <= DENSE * amounts.size
            return csr_array(amounts) if few else amounts
        return amounts if amounts.nnz <= DENSE * np.prod(amounts.shape) else amounts.toarray()


class MeanMetric(SumMetric):
    """A metric that is a mean over examples."""

    @abstractmethod
    def per_example(self, examples: Examples) -> npt.NDArray[np.generic]:
        """(n,) what each example counts with."""

    def contributions(self, examples: Examples) -> Floats:
        """(2, n): each counts once, and with its number."""
        return np.stack([np.ones(len(examples)), self.per_example(examples).astype(np.float64)])

    def of_sums(self, sums: Floats) -> Floats:
        """The mean (b,)."""
        mean: Floats = sums[:, 1] / sums[:, 0]
        return mean


class Proportion(MeanMetric):
    """A share of examples, each right or wrong.

    Independent examples give the exact binomial interval (Clopper and Pearson, 1934), as in the
    WiSE-FT paper (arXiv 2109.01903, §2), and McNemar's test of two models.
    """

    @abstractmethod
    def per_example(self, examples: Examples) -> npt.NDArray[np.bool_]:
        """(n,) which examples are right."""

    def exact_interval(self, examples: Examples) -> tuple[float, float, str] | None:
        """Clopper–Pearson, unless the examples are in clusters."""
        if examples.clusters is not None:
            return None
        low, high = clopper_pearson(int(self.per_example(examples).sum()), len(examples))
        return float(low), float(high), "Clopper-Pearson"

    def pair_test(self, first: Examples, second: Examples) -> tuple[float, str] | None:
        """McNemar's test, unless the examples are in clusters."""
        if first.clusters is not None:
            return None
        ours, theirs = self.per_example(first), self.per_example(second)
        b, c = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
        kind = "exact" if b + c <= EXACT_UP_TO else "mid-p"
        return float(mcnemar(b, c)), f"McNemar, {kind}"


def tally(
    kinds: Integers, n_kinds: int, counted: npt.NDArray[np.generic] | None = None
) -> csr_array:
    """(n_kinds, n) sparse, with what each example counts with in the row of its kind.

    Args:
        kinds: (n,) in [0, ``n_kinds``).
        n_kinds: how many rows.
        counted: (n,) what each counts with, or which count at all; ``None``: each once.
    """
    from scipy.sparse import csr_array

    amounts = np.ones(len(kinds)) if counted is None else counted.astype(np.float64)
    (counting,) = np.nonzero(amounts)
    counting = counting[np.argsort(kinds[counting], kind="stable")]
    ends = np.cumsum(np.bincount(kinds[counting], minlength=n_kinds))
    return csr_array((amounts[counting], counting, np.append(0, ends)), shape=(n_kinds, len(kinds)))
