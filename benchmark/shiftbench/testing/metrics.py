"""What must hold for every metric, on answers that are drawn at random."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from shiftbench.core.errors import InputError
from shiftbench.evaluation.examples import FIELDS, LOCATION, Column, Examples, of_logits
from shiftbench.evaluation.metrics.base import Metric
from shiftbench.evaluation.predictions import examples_of, read, table_of, write
from shiftbench.evaluation.scoring import score
from shiftbench.testing.checks import Check, require

REGIONS = np.array(["Asia", "Europe", "Africa", "Other", "Oceania"])
SEEDS = range(4)
_ROUNDING = 1e-9


def models(
    seed: int, n: int = 200, count: int = 3, metadata: Mapping[str, Column] = MappingProxyType({})
) -> list[Examples]:
    """Answers by logits of some models on the same n examples: skilled, unsure and tied ones.

    Args:
        seed: of all that is drawn.
        n: examples.
        count: models.
        metadata: columns (n,), beside a ``region``, a ``year``, an ``anchor`` and an ``offset``.
    """
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 12))
    labels = rng.choice(classes, size=n, p=rng.dirichlet(np.full(classes, 0.8)))
    columns = {"region": REGIONS[rng.integers(0, 5, size=n)], "year": rng.integers(2002, 2005, n)}
    columns |= {"anchor": np.arange(n) // 3, "offset": np.arange(n) % 3 - 1}
    found = []
    for _ in range(count):
        logits = rng.normal(size=(n, classes)) * rng.uniform(0.3, 4)
        logits[np.arange(n), labels] += rng.uniform(0, 4)
        if rng.random() < 0.4:
            logits = np.round(logits)  # many ties
        found.append(of_logits(labels, logits.astype(np.float32), {**columns, **metadata}))
    return found


def answers(
    metric: Metric, seed: int = 0, metadata: Mapping[str, Column] = MappingProxyType({})
) -> Examples:
    """Answers of one model on 200 examples, with every column that a metric groups by."""
    (found,) = models(seed, count=1, metadata=metadata)
    groups = {name: np.arange(200) % 3 for name in metric.columns if name not in found.metadata}
    return models(seed, count=1, metadata={**metadata, **groups})[0]


def says_what_it_is(metric: Metric) -> None:
    """A line of documentation, a title, a range."""
    first = (type(metric).__doc__ or "").strip().partition("\n")[0]
    require(first != "", f"{type(metric).__name__} has no docstring")
    require(bool(metric.title), "title is empty")
    low, high = metric.range
    require(low < high, f"range {metric.range} is empty")
    require(math.isfinite(metric.worst), f"its worst value is {metric.worst}; give range an end")


def says_what_it_needs(metric: Metric) -> None:
    """A field or a column that is missing is an error of the input that names it."""
    examples = answers(metric)
    odd = metric.needs - set(FIELDS)
    require(not odd, f"needs has {sorted(odd)}, which examples do not have")
    for field in sorted(metric.needs):
        without = {name: getattr(examples, name) for name in metric.needs - {field}}
        _refuses(metric, Examples(examples.labels, examples.predictions, examples.metadata,
                                  **without), field)  # fmt: skip
    for column in metric.columns:
        others = {name: of for name, of in examples.metadata.items() if name != column}
        known = {name: getattr(examples, name) for name in FIELDS}
        _refuses(metric, Examples(examples.labels, examples.predictions, others, **known), column)
    kept = {name: getattr(examples, name) for name in metric.needs}
    alone = Examples(examples.labels, examples.predictions, examples.metadata, **kept)
    require(
        score(metric, alone) == score(metric, examples),
        f"it looks at more fields than needs has ({', '.join(sorted(metric.needs)) or 'none'})",
    )


def _refuses(metric: Metric, examples: Examples, missing: str) -> None:
    try:
        metric.value(examples)
    except InputError:
        return
    require(False, f"it has a value without {missing}, which it says it needs")


def reads_its_file(metric: Metric) -> None:
    """The value from a file of predictions is that of the examples."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "predictions.parquet"
        for seed in SEEDS:
            examples = answers(metric, seed)
            ids = np.array([str(i) for i in range(len(examples))])
            write(file, table_of("x", "", ids, examples))
            one, two = score(metric, examples), score(metric, examples_of(read(file)))
            require(one == two, f"{two.value!r} from a file, {one.value!r} of the examples")


