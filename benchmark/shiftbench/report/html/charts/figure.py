"""A chart with its data, and the style that every method has in all of them."""

from __future__ import annotations

import copy
import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import altair as alt

from shiftbench.report.html.charts.composed import Chart
from shiftbench.report.html.families import (
    DERIVED,
    ELSEWHERE,
    PRETRAINED,
    SEARCHED,
    TRAINED,
    family_of_each,
)
from shiftbench.report.model import Report

Records = list[dict[str, Any]]

COLOURS = ("#0072b2", "#d55e00", "#00855f", "#b0599b", "#a06a00", "#7a63c9", "#c2435a", "#6f7782")
"""Distinct for most colour-blind people, and of contrast ≥ 3 on white and on the dark page."""
SHAPES: Mapping[str, tuple[str, ...]] = {
    PRETRAINED: ("diamond",),
    TRAINED: ("circle", "square"),
    DERIVED: ("triangle-up", "triangle-down"),
    SEARCHED: ("cross",),
    ELSEWHERE: ("triangle-right",),
}
"""By family."""
Filling: TypeAlias = Literal["full", "hollow", "pale"]
FILLINGS: tuple[Filling, ...] = ("full", "hollow", "pale")
MUTED = "#808a96"  # of what is not ours
NEUTRAL = "#7d8590"
WANTED = "wanted"
"""Parameter of all charts: methods whose name does not contain it fade."""
PICKED = "picked"
"""Parameter of all charts: names of methods; where there are any, all others fade."""


@dataclass(frozen=True)
class Style:
    """Colour, shape and filling of a method's marks, the same in all charts."""

    colour: str
    shape: str
    filling: Filling

    @property
    def fill(self) -> str:
        """The colour inside of the mark."""
        return {"full": self.colour, "hollow": "transparent", "pale": f"{self.colour}59"}[
            self.filling
        ]


@dataclass(frozen=True)
class Figure:
    """A chart with its data.

    Attributes:
        name: for files: lower case, digits and hyphens.
        title: for people.
        text: what it shows, which stands in for it where it cannot be seen.
        chart: over data named as in ``data``.
        data: records by name; names are unique in a page, and equal ones mean equal records.
    """

    name: str
    title: str
    text: str
    chart: Chart
    data: Mapping[str, Records] = field(repr=False)

    def spec(self, *, with_data: bool) -> dict[str, Any]:
        """The chart in Vega-Lite, on its own or for the page.

        Args:
            with_data: with its data and a legend of the methods. The page has both for all charts
                together: data are joined by name.
        """
        spec = {"$schema": alt.SCHEMA_URL, **copy.deepcopy(self.chart)}
        if not with_data:
            _drop_legends(spec)
        spec["params"] = [
            *spec.get("params", []),
            {"name": WANTED, "value": ""},
            {"name": PICKED, "value": []},
        ]
        spec["description"] = f"{self.title}. {self.text}"
        if with_data:
            spec["datasets"] = dict(self.data)
        return spec


@dataclass(frozen=True)
class Undrawn:
    """A chart that cannot be drawn.

    Attributes:
        title: of the chart, for people.
        reason: what is missing for it.
    """

    title: str
    reason: str

    def __str__(self) -> str:
        return f"{self.title}: {self.reason}."


def styles(report: Report) -> dict[str, Style]:
    """A style for every method of a report: the shape says of which family it is.

    The colours of the first are all different; so are the styles of 48 that were trained, and of 48
    that were made from others.
    """
    family_of = family_of_each(report)
    # Curves cross each other, so they come first: the first styles differ in colour.
    curves = [point.label for of in report.rankings for point in of.curves]
    names = dict.fromkeys(
        [*curves, *(m.name for of in report.rankings for m in of.ranking.methods)]
    )
    left: dict[str, list[Style]] = defaultdict(list)
    used: Counter[str] = Counter()
    found = {}
    for name in names:
        if (family := family_of.get(name)) is None:  # an oracle is in no chart
            continue
        if not left[family]:
            looks = itertools.product(FILLINGS, SHAPES[family], COLOURS)
            left[family] = [Style(colour, shape, filling) for filling, shape, colour in looks]
        first = left[family][0]
        alike = [s for s in left[family] if (s.filling, s.shape) == (first.filling, first.shape)]
        found[name] = min(alike, key=lambda style: used[style.colour])
        left[family].remove(found[name])
        used[found[name].colour] += 1
    return found


def _drop_legends(spec: Any) -> None:
    """Leave out the legends of methods, in place."""
    for value in spec.values() if isinstance(spec, dict) else spec:
        if isinstance(value, dict) and value.get("field") == "method" and "legend" in value:
            value["legend"] = None
        elif isinstance(value, (dict, list)):
            _drop_legends(value)
