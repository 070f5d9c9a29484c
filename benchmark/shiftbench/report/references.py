"""Our results beside published ones of the same cell, as pure functions of both tables.

A cell is a task, backbone, number of shots, method with its variant, evaluation set and metric. A
published value is put beside it only where the source names the same; values of the miniature world
are never compared, and those on other images than the published ones get no verdict.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from shiftbench.core.errors import InputError
from shiftbench.data.tasks.definition import ID_TEST, whole_set
from shiftbench.leaderboard.published import (
    PublishedLine,
    average_of_cells,
    published_lines,
    read_published,
)
from shiftbench.leaderboard.schema import digest
from shiftbench.report.curves import MEAN, by_variant, with_column, with_mean
from shiftbench.report.ranking import ORACLE, Estimate, Line, Ranking, rankings

Row = Mapping[str, Any]
Verdict = Literal["reproduced", "differs", "not comparable"]

REAL = "real"
TOLERANCE = 0.005
"""Largest difference in [0, 1] that counts as reproduced, however narrow its interval is."""
GOLDEN_TOLERANCE = 0.01
GOLDEN_COLLECTION = "openclip-zero-shot"
GOLDEN_SETS = (
    *(("imagenet", name) for name in (ID_TEST, "imagenet-v2", "imagenet-r")),
    *(("imagenet", name) for name in ("imagenet-sketch", "imagenet-a")),
    ("iwildcam", "iwildcam-ood"),
    ("fmow", "fmow-ood"),
)
"""Where open_clip's zero-shot table has our images, class names and templates.

ObjectNet is not among them because of its class names there, nor CIFAR-10 because of its templates.
"""
IMAGES = {
    ("imagenet", ID_TEST): 50_000,
    ("imagenet", "imagenet-v2"): 10_000,
    ("imagenet", "imagenet-r"): 30_000,
    ("imagenet", "imagenet-sketch"): 50_889,
    ("imagenet", "objectnet"): 18_574,
    ("imagenet", "imagenet-a"): 7_500,
    ("cifar10", ID_TEST): 10_000,
    ("cifar10", "cifar10.1"): 2_000,
    ("cifar10", "cifar10.2"): 2_000,
    ("iwildcam", ID_TEST): 8_154,
    ("iwildcam", "iwildcam-ood"): 42_791,
    ("fmow", "fmow-ood"): 22_108,
}
"""Size of the whole evaluation set, where it is documented."""

ID_VAL = "id-val"
_VALIDATION = (ID_VAL, "ood-val")
ZERO_SHOT = "zero-shot"
_SEPARATOR = " over "
_UNKNOWN = "?"
_ROUNDING = 1e-9  # of a difference between decimals


@dataclass(frozen=True)
class Reference:
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
    """

    value: float
    source: str
    second_hand: bool
    note: str | None
    difference: float
    low: float | None
    high: float | None
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """One of our cells, with all that was published of it.

    Attributes:
        task: its name.
        backbone: its name.
        shots: training images per class; ``None`` for all.
        label: what the suite calls the method, with what tells it from a namesake.
        variant: of the method, or ``id-val`` for the one chosen on ID validation.
        evaluation_set: its name.
        metric: the set's headline metric.
        ours: mean over seeds.
        references: originals first; empty when nothing is published.
        remark: why there is no verdict, or what else to know of ours.
    """

    task: str
    backbone: str
    shots: int | None
    label: str
    variant: str
    evaluation_set: str
    metric: str
    ours: Estimate
    references: tuple[Reference, ...]
    remark: str | None = None


def compare(table: pa.Table, published: pa.Table, tolerance: float = TOLERANCE) -> list[Comparison]:
    """Put published values beside each of our cells.

    Of a curve all points are compared that something is published about, and those that were
    selected also where nothing is. Values of a hyper-parameter search are no reference.

    Args:
        table: rows of the leaderboard; all their ancestors should be among them.
        published: as ``read_published`` gives it.
        tolerance: in [0, 1]; a cell is reproduced when its difference is at most this, or at most
            half the width of the 95 % interval of the difference.
    """
    named = _with_parents(_only_real(table))
    made = rankings(named)
    chosen = {
        (_setting(ranking), line.label, variant)
        for ranking, line in _lines(made)
        for variant in line.variants
    }
    index = _Published.of(published)
    images = _images(named)
    found: dict[tuple[Any, ...], Comparison] = {}
    points = ((r, line, _Key.of(line, r)) for r, line in _lines(rankings(by_variant(named))))
    id_val = (
        (r, line, _Key.of(line, r, ID_VAL)) for r, line in _lines(made) if line.selection == ID_VAL
    )
    for ranking, line, key in (*points, *id_val):
        for name, estimate in with_mean(line).items():
            if name in _VALIDATION or name != whole_set(name):
                continue
            metric = ranking.metrics.get(name, MEAN)
            rows = index.find(ranking, name, key)
            selected = (_setting(ranking), line.label, key.variant) in chosen
            if not rows and (name == MEAN or not selected):
                continue
            obstacle = _obstacle(ranking, name, estimate, images)
            comparison = Comparison(
                task=ranking.task,
                backbone=ranking.backbone,
                shots=key.shots,
                label=line.label,
                variant=key.selection or key.variant,
                evaluation_set=name,
                metric=metric,
                ours=estimate,
                references=tuple(
                    reference(estimate, row, tolerance, comparable=obstacle is None) for row in rows
                ),
                remark=obstacle or _definition(ranking),
            )
            # The zero-shot line stands beside every number of shots, but is compared once.
            place = (*_setting(ranking)[:-1], key.shots, line.label, comparison.variant, name)
            found.setdefault(place, comparison)
    return sorted(found.values(), key=lambda c: (c.task, c.backbone, c.shots or math.inf))


