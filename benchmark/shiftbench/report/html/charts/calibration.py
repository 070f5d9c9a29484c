"""Accuracy against calibration, in distribution and under shift."""

from __future__ import annotations

import altair as alt

from shiftbench.data.tasks.definition import ID_TEST
from shiftbench.report.html.charts.composed import Chart, side_by_side
from shiftbench.report.html.charts.encodings import PERCENT, fixed, number_axis, score_ends
from shiftbench.report.html.charts.figure import Figure, Records, Undrawn
from shiftbench.report.html.charts.panels import marked, panel, points
from shiftbench.report.html.charts.records import RankingRecords, rounded
from shiftbench.report.measures import ECE, HEADINGS
from shiftbench.report.ranking import ORACLE
from shiftbench.report.scale import ACCURACY
from shiftbench.report.scores import MEAN
from shiftbench.report.words import title_of

_ECE = HEADINGS[ECE]


def calibration_chart(records: RankingRecords) -> Figure | Undrawn:
    """A panel for ID and one for the mean over shifts: down is calibrated, right is accurate."""
    title = f"Accuracy and calibration · {title_of(records.ranking)}"
    found = _records(records)
    if not found:
        return Undrawn(title, "no method here has predictions with logits")
    # One axis of errors, so that both panels can be compared.
    ends = score_ends([{"value": record[_ECE]} for record in found], ACCURACY)
    drawn = marked(found, records, _ECE, ends)
    present = {record["set"] for record in drawn}
    return Figure(
        name=f"{records.key}-calibration",
        title=title,
        text=(
            "Expected calibration error (15 bins) against the headline score, in distribution and "
            "under shift (mean over shifts), on one axis: lower right is accurate and calibrated. "
            "Mean over seeds."
        ),
        chart=side_by_side(
            *(
                _panel(name, records, drawn, fixed(ends))
                for name in (ID_TEST, MEAN)
                if name in present
            ),
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


def _panel(set_name: str, records: RankingRecords, drawn: Records, scale: alt.Scale) -> Chart:
    others = (text for text in HEADINGS.values() if text != _ECE)
    marks = points(
        f"{records.key}-calibration",
        set_name,
        records,
        drawn,
        alt.Y(f"{_ECE}:Q", scale=scale, axis=number_axis(ACCURACY), title=_ECE),
        [
            alt.Tooltip(f"{_ECE}:Q", format=PERCENT),
            *(alt.Tooltip(f"{text}:Q", format=".3f") for text in others),
        ],
    )
    return panel(marks, set_name)
