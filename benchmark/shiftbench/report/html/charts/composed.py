"""Charts put together as plain Vega-Lite: Altair copies a chart whenever it is put into another."""

from __future__ import annotations

from typing import Any, TypeAlias

import altair as alt
from altair.utils.schemapi import debug_mode

Chart: TypeAlias = dict[str, Any]
"""Vega-Lite's specification of one, over data by name."""


def plain(chart: alt.Chart, **properties: Any) -> Chart:
    """One of Altair's charts, with properties such as its ``width``."""
    with debug_mode(False):  # without validating each piece; the tests do
        spec: Chart = chart.to_dict(validate=False)
    return {k: v for k, v in spec.items() if k not in ("$schema", "config")} | properties


def layered(*layers: alt.Chart, **properties: Any) -> Chart:
    """Charts on the same axes, the last one on top."""
    return {"layer": [plain(layer) for layer in layers]} | properties


def side_by_side(*charts: Chart, columns: int) -> Chart:
    """Charts beside each other, in rows of so many."""
    return {"concat": [*charts], "columns": columns}


def stacked(*charts: Chart) -> Chart:
    """Charts above each other."""
    return {"vconcat": [*charts]}


def step(pixels: int) -> dict[str, int]:
    """A width or height of so many pixels for each value of a discrete axis."""
    return {"step": pixels}
