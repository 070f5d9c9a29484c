"""Our values beside published ones, as the lines of a table: in the terminal, Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from shiftbench.report.markdown import escaped, table_of
from shiftbench.report.references import Comparison, PublishedValue
from shiftbench.report.scale import NONE, Scale
from shiftbench.report.scores import Estimate
from shiftbench.report.words import shots_text

NOTHING = "nothing published"


class Line(NamedTuple):
    """A value of ours beside one that is published, or beside none; all for people."""

    method: str
    set: str
    ours: str
    published: str
    difference: str
    verdict: str
    settings: str
    source: str


NUMBERS = ("ours", "published", "difference")
"""The columns of numbers."""


def titled(comparisons: Sequence[Comparison]) -> Iterator[tuple[str, list[Comparison]]]:
    """The comparisons of each task, backbone and number of shots, with a title."""
    for _, group in groupby(comparisons, key=lambda c: (c.task, c.backbone, c.shots)):
        of = [*group]
        shots = "all training data" if of[0].shots is None else f"{of[0].shots} shots"
        yield f"{of[0].task} · {of[0].backbone} · {shots}", of


def lines(comparison: Comparison) -> list[Line]:
    """A line for each published value; one where there is none."""
    method = " · ".join(filter(None, (comparison.label, comparison.variant)))
    start = (method, comparison.evaluation_set, _ours(comparison.ours, comparison.scale))
    if not comparison.published:
        return [Line(*start, NONE, NONE, NOTHING, NONE, comparison.remark or "")]
    return [Line(*start, *_published(comparison, value)) for value in comparison.published]


def to_markdown(comparisons: Sequence[Comparison]) -> str:
    """All comparisons, a table for each task, backbone and number of shots."""
    parts = ["# Our values beside published ones"]
    left = {*Line._fields} - {*NUMBERS}
    for title, of in titled(comparisons):
        rows = [line for comparison in of for line in lines(comparison)]
        parts += [f"## {escaped(title)}", table_of(Line._fields, rows, left)]
    if not comparisons:
        parts.append("No run on real data has finished yet.")
    return "\n\n".join(parts) + "\n"


def to_csv(comparisons: Sequence[Comparison]) -> str:
    """All comparisons as numbers: fractions, and empty where there is nothing."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ["task", "backbone", "shots", "method", "variant", "set", "metric", "ours", "low", "high",
         "published", "difference", "difference_low", "difference_high", "verdict", "settings",
         "source", "remark"]
    )  # fmt: skip
    for c in comparisons:
        what = (c.task, c.backbone, shots_text(c.shots), c.label, c.variant, c.evaluation_set)
        start = (*what, c.metric, c.ours.mean, c.ours.low, c.ours.high)
        if not c.published:
            writer.writerow([*start, None, None, None, None, NOTHING, None, None, c.remark])
        for value in c.published:
            numbers = [value.value, value.difference, value.low, value.high]
            told = [value.verdict, value.settings, _source(value), c.remark]
            writer.writerow([*start, *numbers, *told])
    return stream.getvalue()


def _published(comparison: Comparison, value: PublishedValue) -> tuple[str, str, str, str, str]:
    scale = comparison.scale
    difference = scale.difference(value.difference)
    if value.low is not None and value.high is not None:
        difference += f" [{scale.difference(value.low)}, {scale.difference(value.high)}]"
    told = "; ".join(filter(None, (_source(value), comparison.remark)))
    return scale.text(value.value), difference, value.verdict, value.settings, told


def _source(value: PublishedValue) -> str:
    marked = value.second_hand and "second-hand" not in value.source
    return "; ".join(filter(None, (value.source, "second-hand" if marked else None, value.note)))


def _ours(estimate: Estimate, scale: Scale) -> str:
    if estimate.low is None or estimate.high is None:
        return scale.text(estimate.mean)
    low, high = (scale.text(scale.inside(end)) for end in (estimate.low, estimate.high))
    return f"{scale.text(estimate.mean)} [{low}, {high}]"
