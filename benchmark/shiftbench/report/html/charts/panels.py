"""Panels of methods: the headline score on a set against something else of each."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from shiftbench.report.html.charts.composed import Chart, layered
from shiftbench.report.html.charts.encodings import (
    dots,
    heading,
    number_axis,
    number_format,
    score_ends,
    score_scale,
)
from shiftbench.report.html.charts.figure import Records
from shiftbench.report.html.charts.labels import Ends, Point, layers, placed
from shiftbench.report.html.charts.records import RankingRecords
from shiftbench.report.scores import MEAN
from shiftbench.report.words import set_metric

SIDE = (430, 320)  # pixels of a panel
SMALLEST = 165  # pixels of its width, on a phone


def marked(drawn: Records, records: RankingRecords, up: str, y: Ends) -> Records:
    """The records with the side of its mark that a name is on, where it has room in its panel.

    Args:
        drawn: with ``method``, ``set`` and ``value`` of each.
        records: of the ranking.
        up: the field that is upwards.
        y: the ends of its axis.
    """
    sides: dict[tuple[str, str], str] = {}
    for set_name in dict.fromkeys(record["set"] for record in drawn):
        of_set = [record for record in drawn if record["set"] == set_name]
        spots = [Point(r["value"], r[up], r | records.marked(r["method"])) for r in of_set]
        x = score_ends(of_set, records.ranking.scale_on(set_name))
        for label in placed(spots, records.prominent, x, y, (SMALLEST, SIDE[1])):
            sides[label["method"], set_name] = label["side"]
    return [
        r | records.marked(r["method"]) | {"side": sides.get((r["method"], r["set"]), "")}
        for r in drawn
    ]


def points(
    key: str,
    set_name: str,
    records: RankingRecords,
    drawn: Records,
    y: alt.Y,
    tooltip: Sequence[alt.Tooltip],
) -> list[alt.Chart]:
    """A point for each method at its score on a set, which is to the right, and some names.

    Args:
        key: name of the data.
        set_name: of the panel, or ``MEAN``.
        records: of the ranking.
        drawn: the data, of ``marked``.
        y: what is upwards.
        tooltip: what is told beside method and score.
    """
    ranking = records.ranking
    of_scores = ranking.scale_on(set_name)
    of_set = [record for record in drawn if record["set"] == set_name]
    x = alt.X(
        "value:Q",
        scale=score_scale(of_set, of_scores),
        axis=number_axis(of_scores),
        title=set_metric(ranking, set_name) if set_name != MEAN else MEAN,
    )
    data = alt.Chart(alt.NamedData(key)).transform_filter(alt.datum.set == set_name)
    told = [
        alt.Tooltip("method:N"),
        alt.Tooltip("value:Q", format=number_format(of_scores), title=set_name),
        *tooltip,
    ]
    return [dots(data, x, y, records.names, records.styles, told), *layers(data, x, y)]


def panel(layers: Sequence[alt.Chart], set_name: str) -> Chart:
    """Layers in the size and with the heading of a panel."""
    return layered(*layers, width=SIDE[0], height=SIDE[1], title=heading(set_name))