def has_an_interval(metric: Metric) -> None:
    """Low ≤ value ≤ high, within the range, the same every time; with clusters too."""
    low, high = metric.range
    for seed in SEEDS:
        clusters: dict[str, Column] = {LOCATION: np.arange(200) % 17}
        for examples in (answers(metric, seed), answers(metric, seed, clusters)):
            found, again = score(metric, examples), score(metric, examples)
            ends = (low, found.low, found.value, found.high, high)
            require(ends == tuple(sorted(ends)), f"range, interval and value are {ends}")
            require(found == again, f"{again.value!r} the second time, {found.value!r} the first")


def forgets_the_order(metric: Metric) -> None:
    """The order of examples is nothing."""
    for seed in SEEDS:
        examples = answers(metric, seed)
        order = np.random.default_rng(1).permutation(len(examples))
        one, two = metric.value(examples), metric.value(examples.take(order))
        require(_close(one, two), f"{two!r} in another order, {one!r} in the first")


def takes_weights_for_repetitions(metric: Metric) -> None:
    """A weight of 2 is an example that is there twice, of 0 one that is not."""
    rng = np.random.default_rng(2)
    for seed in SEEDS:
        examples = answers(metric, seed)
        weights = rng.integers(0, 4, size=(3, len(examples)))
        values = metric.values(examples, weights.astype(np.float64))
        require(values.shape == (3,), f"values() gives {values.shape} for 3 rows of weights")
        for row, value in zip(weights, values, strict=True):
            repeated = examples.take(np.repeat(np.arange(len(examples)), row))
            expected = metric.value(repeated)
            difference = f"{value!r} by weights, {expected!r} of repeated examples"
            require(_close(value, expected), difference)


def ranks_right_over_wrong(metric: Metric) -> None:
    """What is certain and right is no worse than what is certain and wrong."""
    right, wrong = (metric.value(of) for of in right_and_wrong(metric))
    low, high = metric.range
    for value in (right, wrong):
        within = low - _ROUNDING <= value <= high + _ROUNDING
        require(within, f"{value!r} lies outside the range {metric.range}")
    higher = "higher" if metric.higher_is_better else "lower"
    difference = (
        f"{right!r} where all is right, {wrong!r} where all is wrong, and {higher} is better"
    )
    require(not metric.better(wrong, right), difference)
    require(not metric.better(metric.worst, wrong), f"worst is better than {wrong!r}")


def right_and_wrong(metric: Metric) -> tuple[Examples, Examples]:
    """Sixty examples of which all are right and certain, and the same all wrong and certain."""
    labels = np.arange(60) % 6
    columns: dict[str, npt.NDArray[np.generic]] = {
        "region": np.array(["Asia", "Africa"] * 30), "year": np.arange(60) % 2
    }  # fmt: skip
    columns |= {name: np.arange(60) % 2 for name in metric.columns if name not in columns}
    sure = 100 * np.eye(6)
    return of_logits(labels, sure[labels], columns), of_logits(labels, -sure[labels], columns)


def _close(one: float, two: float) -> bool:
    return math.isclose(one, two, rel_tol=_ROUNDING, abs_tol=_ROUNDING)


CHECKS: Mapping[str, Check[Metric]] = {
    "says what it is": says_what_it_is,
    "says what it needs": says_what_it_needs,
    "has the same value from a file": reads_its_file,
    "has an interval around its value": has_an_interval,
    "does not depend on the order": forgets_the_order,
    "takes weights for repetitions": takes_weights_for_repetitions,
    "ranks right over wrong": ranks_right_over_wrong,
}
