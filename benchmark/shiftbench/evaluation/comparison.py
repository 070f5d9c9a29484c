"""Which differences between methods are more than chance, from their predictions per example.

Methods are compared on the same examples, each pair with a test, all tests corrected together
(Holm, 1979). What cannot be told apart shares a group. The tests speak of the trained models and
of examples like those of the sets; how much another training run would differ is what the interval
over seeds shows (``intervals.student_t``).
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from shiftbench.core.errors import InputError
from shiftbench.evaluation.examples import Examples
from shiftbench.evaluation.intervals import SEED, Floats, percentiles_of_rows
from shiftbench.evaluation.metrics.registry import check_mean, metric
from shiftbench.evaluation.pair_tests import bootstrap_p, holm
from shiftbench.evaluation.predictions import examples_of
from shiftbench.evaluation.resampling import PAIRED_RESAMPLES, Resampled, over_sets, resample

if TYPE_CHECKING:
    import pyarrow as pa

SIGNIFICANT = 0.05
SAME = "the same runs"
"""Stands for a test where two names are of the same predictions: there is nothing to test."""

Booleans = npt.NDArray[np.bool_]
Seed = int | None
Predictions = Mapping[str, "pa.Table"]
Run = tuple[str, Seed]
Pairs = dict[tuple[str, str], list[tuple[Seed, Seed]]]
"""By two methods, their seeds that belong together."""


@dataclass(frozen=True)
class Difference:
    """The difference between two methods on the same examples.

    Attributes:
        first: its name.
        second: its name.
        value: metric of the first less that of the second, in the metric's unit.
        low: lower end of the 95 % percentile bootstrap interval, of this pair alone.
        high: upper end.
        p: of the hypothesis that they are equal, two-sided.
        adjusted: ``p`` after Holm's correction for all pairs compared together.
        seeds: pairs of runs averaged.
        test: how ``p`` was made, for people; ``SAME`` where there was nothing to test.
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


def align(tables: Mapping[str, pa.Table]) -> dict[str, Examples]:
    """Bring predictions of several models on one evaluation set into the order of the first.

    Args:
        tables: of ``predictions.to_table``, one variant and one set each; the key names the model.

    Returns:
        the examples of each model, all with the metadata of the first.

    Raises:
        InputError: ids or labels differ, or an id occurs twice.
    """
    import pyarrow.compute as pc

    leader, first = next(iter(tables.items()))
    ids, labels = first["id"], first["label"].to_numpy()
    if pc.count_distinct(ids).as_py() < len(ids):
        raise InputError(f"{leader}: an example has several predictions")
    metadata = examples_of(first).metadata
    aligned = {}
    for name, table in tables.items():
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
        aligned[name] = replace(examples_of(table), metadata=metadata)
    return aligned


def compare(
    methods: Mapping[str, Mapping[Seed, Predictions]],
    metrics: Mapping[str, str],
    resamples: int = PAIRED_RESAMPLES,
) -> tuple[Difference, ...]:
    """Compare every pair of methods by a metric's mean over evaluation sets, all on the same data.

    Of several seeds, those that both methods have are paired, and the difference is the mean over
    them: for accuracy, each example counts with its mean difference over seeds. Then examples (or
    locations) are resampled, those of different sets independently of each other.

    One pair of runs on one set is tested by the metric's exact test where it has one (McNemar's for
    accuracy on independent examples); all else by the bootstrap. Two names of the same runs are no
    hypothesis, so they do not count in the correction.

    Args:
        methods: by name and seed, predictions by evaluation set, of one variant. The seed ``None``
            stands for every seed: a run that none can change. A table that two methods share is of
            one run.
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
    pairs: Pairs = {
        (first, second): _paired(first, methods[first], second, methods[second])
        for first, second in itertools.combinations(methods, 2)
    }
    if not pairs:
        return ()
    check_mean(metrics.values())
    sets = {}
    for evaluation_set in metrics:
        for (name, seed), predictions in runs.items():
            if evaluation_set not in predictions:
                raise InputError(f"{_run(name, seed)}: has no predictions on {evaluation_set}")
        tables = {
            f"{_run(name, seed)} on {evaluation_set}": predictions[evaluation_set]
            for (name, seed), predictions in runs.items()
        }
        sets[evaluation_set] = dict(zip(runs, align(tables).values(), strict=True))
    mean = over_sets(
        [
            resample(
                [*models.values()],
                metric(metrics[name]),
                (SEED, zlib.crc32(name.encode())),
                resamples,
            )
            for name, models in sets.items()
        ]
    )
    found: list[Difference] = []
    for _, group in itertools.groupby(pairs, itemgetter(0)):  # of all pairs, draws would be many
        found += _bootstrapped({pair: pairs[pair] for pair in group}, [*runs], mean)
    for index, difference in enumerate(found):
        first, second = difference.first, difference.second
        seeds = pairs[first, second]
        both = [(runs[first, one], runs[second, other]) for one, other in seeds]
        if all(ours[name] is theirs[name] for ours, theirs in both for name in metrics):
            found[index] = replace(difference, p=1.0, adjusted=1.0, test=SAME)
        elif len(sets) == len(seeds) == 1:
            ((name, models),) = sets.items()
            ((one, other),) = seeds
            exact = metric(metrics[name]).pair_test(models[first, one], models[second, other])
            if exact is not None:
                found[index] = replace(difference, p=exact[0], test=exact[1])
    tested = [index for index, difference in enumerate(found) if difference.test != SAME]
    for index, p in zip(tested, holm([found[index].p for index in tested]), strict=True):
        found[index] = replace(found[index], adjusted=float(p))
    return tuple(found)


def _bootstrapped(pairs: Pairs, runs: Sequence[Run], mean: Resampled) -> list[Difference]:
    """The differences of some pairs, each by the bootstrap, without a correction."""
    place = {run: index for index, run in enumerate(runs)}

    @cache
    def average(of_method: tuple[Run, ...]) -> tuple[float, Floats]:
        places = [place[run] for run in of_method]
        return float(mean.values[places].mean()), mean.draws[places].mean(axis=0)

    values, draws = [], []
    for (first, second), seeds in pairs.items():
        ours, our_draws = average(tuple((first, one) for one, _ in seeds))
        theirs, their_draws = average(tuple((second, other) for _, other in seeds))
        values.append(ours - theirs)
        draws.append(our_draws - their_draws)
    rows = np.stack(draws)
    lows, highs = percentiles_of_rows(rows)
    p_values = bootstrap_p(values, rows, mean.units)
    test = f"bootstrap of {mean.units} units"
    return [
        Difference(
            first, second, value, float(low), float(high), float(p), float(p), len(seeds), test
        )
        for ((first, second), seeds), value, low, high, p in zip(
            pairs.items(), values, lows, highs, p_values, strict=True
        )
    ]


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
