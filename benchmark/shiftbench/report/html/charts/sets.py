"""Every method on every evaluation set, and along its curve."""

from __future__ import annotations

from typing import Literal

import altair as alt

from shiftbench.data.tasks.definition import ID_TEST
from shiftbench.report.corruptions import shown_shifts
from shiftbench.report.html.charts.composed import Chart, layered, side_by_side, step
from shiftbench.report.html.charts.encodings import (
    NARROW,
    facts,
    fade,
    fill,
    heading,
    interval_tooltip,
    number_axis,
    number_format,
    score_scale,
    shape,
    stroke,
)
from shiftbench.report.html.charts.figure import Figure, Undrawn
from shiftbench.report.html.charts.prominent import MANY
from shiftbench.report.html.charts.records import RankingRecords
from shiftbench.report.ranking import ORACLE
from shiftbench.report.scores import MEAN
from shiftbench.report.words import set_metric, title_of


def sets_chart(records: RankingRecords) -> Figure:
    """Every method on every set with its interval, a panel for each set."""
    ranking = records.ranking
    names = [method.name for method in ranking.methods if method.selection != ORACLE]
    present = {r["set"] for r in records.points}
    sets = [MEAN] * (len(ranking.shifts) > 1) + [ID_TEST, *shown_shifts(ranking)]
    panels = [
        _panel(set_name, records, names, labels=position % 4 == 0)
        for position, set_name in enumerate(s for s in sets if s in present)
    ]
    return Figure(
        name=f"{records.key}-sets",
        title=f"Each evaluation set · {title_of(ranking)}",
        text=(
            "Methods in the order of the ranking; bars: 95 % intervals, over seeds where there "
            "are several, else over the set's images. Each panel has its own axis, at whose ends "
            "long bars are cut."
        )
        + _absent([name for name in sets if name not in present]),
        chart=side_by_side(*panels, columns=4),
        data=records.data,
    )


def alpha_curves(records: RankingRecords) -> Figure | Undrawn:
    """Scores along every curve, in distribution and under shift."""
    ranking = records.ranking
    title = f"Alpha curves · {title_of(ranking)}"
    if not records.curve:
        return Undrawn(title, "no method here has variants along alpha")
    present = {r["set"] for r in records.curve}
    names = list(dict.fromkeys(r["method"] for r in records.curve))
    sets = [ID_TEST, *([MEAN] if len(ranking.shifts) > 1 else []), *shown_shifts(ranking)]
    return Figure(
        name=f"{records.key}-alpha",
        title=title,
        text=(
            "From the pretrained weights or outputs (alpha 0) to the fine-tuned ones (alpha 1), "
            "mean over seeds. Each panel has its own axis."
        )
        + _absent([name for name in sets if name not in present]),
        chart=side_by_side(
            *(_alpha_panel(name, records, names) for name in sets if name in present), columns=4
        ),
        data=records.data,
    )


def _absent(sets: list[str]) -> str:
    """A sentence on the sets that have no panel."""
    return f" Nothing here has a value on {', '.join(map(heading, sets))}." if sets else ""


def _panel(set_name: str, records: RankingRecords, names: list[str], *, labels: bool) -> Chart:
    of_scores = records.ranking.scale_on(set_name)
    metric = set_metric(records.ranking, set_name)
    scale = score_scale([r for r in records.points if r["set"] == set_name], of_scores)
    base = (
        alt.Chart(alt.NamedData(f"{records.key}-points"))
        .transform_filter(alt.datum.set == set_name)
        .encode(
            y=alt.Y(
                "method:N",
                sort=tuple(names),
                title=None,
                scale=alt.Scale(domain=tuple(names)),
                axis=alt.Axis(labels=labels, labelLimit=220, grid=True),
            ),
            stroke=stroke(names, records.styles, legend=False),
            opacity=fade(),
        )
    )
    # Of many methods, the lower end of the panel is out of sight.
    side: Literal["top", "bottom"] = "top" if len(names) > MANY else "bottom"
    axis = number_axis(of_scores, tickCount=5, orient=side)
    rules = base.mark_rule(clip=True).encode(
        x=alt.X("low:Q", scale=scale, axis=axis, title=metric), x2="high:Q"
    )
    marks = base.mark_point(size=45, clip=True).encode(
        fill=fill(names, records.styles, legend=False),
        x=alt.X("value:Q", scale=scale, axis=axis, title=metric),
        shape=shape(names, records.styles, legend=False),
        tooltip=[
            alt.Tooltip("method:N"),
            alt.Tooltip("value:Q", format=number_format(of_scores), title=set_name),
            *facts(),
        ],
    )
    return layered(rules, marks, width=NARROW, height=step(15), title=heading(set_name))


def _alpha_panel(set_name: str, records: RankingRecords, names: list[str]) -> Chart:
    of_scores = records.ranking.scale_on(set_name)
    styles = records.styles
    base = (
        alt.Chart(alt.NamedData(f"{records.key}-curve"))
        .transform_filter(alt.datum.set == set_name)
        .encode(
            x=alt.X("alpha:Q", title="alpha", axis=alt.Axis(tickCount=5)),
            y=alt.Y(
                "value:Q",
                scale=alt.Scale(zero=False),
                axis=number_axis(of_scores, tickCount=5),
                title=set_metric(records.ranking, set_name),
            ),
            stroke=stroke(names, styles),
            opacity=fade(),
        )
    )
    marks = base.mark_point(size=30).encode(
        fill=fill(names, styles),
        shape=shape(names, styles),
        tooltip=[
            alt.Tooltip("method:N"),
            alt.Tooltip("alpha:Q"),
            alt.Tooltip("value:Q", format=number_format(of_scores), title=set_name),
            interval_tooltip(),
            alt.Tooltip("seeds:Q"),
        ],
    )
    lines = base.mark_line(strokeWidth=1.5)
    return layered(lines, marks, width=NARROW, height=150, title=heading(set_name))
