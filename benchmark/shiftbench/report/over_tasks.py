"""Methods over several tasks: means of the tasks' own scores."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from shiftbench.data.tasks.definition import ID_TEST, NEW
from shiftbench.report.ranking import RankedMethod, Ranking, grouped, name_of, shared_ranks
from shiftbench.report.scale import Scale
from shiftbench.report.scores import OF_SETS, STUDENT, Estimate


@dataclass(frozen=True)
class OverallMethod:
    """A method over all tasks: means of the tasks' own means.

    Attributes:
        rank: from 1, shared by equal means.
        label: what the suite calls it.
        selection: how its variants were chosen.
        id_test: mean over tasks.
        mean_ood: mean over tasks of their means over shifts.
        shifts: score on every shift of every task.
        cost_seconds: sum over tasks; ``None`` when one is not known.
    """

    rank: int
    label: str
    selection: str
    id_test: Estimate
    mean_ood: Estimate
    shifts: Mapping[str, Estimate]
    cost_seconds: float | None

    @property
    def name(self) -> str:
        """Its label, with the selection where that is not ``fixed``; unique in the ranking."""
        return name_of(self.label, self.selection)


@dataclass(frozen=True)
class OverallRanking:
    """The methods that rank in every one of several tasks.

    Attributes:
        data_kind: ``real`` or ``miniature/<version>``.
        backbone: its name.
        shots: training images per class; ``None`` for all.
        images: most images that a set was evaluated on; ``None`` for all.
        tasks: averaged over.
        scale: that all tasks rank on.
        methods: best first.
    """

    data_kind: str
    backbone: str
    shots: int | None
    images: int | None
    tasks: tuple[str, ...]
    scale: Scale
    methods: tuple[OverallMethod, ...]


@dataclass(frozen=True)
class BaseToNew:
    """A method on tasks that are split by classes.

    Attributes:
        backbone: its name.
        shots: training images per class; ``None`` for all.
        label: what the suite calls the method.
        selection: how its variants were chosen.
        base: mean over tasks of the score on base classes.
        new: the same of new classes.
        harmonic_mean: of these two averages, as it is published (not the mean of tasks' own); its
            interval is as wide as if they always moved together.
    """

    backbone: str
    shots: int | None
    label: str
    selection: str
    base: Estimate
    new: Estimate
    harmonic_mean: Estimate

    @property
    def name(self) -> str:
        """Its label, with the selection where that is not ``fixed``."""
        return name_of(self.label, self.selection)


def overall(rankings: Sequence[Ranking]) -> list[OverallRanking]:
    """Rank over tasks the methods that rank in all of them, where there are several tasks.

    Only tasks whose shifts and ID test set are all on one scale are averaged.
    """
    results = []
    able = [r for r in rankings if r.shifts and r.scale and _scale_of_id(r) == r.scale]
    groups = grouped(able, lambda r: (r.data_kind, r.backbone, r.shots, r.images, r.scale))
    for (data_kind, backbone, shots, images, scale), of_tasks in groups.items():
        tasks = tuple(ranking.task for ranking in of_tasks)
        if len(tasks) < 2 or len(set(tasks)) < len(tasks):
            continue
        by_method: dict[tuple[str, str], list[RankedMethod]] = defaultdict(list)
        for ranking in of_tasks:
            for method in ranking.methods:
                if method.rank is not None and ID_TEST in method.scores.by_set:
                    by_method[method.label, method.selection].append(method)
        common = [
            _overall(label, selection, methods, of_tasks)
            for (label, selection), methods in by_method.items()
            if len(methods) == len(of_tasks)
        ]
        if common:
            gains = {
                m.name: (scale.gain(m.mean_ood.mean), scale.gain(m.id_test.mean)) for m in common
            }
            common.sort(key=lambda m: (*(-gain for gain in gains[m.name]), m.label))
            places = shared_ranks([gains[method.name][0] for method in common])
            ranked = (replace(m, rank=place) for place, m in zip(places, common, strict=True))
            results.append(
                OverallRanking(data_kind, backbone, shots, images, tasks, scale, tuple(ranked))
            )
    return results


def base_to_new(rankings: Sequence[Ranking]) -> list[BaseToNew]:
    """The methods that all split tasks of a backbone and number of shots have, best first."""
    split = [r for r in rankings if r.shifts == (NEW,)]
    found = []
    for backbone, shots in dict.fromkeys((r.backbone, r.shots) for r in split):
        tasks = [r for r in split if (r.backbone, r.shots) == (backbone, shots)]
        scores: dict[tuple[str, str], list[tuple[Estimate, Estimate]]] = defaultdict(list)
        for ranking in tasks:
            for method in ranking.methods:
                id_test, mean = method.scores.get(ID_TEST), method.scores.mean_ood
                if method.rank is not None and id_test is not None and mean is not None:
                    scores[method.label, method.selection].append((id_test, mean))
        for (label, selection), pairs in scores.items():
            if len(pairs) == len(tasks):
                base, new = (mean_of(of) for of in zip(*pairs, strict=True))
                of_both = _harmonic(base, new)
                found.append(BaseToNew(backbone, shots, label, selection, base, new, of_both))
    return sorted(found, key=lambda m: (m.backbone, m.shots or 0, -m.harmonic_mean.mean, m.label))


def harmonic_mean(base: float, new: float) -> float:
    """2 · base · new / (base + new); 0 when both are."""
    return 2 * base * new / (base + new) if base + new else 0.0


def _harmonic(base: Estimate, new: Estimate) -> Estimate:
    """The harmonic mean of two estimates; where both move together, no interval is wider."""
    mean, total = harmonic_mean(base.mean, new.mean), base.mean + new.mean
    seeds = tuple(sorted({*base.seeds} & {*new.seeds}))
    if total <= 0:
        return Estimate(mean, None, None, None, seeds)
    ends = [
        mean
        + 2 * (new.mean**2 * (of_base - base.mean) + base.mean**2 * (of_new - new.mean)) / total**2
        for of_base, of_new in ((base.low, new.low), (base.high, new.high))
        if of_base is not None and of_new is not None
    ]
    if len(ends) < 2:
        return Estimate(mean, None, None, None, seeds)
    return Estimate(mean, None, ends[0], ends[1], seeds, base.interval)


def _scale_of_id(ranking: Ranking) -> Scale | None:
    return ranking.scale_on(ID_TEST) if ID_TEST in ranking.metrics else None


def _overall(
    label: str, selection: str, methods: Sequence[RankedMethod], of_tasks: Sequence[Ranking]
) -> OverallMethod:
    oods = [m.scores.mean_ood or m.scores.by_set[ID_TEST] for m in methods]
    costs = [method.cost_seconds for method in methods]
    names = [shift for ranking in of_tasks for shift in ranking.shifts]
    shifts = {
        shift if names.count(shift) == 1 else f"{ranking.task} {shift}": method.scores.by_set[shift]
        for ranking, method in zip(of_tasks, methods, strict=True)
        for shift in ranking.shifts
    }
    return OverallMethod(
        rank=0,
        label=label,
        selection=selection,
        id_test=mean_of([method.scores.by_set[ID_TEST] for method in methods]),
        mean_ood=mean_of(oods),
        shifts=shifts,
        cost_seconds=None if None in costs else sum(cost for cost in costs if cost is not None),
    )


def mean_of(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of independent estimates with its 95 % interval.

    Where each is over seeds that differ, that is Student's t over seeds, with the degrees of
    freedom of Welch and Satterthwaite; else it follows from the intervals of each.
    """
    from shiftbench.evaluation.intervals import of_mean

    mean = float(np.mean([estimate.mean for estimate in estimates]))
    seeds = tuple(sorted(set.intersection(*(set(e.seeds) for e in estimates))))
    spreads = [(e.sd**2 / len(e.seeds), len(e.seeds) - 1) for e in estimates if e.sd]
    ends = [(e.mean, e.low, e.high) for e in estimates if e.low is not None and e.high is not None]
    if len(spreads) == len(estimates):
        half = _half_width(spreads) / len(estimates)
        return Estimate(mean, None, mean - half, mean + half, seeds, STUDENT)
    if len(ends) == len(estimates):
        low, high = of_mean(*zip(*ends, strict=True))
        return Estimate(mean, None, low, high, seeds, OF_SETS)
    return Estimate(mean, None, None, None, seeds)


def _half_width(spreads: Sequence[tuple[float, int]]) -> float:
    """Half of the 95 % interval of a sum of means, of each its variance and degrees of freedom."""
    from scipy.special import stdtrit

    total = sum(variance for variance, _ in spreads)
    freedom = total**2 / sum(variance**2 / n for variance, n in spreads)
    return float(stdtrit(freedom, 0.975)) * math.sqrt(total)
