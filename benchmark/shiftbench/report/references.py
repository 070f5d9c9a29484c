"""Our results beside published ones of the same task, backbone, method, evaluation set and metric.

A published value is put beside one of ours only where the source names the same number of shots,
method, variant, evaluation set and metric too. Results on miniature data are never compared, and
those on other images than the published ones get no verdict.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow as pa

from shiftbench.data.tasks.definition import beside as beside_the_task
from shiftbench.data.tasks.definition import whole_set
from shiftbench.leaderboard.golden import WHOLE_SETS
from shiftbench.leaderboard.published.cells import joined, without
from shiftbench.leaderboard.published.reading import (
    PublishedLine,
    average_of_cells,
    published_lines,
)
from shiftbench.leaderboard.published.schema import UNCROPPED, PublishedRow, published_rows
from shiftbench.leaderboard.published.settings import StatedSettings
from shiftbench.leaderboard.schema import REAL, task_digest
from shiftbench.report.ranking import ORACLE, Ranking, ScoredMethod
from shiftbench.report.runs import Runs
from shiftbench.report.scale import Scale
from shiftbench.report.scores import MEAN, Estimate
from shiftbench.report.stated import settings_verdict

Agreement = Literal["reproduced", "differs", "not comparable"]

TOLERANCE = 0.005
"""Largest difference in [0, 1] that counts as reproduced, however narrow its interval is."""
ID_VAL = "id-val"
_VALIDATION = (ID_VAL, "ood-val")
_ROUNDING = 1e-9  # of a difference between decimals


@dataclass(frozen=True)
class PublishedValue:
    """A published value beside one of ours.

    Attributes:
        value: in [0, 1].
        source: the work, and the table in it.
        second_hand: whether another work quotes it.
        note: what to know before comparing.
        difference: ours minus published.
        low: lower end of its 95 % interval; ``None`` where ours has none.
        high: upper end.
        verdict: what to make of it.
        settings: whether ours are those behind it.
    """

    value: float
    source: str
    second_hand: bool
    note: str | None
    difference: float
    low: float | None
    high: float | None
    verdict: Agreement
    settings: str


@dataclass(frozen=True)
class Comparison:
    """One of our scores, with all that was published of it.

    Attributes:
        task: its name.
        backbone: its name.
        shots: training images per class; ``None`` for all.
        label: what the suite calls the method, with what tells it from a namesake.
        variant: of the method, or ``id-val`` for the one chosen on ID validation.
        evaluation_set: its name.
        metric: the set's headline metric.
        scale: of its values.
        ours: mean over seeds.
        published: originals first; empty when nothing is published.
        remark: why there is no verdict, or what else to know of ours.
    """

    task: str
    backbone: str
    shots: int | None
    label: str
    variant: str
    evaluation_set: str
    metric: str
    scale: Scale
    ours: Estimate
    published: tuple[PublishedValue, ...]
    remark: str | None = None


def compare(
    rankings: Sequence[Ranking],
    published: pa.Table,
    runs: Runs,
    stated: StatedSettings,
    tolerance: float = TOLERANCE,
) -> list[Comparison]:
    """Put published values beside each of our scores.

    Of a curve all points are compared that something is published about, and those that were
    selected also where nothing is. Values of a hyper-parameter search are no reference.

    Args:
        rankings: of all rows; only those of real data are compared.
        published: as ``read_published`` gives it.
        runs: those of the rankings, with all that they build on.
        stated: settings that sources state.
        tolerance: in [0, 1]; a score is reproduced when its difference is at most this, or at most
            half the width of the 95 % interval of the difference.
    """
    real = [ranking for ranking in rankings if ranking.data_kind == REAL]
    chosen = {
        (_setting(ranking), method.label, variant)
        for ranking in real
        for method in ranking.methods
        if method.selection != ORACLE
        for variant in method.variants
    }
    points: list[tuple[Ranking, ScoredMethod, Key]] = [
        (r, v, Key.of(v, r, v.variant, None)) for r in real for v in r.variants
    ]
    points += [
        (r, m, Key.of(m, r, "", ID_VAL)) for r in real for m in r.methods if m.selection == ID_VAL
    ]
    index = _Published.of(published)
    found: dict[tuple[Any, ...], Comparison] = {}
    for ranking, method, key in points:
        for name, estimate in method.scores.with_mean().items():
            if name in _VALIDATION or name != whole_set(name) or beside_the_task(name):
                continue
            rows = index.find(ranking, name, key)
            selected = (_setting(ranking), method.label, key.variant) in chosen
            if not rows and (name == MEAN or not selected):
                continue
            obstacle = _obstacle(ranking, method, name)
            family = runs.family(method.members[0].run_id)
            comparison = Comparison(
                task=ranking.task,
                backbone=ranking.backbone,
                shots=key.shots,
                label=method.label,
                variant=key.selection or key.variant,
                evaluation_set=name,
                metric=ranking.metrics.get(name, MEAN),
                scale=ranking.scale_on(name),
                ours=estimate,
                published=tuple(
                    beside(
                        estimate,
                        row,
                        settings_verdict(row, family, stated),
                        tolerance,
                        comparable=obstacle is None,
                    )
                    for row in rows
                ),
                remark=joined(
                    None if rows else stated.nothing_published.get(method.method),
                    obstacle or _definition(ranking),
                    _held_out(method),
                ),
            )
            # The zero-shot line stands beside every number of shots, but is compared once.
            place = (*_setting(ranking)[:-1], key.shots, method.label, comparison.variant, name)
            found.setdefault(place, comparison)
    return sorted(found.values(), key=lambda c: (c.task, c.backbone, c.shots or math.inf))


def beside(
    ours: Estimate,
    row: PublishedRow,
    settings: str,
    tolerance: float = TOLERANCE,
    *,
    comparable: bool = True,
) -> PublishedValue:
    """A published row beside our estimate, and whether our settings are those behind it.

    The interval of the difference is ours, and that of the published value added in squares: the
    one that the source gives, or that of a proportion of ``n`` images where it gives ``n``.
    """
    value = row.value
    difference = ours.mean - value
    low = high = None
    if ours.low is not None and ours.high is not None:
        from shiftbench.evaluation.intervals import of_difference

        low, high = of_difference(
            (ours.mean, ours.low, ours.high), (value, *_published_interval(row))
        )
    verdict: Agreement = "not comparable"
    if comparable:
        half = 0.0 if low is None or high is None else (high - low) / 2
        within = abs(difference) <= max(tolerance, half) + _ROUNDING
        verdict = "reproduced" if within else "differs"
    return PublishedValue(
        value=value,
        source=row.source,
        second_hand=row.kind != "original",
        note=row.note,
        difference=difference,
        low=low,
        high=high,
        verdict=verdict,
        settings=settings,
    )


@dataclass(frozen=True)
class Key:
    """The facts that a published row must share with a method of ours to be about it.

    ``selection`` is given where the variant was chosen: such a row does not name a variant.
    """

    method: str
    parents: tuple[str, ...]
    variant: str
    selection: str | None
    shots: int | None

    @classmethod
    def of(cls, method: ScoredMethod, ranking: Ranking, variant: str, selection: str | None) -> Key:
        """Of a method in a ranking; ``selection`` only where it chose the variant."""
        shots = None if method.reference else ranking.shots
        return cls(method.method, method.parents, variant, selection, shots)

    def fits(self, row: PublishedRow) -> bool:
        """True if the row is about this method."""
        if row.method != self.method or row.parent not in (None, *self.parents):
            return False
        if row.variant is not None:
            return self.selection is None and row.variant == self.variant
        return self.variant == "" and row.selection == self.selection


@dataclass(frozen=True)
class _Published:
    """Published rows and lines, by all that they must share with ours but the method."""

    rows: Mapping[tuple[Any, ...], Sequence[PublishedRow]]
    lines: Mapping[tuple[Any, ...], Sequence[PublishedLine]]

    @classmethod
    def of(cls, table: pa.Table) -> _Published:
        rows: dict[tuple[Any, ...], list[PublishedRow]] = defaultdict(list)
        lines: dict[tuple[Any, ...], list[PublishedLine]] = defaultdict(list)
        own = table.filter(table["config"].is_null())  # others are points of a search
        for row in published_rows(own):
            place = (row.task, row.backbone, row.shots)
            rows[*place, row.evaluation_set, row.metric].append(row)
        for line in published_lines(own):
            lines[line.first.task, line.first.backbone, line.first.shots].append(line)
        return cls(rows, lines)

    def find(self, ranking: Ranking, name: str, key: Key) -> list[PublishedRow]:
        """The rows of a set, or the means over shifts of whole lines; originals first."""
        place = (ranking.task, ranking.backbone, key.shots)
        if name == MEAN:
            found = [self._mean(line, _all_shifts(ranking)) for line in self.lines.get(place, ())]
        else:
            found = [*self.rows.get((*place, name, ranking.metrics[name]), ())]
        fitting = [row for row in found if row is not None and key.fits(row)]
        return sorted(fitting, key=lambda row: row.kind != "original")

    @staticmethod
    def _mean(line: PublishedLine, shifts: Sequence[str]) -> PublishedRow | None:
        """A row as if the line's mean over some shifts were a value of it."""
        mean = average_of_cells(line.cells, shifts) if len(shifts) > 1 else None
        if mean is None:
            return None
        uncropped = UNCROPPED if line.uncropped and "objectnet" in shifts else None
        return replace(
            line.first,
            evaluation_set=MEAN,
            metric=MEAN,
            value=mean,
            low=None,
            high=None,
            n=None,
            note=joined(without(line.first.note, UNCROPPED), uncropped),
        )


