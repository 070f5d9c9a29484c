"""What a method gains on its own task against what it forgets of others."""

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
from shiftbench.report.html.charts.figure import NEUTRAL, Chart, Figure, Records
from shiftbench.report.html.charts.records import RankingRecords, rounded
from shiftbench.report.ranking import ORACLE
from shiftbench.report.scale import ACCURACY
from shiftbench.report.scores import MEAN
from shiftbench.report.words import set_metric, title_of

SIDE = (430, 320)  # pixels of a panel


def forgetting_chart(records: RankingRecords) -> Figure:
    """The mean over other tasks against the score in distribution and under shift.

    Args:
        records: of a ranking some of whose methods were scored on other tasks.
    """
    found = records.of_ranking.forgetting
    title = f"What fine-tuning forgets · {title_of(records.ranking)}"
    drawn = _records(records)
    present = {record["set"] for record in drawn}
    base = {r["method"]: r["others"] for r in drawn}
    zero_shot = [
        {"others": base[m.name]} for m in records.ranking.methods if m.reference and m.name in base
    ]
    key = f"{records.key}-others"
    return Figure(
        name=f"{records.key}-forgetting",
        title=title,
        text=(
            f"Mean accuracy on the test sets of {', '.join(found.tasks)} against the headline "
            "score, mean over seeds: up is remembered, right is learnt. Dashed: zero-shot."
        ),
        chart=alt.concat(
            *(_panel(name, records, drawn, key) for name in (ID_TEST, MEAN) if name in present),
            columns=2,
        ),
        data={key: drawn, f"{key}-reference": zero_shot[:1]},
    )


def _records(records: RankingRecords) -> Records:
    """A record for each method and panel."""
    found = records.of_ranking.forgetting.methods
    return [
        {
            "method": method.name,
            "set": name,
            "value": rounded(score.mean),
            "others": rounded(found[method.name].mean.mean),
            "by": found[method.name].named_by,
            "each": ", ".join(
                f"{task} {ACCURACY.text(of.mean)}" for task, of in found[method.name].scores.items()
            ),
        }
        for method in records.ranking.methods
        if method.selection != ORACLE and method.name in found
        for name in (ID_TEST, MEAN)
        if (score := method.scores.get(name)) is not None
    ]


def _panel(set_name: str, records: RankingRecords, drawn: Records, key: str) -> Chart:
    ranking, names, styles = records.ranking, records.names, records.styles
    of_scores = ranking.scale_on(set_name)
    of_set = [record for record in drawn if record["set"] == set_name]
    scale = score_scale([{"value": record["others"]} for record in drawn], ACCURACY)
    y = alt.Y("others:Q", scale=scale, axis=number_axis(ACCURACY), title="mean over other tasks")
    line = (
        alt.Chart(alt.NamedData(f"{key}-reference"))
        .mark_rule(color=NEUTRAL, strokeDash=[4, 3])
        .encode(y=y)
    )
    marks = (
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
                alt.Tooltip("others:Q", format=PERCENT, title="mean over other tasks"),
                alt.Tooltip("each:N", title="of each"),
                alt.Tooltip("by:N", title="classes named by"),
            ],
        )
    )
    chart: Chart = alt.layer(line, marks).properties(
        width=SIDE[0], height=SIDE[1], title=heading(set_name)
    )
    return chart
