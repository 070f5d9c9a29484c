"""The layers that masks are in, and what searches tried and found."""

from __future__ import annotations

import json
from collections.abc import Sequence

import altair as alt

from shiftbench.report.html.charts.composed import layered, plain, step
from shiftbench.report.html.charts.encodings import PERCENT
from shiftbench.report.html.charts.figure import COLOURS, NEUTRAL, Figure, Records, Undrawn
from shiftbench.report.html.charts.records import rounded
from shiftbench.report.movements import LayerShare, layer_order
from shiftbench.report.searches import SearchReport

STATES = {"complete": "#0072b2", "stopped": "#d55e00", "failed": "#c2435a"}
STATE_SHAPES = ("circle", "cross", "triangle-down")


def mask_shares(shares: Sequence[LayerShare]) -> Figure | Undrawn:
    """The share of every mask in every layer."""
    title = "Where the masks are"
    if not shares:
        return Undrawn(title, "no run here trained under a mask")
    records: Records = [
        {
            "mask": _mask_name(share),
            "layer": share.layer,
            "share": rounded(share.share),
            "density": round(share.density, 7),
        }
        for share in shares
    ]
    layers = sorted({share.layer for share in shares}, key=layer_order)
    base = alt.Chart(alt.NamedData("shares")).encode(
        x=alt.X("mask:N", title=None, axis=alt.Axis(labelAngle=-40, labelLimit=240)),
        y=alt.Y("layer:N", sort=layers, title=None, axis=alt.Axis(labelLimit=220)),
        tooltip=[
            alt.Tooltip("mask:N"),
            alt.Tooltip("layer:N"),
            alt.Tooltip("share:Q", format=".2%", title="of what trains"),
            alt.Tooltip("density:Q", format=".3%", title="of the layer"),
        ],
    )
    rectangles = base.mark_rect().encode(
        color=alt.Color(
            "share:Q",
            scale=alt.Scale(scheme="blues", domainMin=0),
            legend=alt.Legend(format="~%", title="of what trains"),
        )
    )
    numbers = base.mark_text(fontSize=10).encode(
        text=alt.Text("share:Q", format=".0%"),
        color=alt.condition(
            alt.datum.share > 0.5 * max(share.share for share in shares),
            alt.value("white"),
            alt.value("#1c2733"),
        ),
    )
    return Figure(
        name="mask-shares",
        title=title,
        text="Share of all trained scalars that is in each layer, mean over seeds.",
        chart=layered(rectangles, numbers, width=step(46), height=step(18)),
        data={"shares": records},
    )


def search_history(search: SearchReport) -> Figure | Undrawn:
    """The score of every trial of a search, in order, and the best so far."""
    key = f"search-{search.search_id}"
    shots = "" if search.shots is None else f" · {search.shots} shots"
    where = f"{search.label} · {search.task} · {search.backbone}{shots}"
    title = f"Search {search.search_id} · {where}"
    if all(trial.score is None for trial in search.trials):
        nothing = f"none of its {len(search.trials)} trials has a score"
        return Undrawn(title, search.note.rstrip(".") if search.note else nothing)
    first = 1 + max((t.number for t in search.trials if t.study == "search"), default=0)
    records: Records = [
        {
            "trial": trial.number + (0 if trial.study == "search" else first),
            "study": trial.study,
            "state": trial.state,
            "score": rounded(trial.score),
            "steps": trial.steps,
            "values": ", ".join(f"{name} {_setting(v)}" for name, v in trial.values.items()),
            "error": trial.error,
        }
        for trial in search.trials
    ]
    base = alt.Chart(alt.NamedData(key))
    x = alt.X("trial:Q", title="trial", axis=alt.Axis(tickMinStep=1))
    y = alt.Y(
        "score:Q", scale=alt.Scale(zero=False), axis=alt.Axis(format="~%"), title="OOD validation"
    )
    best = (
        base.transform_filter("datum.study === 'search' && datum.state === 'complete'")
        .transform_window(best="max(score)", sort=[alt.SortField("trial")])
        .mark_line(interpolate="step-after", color=NEUTRAL)
        .encode(x=x, y=alt.Y("best:Q", scale=alt.Scale(zero=False), title=""))
    )
    states = [*STATES]
    marks = base.mark_point(filled=True, size=55).encode(
        x=x,
        y=y,
        color=alt.Color("state:N", scale=alt.Scale(domain=states, range=[*STATES.values()])),
        shape=alt.Shape("state:N", scale=alt.Scale(domain=states, range=[*STATE_SHAPES])),
        opacity=alt.OpacityValue(
            0.45, condition={"test": "(datum.study === 'search')", "value": 1}
        ),
        tooltip=[
            alt.Tooltip("trial:Q"),
            alt.Tooltip("study:N"),
            alt.Tooltip("state:N"),
            alt.Tooltip("score:Q", format=PERCENT),
            alt.Tooltip("steps:Q"),
            alt.Tooltip("values:N"),
            alt.Tooltip("error:N"),
        ],
    )
    return Figure(
        name=key,
        title=title,
        text=(
            "Score on OOD validation by trial; crosses were stopped at a rung, pale ones repeat "
            "the best on fresh seeds, the line is the best so far."
        ),
        chart=layered(best, marks, width=420, height=200),
        data={key: records},
    )


def learned_weights(found: Sequence[SearchReport]) -> Figure | Undrawn:
    """The values that the searches found, a row for each setting."""
    title = "What the searches found"
    if not found:
        return Undrawn(title, "no run here searched its settings")
    records: Records = [
        {
            "setting": name,
            "value": value,
            "method": search.label,
            "where": f"{search.task} · {search.backbone}",
            "search": search.search_id,
        }
        for search in found
        for name, value in positive_settings(search).items()
    ]
    if not records:
        return Undrawn(title, "no setting that was found is a positive number with a point")
    labels = list(dict.fromkeys(r["method"] for r in records))
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(labels))]
    chart = (
        alt.Chart(alt.NamedData("learned"))
        .mark_point(filled=True, size=50, opacity=0.8)
        .encode(
            x=alt.X(
                "value:Q", scale=alt.Scale(type="log"), axis=alt.Axis(format="~g", tickCount=6)
            ),
            y=alt.Y("setting:N", title=None),
            yOffset="method:N",
            color=alt.Color("method:N", scale=alt.Scale(domain=labels, range=colours), title=None),
            tooltip=[
                alt.Tooltip("setting:N"),
                alt.Tooltip("value:Q", format=".3g"),
                alt.Tooltip("method:N"),
                alt.Tooltip("where:N"),
                alt.Tooltip("search:N"),
            ],
        )
    )
    return Figure(
        name="learned-weights",
        title=title,
        text="Each mark is a search: the weights of its losses, and its other positive settings.",
        chart=plain(chart, width=480, height=step(10)),
        data={"learned": records},
    )


def positive_settings(search: SearchReport) -> dict[str, float]:
    """The settings that a logarithmic axis can show; whole numbers, such as seeds, are none."""
    return {
        name: value
        for name, value in search.values.items()
        if isinstance(value, float) and value > 0
    }


def _mask_name(share: LayerShare) -> str:
    shots = "" if share.shots is None else f" · {share.shots} shots"
    return f"{share.label} · {share.task} · {share.backbone}{shots}"


def _setting(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value)
