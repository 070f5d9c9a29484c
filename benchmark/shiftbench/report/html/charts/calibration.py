"""Accuracy against calibration, in distribution and under shift."""

from __future__ import annotations

import altair as alt

from shiftbench.data.tasks.definition import ID_TEST
from shiftbench.report.html.charts.encodings import (
    PERCENT,
    fade,
    fill,
    heading,
    number_axis,
    number_format,
    score_scale,
    shape,
    stroke,
)
from shiftbench.report.html.charts.figure import Chart, Figure, Records, Undrawn
from shiftbench.report.html.charts.records import RankingRecords, rounded
from shiftbench.report.measures import ECE, HEADINGS
from shiftbench.report.ranking import ORACLE
from shiftbench.report.scale import ACCURACY
from shiftbench.report.scores import MEAN
from shiftbench.report.words import set_metric, title_of

SIDE = (430, 320)  # pixels of a panel


def calibration_chart(records: RankingRecords) -> Figure | Undrawn:
    """A panel for ID and one for the mean over shifts: down is calibrated, right is accurate."""
    title = f"Accuracy and calibration · {title_of(records.ranking)}"
    drawn = _records(records)
    if not drawn:
        return Undrawn(title, "no method here has predictions with logits")
    present = {record["set"] for record in drawn}
    return Figure(
        name=f"{records.key}-calibration",
        title=title,
        text=(
            "Expected calibration error (15 bins) against the headline score, in distribution and "
            "under shift (mean over shifts), on one axis: lower right is accurate and calibrated. "
            "Mean over seeds."
        ),
        chart=alt.concat(
            *(_panel(name, records, drawn) for name in (ID_TEST, MEAN) if name in present),
            columns=2,
        ),
        data={f"{records.key}-calibration": drawn},
    )


def _records(records: RankingRecords) -> Records:
    """A record for each method and panel with both numbers."""
    found = []
    measured = records.of_ranking.measures
    for method in records.ranking.methods:
        for name in (ID_TEST, MEAN):
            score, gap = method.scores.get(name), measured.get(method.name, name, ECE)
            if method.selection == ORACLE or method.rank is None or not (score and gap):
                continue
            others = {
                text: rounded(estimate.mean)
                for text in HEADINGS
                if (estimate := measured.get(method.name, name, text)) is not None
            }
            found.append(
                {
                    "method": method.name,
                    "set": name,
                    "value": rounded(score.mean),
                    **{HEADINGS[text]: number for text, number in others.items()},
                }
            )
    return found


def _panel(set_name: str, records: RankingRecords, drawn: Records) -> Chart:
    ranking, names, styles = records.ranking, records.names, records.styles
    of_scores = ranking.scale_on(set_name)
    ece = HEADINGS[ECE]
    of_set = [record for record in drawn if record["set"] == set_name]
    # One axis of errors, so that both panels can be compared.
    y_scale = score_scale([{"value": record[ece]} for record in drawn], ACCURACY)
    chart: Chart = (
        alt.Chart(alt.NamedData(f"{records.key}-calibration"))
        .transform_filter(alt.datum.set == set_name)
        .mark_point(size=60, clip=True)
        .encode(
            x=alt.X(
                "value:Q",
                scale=score_scale(of_set, of_scores),
                axis=number_axis(of_scores),
                title=set_metric(ranking, set_name) if set_name != MEAN else MEAN,
            ),
            y=alt.Y(f"{ece}:Q", scale=y_scale, axis=number_axis(ACCURACY), title=ece),
            stroke=stroke(names, styles),
            fill=fill(names, styles),
            shape=shape(names, styles),
            opacity=fade(),
            tooltip=[
                alt.Tooltip("method:N"),
                alt.Tooltip("value:Q", format=number_format(of_scores), title=set_name),
                alt.Tooltip(f"{ece}:Q", format=PERCENT),
                *(
                    alt.Tooltip(f"{text}:Q", format=".3f")
                    for text in HEADINGS.values()
                    if text != ece
                ),
            ],
        )
        .properties(width=SIDE[0], height=SIDE[1], title=heading(set_name))
    )
    return chart
