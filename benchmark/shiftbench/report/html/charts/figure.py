"""A chart with its data, and the style that every method has in all of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import altair as alt
from altair.utils.schemapi import debug_mode

from shiftbench.report.model import Report
from shiftbench.report.ranking import ORACLE

Records = list[dict[str, Any]]
Chart = alt.Chart | alt.LayerChart | alt.ConcatChart | alt.VConcatChart | alt.FacetChart

COLOURS = ("#0072b2", "#d55e00", "#00855f", "#b0599b", "#a06a00", "#7a63c9", "#c2435a", "#6f7782")
"""Distinct for most colour-blind people, and of contrast ≥ 3 on white and on the dark page."""
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
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
        with debug_mode(False):
            spec: dict[str, Any] = self.chart.to_dict(validate=False)
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
    """A style for every method of a report: 144 of them are all different."""
    methods = (method for of in report.rankings for method in of.ranking.methods)
    ours = [method.name for method in methods if method.selection != ORACLE]
    # Curves cross each other, so they come first: the first styles differ in colour.
    curves = [point.label for of in report.rankings for point in of.curves]
    names = dict.fromkeys([*curves, *ours])
    looks = [*itertools.product(FILLINGS, SHAPES, COLOURS)]
    return {
        name: Style(colour, shape, filling)
        for name, (filling, shape, colour) in zip(names, itertools.cycle(looks))
    }


def _drop_legends(spec: Any) -> None:
    """Leave out the legends of methods, in place."""
    for value in spec.values() if isinstance(spec, dict) else spec:
        if isinstance(value, dict) and value.get("field") == "method" and "legend" in value:
            value["legend"] = None
        elif isinstance(value, (dict, list)):
            _drop_legends(value)
