"""Panels of methods: the headline score on a set against something else of each."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from shiftbench.report.html.charts.encodings import (
    fade,
    fill,
    heading,
    number_axis,
    number_format,
    score_scale,
    shape,
    stroke,
)
from shiftbench.report.html.charts.figure import Chart, Records
from shiftbench.report.html.charts.records import RankingRecords
from shiftbench.report.scores import MEAN
from shiftbench.report.words import set_metric

SIDE = (430, 320)  # pixels of a panel


def points(
    key: str,
    set_name: str,
    records: RankingRecords,
    drawn: Records,
    y: alt.Y,
    tooltip: Sequence[alt.Tooltip],
) -> Chart:
    """A point for each method at its score on a set, which is to the right.

    Args:
        key: name of the data.
        set_name: of the panel, or ``MEAN``.
        records: of the ranking.
        drawn: the data, with ``method``, ``set`` and ``value`` of each record.
        y: what is upwards.
        tooltip: what is told beside method and score.
    """
    ranking, names, styles = records.ranking, records.names, records.styles
    of_scores = ranking.scale_on(set_name)
    of_set = [record for record in drawn if record["set"] == set_name]
    chart: Chart = (
        alt.Chart(alt.NamedData(key))
        .transform_filter(alt.datum.set == set_name)
        .mark_point(size=60, clip=True)
        .encode(
            x=alt.X(
                "value:Q",
                scale=score_scale(of_set, of_scores),
                axis=number_axis(of_scores),
                title=set_metric(ranking, set_name) if set_name != MEAN else MEAN,
            ),
            y=y,
            stroke=stroke(names, styles),
            fill=fill(names, styles),
            shape=shape(names, styles),
            opacity=fade(),
            tooltip=[
                alt.Tooltip("method:N"),
                alt.Tooltip("value:Q", format=number_format(of_scores), title=set_name),
                *tooltip,
            ],
        )
    )
    return chart


def panel(chart: Chart, set_name: str) -> Chart:
    """A chart in the size and with the heading of a panel."""
    sized: Chart = chart.properties(width=SIDE[0], height=SIDE[1], title=heading(set_name))
    return sized
