"""What a method gains on its own task against what it forgets of others."""

from __future__ import annotations

import altair as alt

from shiftbench.data.tasks.definition import ID_TEST
from shiftbench.report.html.charts.composed import Chart, side_by_side
from shiftbench.report.html.charts.encodings import PERCENT, fixed, number_axis, score_ends
from shiftbench.report.html.charts.figure import NEUTRAL, Figure, Records
from shiftbench.report.html.charts.panels import marked, panel, points
from shiftbench.report.html.charts.records import RankingRecords, rounded
from shiftbench.report.ranking import ORACLE
from shiftbench.report.scale import ACCURACY
from shiftbench.report.scores import MEAN
from shiftbench.report.words import title_of


def forgetting_chart(records: RankingRecords) -> Figure:
    """The mean over other tasks against the score in distribution and under shift.

    Args:
        records: of a ranking some of whose methods were scored on other tasks.
    """
    found = records.of_ranking.forgetting
    title = f"What fine-tuning forgets · {title_of(records.ranking)}"
    unmarked = _records(records)
    ends = score_ends([{"value": record["others"]} for record in unmarked], ACCURACY)
    drawn = marked(unmarked, records, "others", ends)
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
            f"Mean score on the test sets of {', '.join(found.tasks)} against the headline "
            "score, mean over seeds: up is remembered, right is learnt. Dashed: zero-shot."
        ),
        chart=side_by_side(
            *(
                _panel(name, records, drawn, key, fixed(ends))
                for name in (ID_TEST, MEAN)
                if name in present
            ),
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


def _panel(
    set_name: str, records: RankingRecords, drawn: Records, key: str, scale: alt.Scale
) -> Chart:
    y = alt.Y("others:Q", scale=scale, axis=number_axis(ACCURACY), title="mean over other tasks")
    line = (
        alt.Chart(alt.NamedData(f"{key}-reference"))
        .mark_rule(color=NEUTRAL, strokeDash=[4, 3])
        .encode(y=y)
    )
    told = [
        alt.Tooltip("others:Q", format=PERCENT, title="mean over other tasks"),
        alt.Tooltip("each:N", title="of each"),
        alt.Tooltip("by:N", title="classes named by"),
    ]
    marks = points(key, set_name, records, drawn, y, told)
    return panel([line, *marks], set_name)
