"""Curves over mixing coefficients: every variant of a method, not only the selected one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from shiftbench.report.ranking import Estimate, Line, Ranking, rankings

MEAN = "mean OOD"
"""What the mean over shifts is called where evaluation sets are."""
ALPHA = "alpha="


@dataclass(frozen=True)
class Point:
    """A variant of a curve: no one need have chosen it.

    Attributes:
        name: label of its method.
        alpha: mixing coefficient.
        cells: mean over seeds by evaluation set, and ``MEAN`` where no shift is missing.
    """

    name: str
    alpha: float
    cells: Mapping[str, Estimate]


def curves(table: pa.Table) -> dict[tuple[Any, ...], list[Point]]:
    """The points of every curve, by what ``setting_of`` says of their ranking."""
    found = {}
    for ranking in rankings(by_variant(table)):
        points = [
            Point(line.label, alpha_of(line.selection), with_mean(line))
            for line in ranking.lines
            if line.selection.startswith(ALPHA)
        ]
        several = [p for p in points if sum(q.name == p.name for q in points) > 1]
        found[setting_of(ranking)] = sorted(several, key=lambda point: (point.name, point.alpha))
    return found


def by_variant(table: pa.Table) -> pa.Table:
    """Every variant once, in the place of the selection, so that each is a line of a ranking."""
    columns = ["run_id", "variant", "evaluation_set", "metric"]
    first: dict[tuple[Any, ...], int] = {}
    for position, row in enumerate(table.select(columns).to_pylist()):
        first.setdefault(tuple(row.values()), position)
    unique = table.take(pa.array(first.values(), pa.int64()))
    return with_column(unique, "selection", unique["variant"].to_pylist())


def setting_of(ranking: Ranking) -> tuple[Any, ...]:
    """What tells a ranking from all others."""
    return (
        *(ranking.data_kind, ranking.task, ranking.task_digest, ranking.backbone),
        *(ranking.shots, ranking.images),
    )


def alpha_of(variant: str) -> float:
    """0.5 of ``alpha=0.5``."""
    return float(variant.removeprefix(ALPHA))


def with_mean(line: Line) -> dict[str, Estimate]:
    """The cells of a line, and the mean over shifts as one of them."""
    mean = {} if line.mean_ood is None else {MEAN: line.mean_ood}
    return {**line.cells, **mean}


def with_column(table: pa.Table, column: str, values: list[Any]) -> pa.Table:
    """The table with other values in a column."""
    position = table.schema.get_field_index(column)
    of = table.schema.field(position)
    return table.set_column(position, of, pa.array(values, of.type))
