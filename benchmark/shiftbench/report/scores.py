"""Scores of runs that differ in nothing but their seed: means with their intervals."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from shiftbench.leaderboard.schema import Row

STUDENT = "Student's t over seeds"
OF_SETS = "from the intervals of the sets"
BOOTSTRAP = "bootstrap of examples, each set on its own"
MEAN = "mean OOD"
"""Stands for the mean over shifts where names of evaluation sets are."""


@dataclass(frozen=True)
class Member:
    """A run that a mean is taken over, with the variant of it that counts."""

    run_id: str
    variant: str
    seed: int


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: in the unit of the metric; accuracies are in [0, 1].
        sd: standard deviation over seeds (n - 1); ``None`` for one seed.
        low: lower end of the 95 % interval: Student's t over seeds, or with one seed, and where no
            seed changes the value, that of the examples; ``None`` where neither exists.
        high: upper end.
        seeds: those averaged.
        interval: which kind of interval it is; ``None`` where there is none.
        n: sizes of the evaluation set; several where seeds had different ones.
        complete: whether all data were there, and the same for every seed.
        remark: why it is not the whole truth; ``None`` when it is.
        values: of each of ``seeds``, where the mean is over them.
    """

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    seeds: tuple[int, ...]
    interval: str | None = None
    n: tuple[int, ...] = ()
    complete: bool = True
    remark: str | None = None
    values: tuple[float, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class Scores:
    """Headline scores of runs that differ only in their seed, averaged.

    Attributes:
        by_set: headline metric by evaluation set.
        mean_ood: mean over all shifts of the task; ``None`` when one is missing or incomplete, or
            the shifts' metrics have no common scale.
        missing: the shifts that are missing or incomplete.
        only: the task's shift, where it has just one.
    """

    by_set: Mapping[str, Estimate]
    mean_ood: Estimate | None
    missing: tuple[str, ...]
    only: str | None = None

    def get(self, set_name: str) -> Estimate | None:
        """The score on an evaluation set, or over all shifts for ``MEAN``.

        The score of a single shift is the mean, also where it has a remark and does not rank.
        """
        if set_name != MEAN:
            return self.by_set.get(set_name)
        if self.mean_ood is None and self.only is not None:
            return self.by_set.get(self.only)
        return self.mean_ood

    def with_mean(self) -> dict[str, Estimate]:
        """The scores by evaluation set, and by ``MEAN`` where there is one."""
        mean = {} if self.mean_ood is None else {MEAN: self.mean_ood}
        return {**self.by_set, **mean}


def average(
    of_members: Mapping[Member, Mapping[str, Row]], shifts: Sequence[str], averaged: Collection[str]
) -> Scores:
    """Scores over seeds, on every set and in the mean.

    Args:
        of_members: headline rows by evaluation set, of each run.
        shifts: of the task.
        averaged: the sets that the mean is over: the shifts, or none.
    """
    sets = dict.fromkeys(name for rows in of_members.values() for name in rows)
    by_set = {
        name: _of_set([rows[name] for rows in of_members.values() if name in rows], len(of_members))
        for name in sets
    }
    missing = tuple(s for s in shifts if s not in by_set or by_set[s].remark is not None)
    mean_ood = None
    if averaged and not missing:
        means = [
            float(np.mean([row.value for name, row in rows.items() if name in averaged]))
            for rows in of_members.values()
        ]
        mean_ood = over_seeds(means, [member.seed for member in of_members])
        if len(shifts) == 1:
            mean_ood = by_set[shifts[0]]
        elif mean_ood.interval is None:
            mean_ood = _with_interval(mean_ood, [by_set[name] for name in shifts])
    return Scores(by_set, mean_ood, missing, shifts[0] if len(shifts) == 1 else None)


def _with_interval(mean: Estimate, parts: Sequence[Estimate]) -> Estimate:
    """The mean over independent sets with the interval that follows from those of the sets."""
    from shiftbench.evaluation.intervals import of_mean

    ends = [(part.mean, part.low, part.high) for part in parts]
    known = [(mean, low, high) for mean, low, high in ends if low is not None and high is not None]
    if len(known) < len(ends):
        return mean
    low, high = of_mean(*zip(*known, strict=True))
    return replace(mean, low=low, high=high, interval=OF_SETS)


def _of_set(rows: Sequence[Row], runs: int) -> Estimate:
    """Mean over the runs of one evaluation set, which not all of them need have."""
    estimate = over_seeds([row.value for row in rows], [row.seed for row in rows])
    if estimate.interval is None:
        low, high = min(row.low for row in rows), max(row.high for row in rows)
        estimate = replace(estimate, low=low, high=high, interval=rows[0].interval)
    complete = all(row.complete for row in rows)
    same = len({(row.n, row.data_fingerprint) for row in rows}) == 1
    reasons = sorted({row.incomplete_reason for row in rows if row.incomplete_reason})
    if len(rows) < runs:
        reasons.append(f"only {len(rows)} of {runs} seeds")
    if not same and not reasons:
        reasons.append("seeds were evaluated on different data")
    if not complete and not reasons:
        reasons.append("incomplete data")
    return replace(
        estimate,
        n=tuple(sorted({row.n for row in rows if row.n is not None})),
        complete=complete and same,
        remark="; ".join(reasons) or None,
    )


def over_seeds(values: Sequence[float], seeds: Sequence[int]) -> Estimate:
    """The mean of a value for each seed, with Student's interval where the seeds differ."""
    mean = float(np.mean(values))
    order = sorted(range(len(seeds)), key=lambda k: seeds[k])
    of, each = tuple(seeds[k] for k in order), tuple(values[k] for k in order)
    if len(values) < 2:
        return Estimate(mean, None, None, None, of, values=each)
    if not vary(values):
        return Estimate(mean, 0.0, None, None, of, values=each)
    from shiftbench.evaluation.intervals import student_t

    low, high = student_t(values)
    return Estimate(
        mean, float(np.std(values, ddof=1)), float(low), float(high), of, STUDENT, values=each
    )


def vary(values: Sequence[float]) -> bool:
    """True if the values of several seeds differ by more than rounding.

    Of equal ones Student's t would be an interval without width, as if nothing were unknown: what
    no seed changes is as sure as its examples make it.
    """
    return float(np.ptp(values)) >= 1e-12