def reference(
    ours: Estimate, row: Row, tolerance: float = TOLERANCE, *, comparable: bool = True
) -> Reference:
    """A published row beside our estimate.

    The interval of the difference is ours, and that of the published value added in squares: the
    one that the source gives, or that of a proportion of ``n`` images where it gives ``n``.
    """
    value = row["value"]
    difference = ours.mean - value
    low = high = None
    if ours.low is not None and ours.high is not None:
        published_low, published_high = _published_interval(row)
        low = difference - math.hypot(ours.mean - ours.low, published_high - value)
        high = difference + math.hypot(ours.high - ours.mean, value - published_low)
    verdict: Verdict = "not comparable"
    if comparable:
        half = 0.0 if low is None or high is None else (high - low) / 2
        within = abs(difference) <= max(tolerance, half) + _ROUNDING
        verdict = "reproduced" if within else "differs"
    return Reference(
        value=value,
        source=row["source"],
        second_hand=row["kind"] != "original",
        note=row["note"],
        difference=difference,
        low=low,
        high=high,
        verdict=verdict,
    )


def golden_faults(
    table: pa.Table, published: pa.Table | None = None, tolerance: float = GOLDEN_TOLERANCE
) -> list[str]:
    """The zero-shot cells that are not as in open_clip's own table, a line for each.

    Nothing is trained for them, so a fault means other data, preprocessing, prompts or weights than
    everybody's. Only whole sets of ``GOLDEN_SETS`` are checked; an empty list is also what a table
    without any of them gives.

    Args:
        table: rows of the leaderboard.
        published: as ``read_published`` gives it; by default that, and nothing is checked where
            there are no published results.
        tolerance: largest difference in [0, 1] that is no fault.
    """
    cells = _golden_cells(table)
    if not cells:
        return []
    if published is None:
        try:
            published = read_published()
        except InputError:
            return []
    golden = {
        (row["task"], row["backbone"], row["evaluation_set"], row["metric"]): row["value"]
        for row in published.to_pylist()
        # The table has a worst region of 0 for one backbone, which says nothing of its other cells.
        if row["collection"] == GOLDEN_COLLECTION and row["value"] > 0
    }
    faults: dict[str, None] = {}
    for row in cells:
        cell = (row["task"], row["backbone"], row["evaluation_set"], row["metric"])
        if cell not in golden or abs(row["value"] - golden[cell]) <= tolerance:
            continue
        faults.setdefault(
            f"zero-shot {row['backbone']} on {row['evaluation_set']}: {100 * row['value']:.2f} %, "
            f"but {100 * golden[cell]:.2f} % in open_clip's table "
            f"(tolerance {100 * tolerance:.1f} points)"
        )
    return list(faults)


def _golden_cells(table: pa.Table) -> list[Mapping[str, Any]]:
    """The zero-shot rows of whole sets that open_clip's table has too."""
    rows = table.filter((pc.field("data_kind") == REAL) & (pc.field("method") == ZERO_SHOT))
    return [
        row
        for row in rows.to_pylist()
        if row["status"] == "done"
        and row["primary"]
        and row["complete"]
        and (row["task"], row["evaluation_set"]) in GOLDEN_SETS
        and row["n"] == IMAGES.get((row["task"], row["evaluation_set"]))
    ]


def left_out(table: pa.Table) -> int:
    """Runs that are not compared, because they are of the miniature data."""
    return len({row["run_id"] for row in table.to_pylist() if row["data_kind"] != REAL})


@dataclass(frozen=True)
class _Key:
    """What a published row must say of its method to be about a line of ours.

    ``selection`` is given for a line whose variant was chosen: such a row does not name a variant.
    """

    method: str
    parents: tuple[str, ...]
    variant: str
    selection: str | None
    shots: int | None

    @classmethod
    def of(cls, line: Line, ranking: Ranking, selection: str | None = None) -> _Key:
        method, *parents = line.method.split(_SEPARATOR)
        shots = None if method == ZERO_SHOT else ranking.shots
        variant = line.selection if selection is None else ""
        return cls(method, tuple(parents), variant, selection, shots)

    def fits(self, row: Row) -> bool:
        """Whether the row is about this line."""
        if row["method"] != self.method or row["parent"] not in (None, *self.parents):
            return False
        if row["variant"] is not None:
            return self.selection is None and bool(row["variant"] == self.variant)
        return self.variant == "" and bool(row["selection"] == self.selection)


