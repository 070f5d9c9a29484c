"""Axes, colours and tooltips that charts share.

Axes in logits are linear axes of transformed values, since Vega has no such scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from shiftbench.report.html.charts.figure import PICKED, WANTED, Style
from shiftbench.report.scale import Scale
from shiftbench.report.scores import MEAN

NARROW = 190  # pixels
FADED = 0.08
PALE = 0.45
PERCENT = ".1%"


def fade(opacity: float = 1.0, *, mute: bool = False) -> alt.OpacityValue:
    """The opacity of methods that are wanted; others fade.

    Args:
        opacity: of those that are wanted, which are all until some are asked for.
        mute: whether records that say so are paler until then.
    """
    found = f"{WANTED} === '' || indexof(lower(datum.method), {WANTED}) >= 0"
    test = f"length({PICKED}) ? indexof({PICKED}, datum.method) >= 0 : {found}"
    # Not alt.condition: Altair searches its whole schema for the class of such a dictionary.
    conditions = [{"test": test, "value": opacity}]
    if mute:
        nobody = f"datum.muted && {WANTED} === '' && !length({PICKED})"
        conditions.insert(0, {"test": nobody, "value": PALE * opacity})
    return alt.OpacityValue(FADED, condition=conditions)


def stroke(names: Sequence[str], style: Mapping[str, Style], *, legend: bool = True) -> alt.Stroke:
    """The colour of each method's lines and of the edge of its marks."""
    scale = _scale(names, [style[name].colour for name in names])
    return alt.Stroke("method:N", scale=scale, legend=_legend() if legend else None)


def fill(names: Sequence[str], style: Mapping[str, Style], *, legend: bool = True) -> alt.Fill:
    """The colour inside of each method's marks."""
    scale = _scale(names, [style[name].fill for name in names])
    return alt.Fill("method:N", scale=scale, legend=_legend() if legend else None)


def shape(names: Sequence[str], style: Mapping[str, Style], *, legend: bool = True) -> alt.Shape:
    """The shape of each method's marks."""
    scale = _scale(names, [style[name].shape for name in names])
    return alt.Shape("method:N", scale=scale, legend=_legend() if legend else None)


def dots(
    data: alt.Chart,
    x: alt.X,
    y: alt.Y,
    names: Sequence[str],
    style: Mapping[str, Style],
    tooltip: Sequence[alt.Tooltip],
    size: int = 60,
    *,
    clip: bool = True,
) -> alt.Chart:
    """A mark for each method, or point of its curve, in its colour and shape."""
    found: alt.Chart = data.mark_point(size=size, clip=clip).encode(
        x=x,
        y=y,
        stroke=stroke(names, style),
        fill=fill(names, style),
        shape=shape(names, style),
        opacity=fade(mute=True),
        tooltip=[*tooltip],
    )
    return found


def number_format(scale: Scale) -> str:
    """The format of numbers in tooltips."""
    return PERCENT if scale.percent else ".3f"


def number_axis(scale: Scale, **options: Any) -> alt.Axis:
    """An axis of scores."""
    form = "~%" if scale.percent else "~g"
    return alt.Axis(format=form, labelOverlap="greedy", labelSeparation=4, **options)


def score_scale(records: Iterable[Mapping[str, Any]], scale: Scale) -> alt.Scale:
    """An axis of scores."""
    return fixed(score_ends(records, scale))


def score_ends(records: Iterable[Mapping[str, Any]], scale: Scale) -> tuple[float, float]:
    """The ends of an axis of scores; of fractions within what a fraction can be."""
    low, high = domain((r["value"] for r in records), least=0.01)
    return (max(low, 0.0), min(high, 1.005)) if scale.percent else (low, high)


def domain(values: Iterable[float], least: float = 0.15) -> tuple[float, float]:
    """Ends of an axis that holds the values with some room.

    Intervals do not count: that of a few seeds can be wider than all values, and is cut off.
    """
    each = np.array([*values], dtype=np.float64)
    if not len(each):
        return -1.0, 1.0
    low, high = float(each.min()), float(each.max())
    room = max(0.08 * (high - low), least)
    return round(low - room, 4), round(high + room, 4)


def fixed(ends: tuple[float, float]) -> alt.Scale:
    """A scale with these ends."""
    return alt.Scale(domain=list(ends), nice=False, zero=False)


def heading(set_name: str) -> str:
    """The title of a set's panel."""
    return "mean over shifts" if set_name == MEAN else set_name


def interval_tooltip() -> alt.Tooltip:
    """The 95 % interval of a mark."""
    return alt.Tooltip("interval:N", title="95 % interval")


def facts() -> list[alt.Tooltip]:
    """All else that is known of a method's mark."""
    return [
        interval_tooltip(),
        alt.Tooltip("kind:N", title="kind"),
        alt.Tooltip("n:N", title="images"),
        alt.Tooltip("seeds:Q"),
        alt.Tooltip("selection:N"),
        alt.Tooltip("note:N"),
    ]


def _scale(names: Sequence[str], looks: Sequence[str]) -> alt.Scale:
    """From names to looks, in tuples: Altair copies lists whenever a chart is put into another."""
    return alt.Scale(domain=tuple(names), range=tuple(looks))


def _legend() -> alt.Legend:
    return alt.Legend(
        title=None, orient="bottom", columns=5, symbolLimit=0, labelLimit=200, symbolOpacity=1
    )
