"""The cost of each method against what it gains."""

from __future__ import annotations

import math

import altair as alt

from shiftbench.report.html.charts.composed import layered
from shiftbench.report.html.charts.encodings import (
    dots,
    facts,
    fade,
    fixed,
    heading,
    number_axis,
    number_format,
    score_ends,
    stroke,
)
from shiftbench.report.html.charts.figure import NEUTRAL, Figure, Undrawn
from shiftbench.report.html.charts.labels import NARROWEST, Point, layers, placed
from shiftbench.report.html.charts.prominent import headline_set, unbeaten
from shiftbench.report.html.charts.records import RankingRecords
from shiftbench.report.words import title_of

HEIGHT = 340  # pixels
SECONDS = (0, 1, 3, 10, 30, 120, 600, 2400, 7200, 36_000, 180_000, 900_000)
_OF_SECONDS = (
    "datum.value < 100 ? format(datum.value, '.0f') + ' s' : datum.value < 6000 ? "
    "format(datum.value / 60, '.0f') + ' min' : format(datum.value / 3600, '.0f') + ' h'"
)


def cost_chart(records: RankingRecords) -> Figure | Undrawn:
    """Cost and score of each method, and the frontier of those that no other beats in both."""
    ranking, key = records.ranking, records.key
    target = headline_set(ranking)
    of_scores = ranking.scale_on(target)
    title = f"Cost and accuracy · {title_of(ranking)}"
    of_target = [r for r in records.points if r["set"] == target]
    points = [r for r in of_target if r["cost"] is not None]
    unknown = [r["method"] for r in of_target if r["cost"] is None]
    without = f"the cost of {', '.join(unknown)} is not known" if unknown else ""
    if len(points) < 2:
        found = f"it compares methods, and {len(points)} here has {heading(target)} and a cost"
        return Undrawn(title, "; ".join(filter(None, (found, without))))
    best = unbeaten(ranking, points)
    frontier = [{"cost": r["cost"], "value": r["value"]} for r in points if r["method"] in best]
    most = max(r["cost"] for r in points) * 1.3 + 1
    names, styles = records.names, records.styles
    ends = score_ends(points, of_scores)
    scale = fixed(ends)
    x = alt.X(
        "cost:Q",
        scale=alt.Scale(type="symlog", constant=1, domain=[0, most]),
        axis=alt.Axis(values=[s for s in SECONDS if s <= most], labelExpr=_OF_SECONDS),
        title="device time to train and to search, parents included",
    )
    y = alt.Y("value:Q", scale=scale, axis=number_axis(of_scores), title=heading(target))
    line = (
        alt.Chart(alt.NamedData(f"{key}-frontier"))
        .mark_line(interpolate="step-after", color=NEUTRAL, strokeDash=[4, 3])
        .encode(x=x, y=y)
    )
    shown = alt.Chart(alt.NamedData(f"{key}-points")).transform_filter(alt.datum.set == target)
    rules = shown.mark_rule(strokeWidth=1, clip=True).encode(
        x=x,
        y=alt.Y("low:Q", scale=scale, title=""),
        y2="high:Q",
        stroke=stroke(names, styles),
        opacity=fade(0.35, mute=True),
    )
    told = [
        alt.Tooltip("method:N"),
        alt.Tooltip("spent:N", title="cost"),
        alt.Tooltip("value:Q", format=number_format(of_scores), title=target),
        *facts(),
    ]
    # A method of no cost is at the axis, where a clipped mark would be half a one.
    marks = dots(shown, x, y, names, styles, told, clip=False)
    fields = ("method", "cost", "value", "muted")
    spots = [
        Point(math.log1p(r["cost"]), r["value"], {key: r[key] for key in fields if key in r})
        for r in points
    ]
    wanted = [*best, *records.prominent]
    named = placed(spots, wanted, (0.0, math.log1p(most)), ends, (NARROWEST, HEIGHT))
    return Figure(
        name=f"{key}-cost",
        title=title,
        text="Dashed: the frontier that no method beats in both cost and accuracy. "
        "Named, where there is room: the same as above."
        + (f" Not shown: {without}." if without else ""),
        chart=layered(
            *(line, rules, marks),
            *layers(alt.Chart(alt.NamedData(f"{key}-cost-named")), x, y),
            width=640,
            height=HEIGHT,
        ),
        data={
            **records.data,
            f"{key}-frontier": frontier,
            f"{key}-cost-named": named,
        },
    )