@dataclass(frozen=True)
class _Published:
    """Published rows by all of a cell but its method, and lines by all but that and the cell."""

    rows: Mapping[tuple[Any, ...], Sequence[Row]]
    lines: Mapping[tuple[Any, ...], Sequence[PublishedLine]]

    @classmethod
    def of(cls, table: pa.Table) -> _Published:
        rows: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
        lines: dict[tuple[Any, ...], list[PublishedLine]] = defaultdict(list)
        own = table.filter(table["config"].is_null())  # others are points of a search
        for row in own.to_pylist():
            place = (row["task"], row["backbone"], row["shots"])
            rows[*place, row["evaluation_set"], row["metric"]].append(row)
        for line in published_lines(own):
            lines[line.first["task"], line.first["backbone"], line.first["shots"]].append(line)
        return cls(rows, lines)

    def find(self, ranking: Ranking, name: str, key: _Key) -> list[Row]:
        """The rows of a line's cell, or the means over shifts of whole lines; originals first."""
        place = (ranking.task, ranking.backbone, key.shots)
        if name == MEAN:
            found = [self._mean(line, _all_shifts(ranking)) for line in self.lines.get(place, ())]
        else:
            found = [*self.rows.get((*place, name, ranking.metrics[name]), ())]
        fitting = [row for row in found if row is not None and key.fits(row)]
        return sorted(fitting, key=lambda row: bool(row["kind"] != "original"))

    @staticmethod
    def _mean(line: PublishedLine, shifts: Sequence[str]) -> Row | None:
        """A row as if the line's mean over some shifts were a cell of it."""
        mean = average_of_cells(line.cells, shifts) if len(shifts) > 1 else None
        if mean is None:
            return None
        of_mean = {"evaluation_set": MEAN, "metric": MEAN, "value": mean}
        return {**line.first, **of_mean, "low": None, "high": None, "n": None}


def _only_real(table: pa.Table) -> pa.Table:
    import pyarrow.compute as pc

    return table.filter(pc.equal(table["data_kind"], REAL))


def _with_parents(table: pa.Table) -> pa.Table:
    """The methods named with those of their parents: WiSE-FT over what is part of its name."""
    rows = table.to_pylist()
    method_of = {row["run_id"]: row["method"] for row in rows}
    return with_column(
        table,
        "method",
        [
            _SEPARATOR.join(
                [row["method"], *(method_of.get(p["run_id"], _UNKNOWN) for p in row["parents"])]
            )
            for row in rows
        ],
    )


def _lines(found: Sequence[Ranking]) -> list[tuple[Ranking, Line]]:
    """All lines but the oracles."""
    return [(r, line) for r in found for line in r.lines if line.selection != ORACLE]


def _setting(ranking: Ranking) -> tuple[Any, ...]:
    return (
        *(ranking.task, ranking.task_digest, ranking.backbone, ranking.images),
        ranking.shots,
    )


def _images(table: pa.Table) -> dict[tuple[Any, ...], set[int]]:
    """How many images a set of a task was evaluated on, by the run's limit."""
    found: dict[tuple[Any, ...], set[int]] = defaultdict(set)
    for row in table.to_pylist():
        if row["n"] is not None:
            limit = json.loads(row["budget"]).get("evaluation_images")
            place = (row["task"], row["task_digest"], row["backbone"], limit)
            found[*place, row["evaluation_set"]].add(row["n"])
    return found


def _obstacle(
    ranking: Ranking, name: str, ours: Estimate, images: Mapping[tuple[Any, ...], set[int]]
) -> str | None:
    """Why our cell cannot be compared, if it cannot: its images are not the published ones."""
    if name == MEAN:
        return next(
            filter(None, (_obstacle(ranking, s, ours, images) for s in ranking.shifts)), None
        )
    counts = images[*_setting(ranking)[:-1], name]
    whole = IMAGES.get((ranking.task, name))
    if whole is not None and counts != {whole}:
        return f"{min(counts):,} of {whole:,} images" if counts else "unknown images"
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
    if task is None or digest(task.model_dump(mode="json")) == ranking.task_digest:
        return None
    return "the task is not defined as the built-in one"


def _published_interval(row: Row) -> tuple[float, float]:
    """Ends of the 95 % interval of a published value; the value itself where nothing is known."""
    value = row["value"]
    if row["low"] is not None and row["high"] is not None:
        return row["low"], row["high"]
    if row["n"] is None or row["metric"] != "accuracy":
        return value, value
    from shiftbench.evaluation.intervals import clopper_pearson

    low, high = clopper_pearson(round(value * row["n"]), row["n"])
    return min(float(low), value), max(float(high), value)