def _setting(ranking: Ranking) -> tuple[Any, ...]:
    return (
        *(ranking.task, ranking.task_digest, ranking.backbone, ranking.images),
        ranking.shots,
    )


def _obstacle(ranking: Ranking, method: ScoredMethod, name: str) -> str | None:
    """Why our score cannot be compared, if it cannot: its images are not the published ones."""
    if name == MEAN:
        obstacles = (_obstacle(ranking, method, shift) for shift in ranking.shifts)
        return next(filter(None, obstacles), None)
    ours = method.scores.by_set[name]
    whole = WHOLE_SETS.get((ranking.task, name))
    if whole is not None and ours.n != (whole,):
        return f"{min(ours.n):,} of {whole:,} images" if ours.n else "unknown images"
    if ranking.images is not None and whole is None:
        return f"at most {ranking.images:,} images"
    return None if ours.complete else "incomplete data"


def _all_shifts(ranking: Ranking) -> tuple[str, ...]:
    """The shifts whose mean papers give: none, where the ranking's are others."""
    from shiftbench.data.tasks.registry import builtin_tasks

    task = builtin_tasks().get(ranking.task)
    same = task is not None and {*task.shifts} == {*ranking.shifts}
    return ranking.shifts if same else ()


def _definition(ranking: Ranking) -> str | None:
    from shiftbench.data.tasks.registry import builtin_tasks

    task = builtin_tasks().get(ranking.task)
    if task is None or task_digest(task) == ranking.task_digest:
        return None
    return "the task is not defined as the built-in one"


def _held_out(method: ScoredMethod) -> str | None:
    """A line on training images that papers train on and ours did not."""
    if not method.held_out:
        return None
    return f"{method.held_out:.0%} of the training images are held out for validation"


def _published_interval(row: PublishedRow) -> tuple[float, float]:
    """Ends of the 95 % interval of a published value; the value itself where nothing is known."""
    value = row.value
    if row.low is not None and row.high is not None:
        return row.low, row.high
    if row.n is None or row.metric != "accuracy":
        return value, value
    from shiftbench.evaluation.intervals import clopper_pearson

    low, high = clopper_pearson(round(value * row.n), row.n)
    return min(float(low), value), max(float(high), value)
