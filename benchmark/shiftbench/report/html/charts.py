"""The page's charts: Altair charts over named data, so that several may share them.

Axes in logits are linear axes of transformed values, since Vega has no such scale. All charts have
a parameter ``wanted``: methods whose name does not contain it fade.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt
import numpy as np
from altair.utils.schemapi import debug_mode

from shiftbench.data.tasks.definition import ID_TEST
from shiftbench.evaluation.frontier import pareto
from shiftbench.report.curves import MEAN
from shiftbench.report.html.data import (
    Board,
    BoardLine,
    Page,
    SearchHistory,
    Share,
)
from shiftbench.report.ranking import ORACLE, Estimate
from shiftbench.report.terminal import SHORT, duration, title

Records = list[dict[str, Any]]
Chart = alt.Chart | alt.LayerChart | alt.ConcatChart | alt.HConcatChart | alt.FacetChart

COLOURS = ("#0072b2", "#d55e00", "#00855f", "#b0599b", "#a06a00", "#7a63c9", "#c2435a", "#6f7782")
"""Distinct for most colour-blind people, and of contrast ≥ 3 on white and on the dark page."""
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
MUTED = "#808a96"  # of what is not ours
NEUTRAL = "#7d8590"
STATES = {"complete": "#0072b2", "stopped": "#d55e00", "failed": "#c2435a"}
STATE_SHAPES = ("circle", "cross", "triangle-down")
TICKS = (0.01, 0.02, *(t / 20 for t in range(1, 20)), 0.98, 0.99, 0.995, 0.999)
SECONDS = (0, 1, 3, 10, 30, 120, 600, 2400, 7200, 36_000, 180_000, 900_000)
EQUAL = [{"x": end, "y": end} for end in (-10.0, 10.0)]
"""Where both accuracies are equal, in logits, beyond any axis."""
PANEL, NARROW = 290, 190  # pixels
WANTED = "wanted"
FADED = 0.08

_PERCENT = ".1%"
_OF_LOGIT = "format(1 / (1 + exp(-datum.value)), '.3~%')"
_OF_SECONDS = (
    "datum.value < 100 ? format(datum.value, '.0f') + ' s' : datum.value < 6000 ? "
    "format(datum.value / 60, '.0f') + ' min' : format(datum.value / 3600, '.0f') + ' h'"
)


@dataclass(frozen=True)
class Style:
    """How a method is drawn, the same in all charts."""

    colour: str
    shape: str


@dataclass(frozen=True)
class Figure:
    """A chart with its data.

    Attributes:
        name: for files: lower case, digits and hyphens.
        title: for people.
        text: what it shows, which stands in for it where it cannot be seen.
        chart: over data named as in ``data``.
        data: records by name; names are unique in a page, and equal ones mean equal records.
    """

    name: str
    title: str
    text: str
    chart: Chart
    data: Mapping[str, Records] = field(repr=False)

    def spec(self, *, with_data: bool) -> dict[str, Any]:
        """The chart in Vega-Lite, with its data or to be joined with them by name."""
        with debug_mode(False):
            spec: dict[str, Any] = self.chart.to_dict(validate=False)
        spec["params"] = [*spec.get("params", []), {"name": WANTED, "value": ""}]
        spec["description"] = f"{self.title}. {self.text}"
        if with_data:
            spec["datasets"] = dict(self.data)
        return spec


def styles(page: Page) -> dict[str, Style]:
    """A style for every method of a page."""
    lines = (line for board in page.boards for line in board.lines)
    ours = [line.name for line in lines if line.line.selection != ORACLE]
    # Curves cross each other, so they come first: the first styles differ in colour.
    curves = [point.name for board in page.boards for point in board.curves]
    names = dict.fromkeys([*curves, *ours])
    return {
        name: Style(COLOURS[i % len(COLOURS)], SHAPES[i // len(COLOURS) % len(SHAPES)])
        for i, name in enumerate(names)
    }


def board_figures(board: Board, page: Page, style: Mapping[str, Style], key: str) -> list[Figure]:
    """The charts of one ranking.

    Args:
        board: the ranking.
        page: that it is on, for the published cloud.
        style: of ``styles``.
        key: tells the names of its data from those of others.
    """
    with debug_mode(False):  # without validating each piece; the tests do
        return _board_figures(board, page, style, key)


def _board_figures(board: Board, page: Page, style: Mapping[str, Style], key: str) -> list[Figure]:
    shown = [line for line in board.lines if line.line.selection != ORACLE]
    if not any(line.cells for line in shown):
        return []
    points, curve = point_records(shown, board), curve_records(board)
    data = {f"{key}-points": points, f"{key}-curve": curve}
    figures = []
    if board.ranking.shifts:
        figures.append(id_ood(board, page, style, key, data))
    figures.append(cells_chart(board, style, key, data))
    if curve:
        figures.append(alpha_curves(board, style, key, data))
    if len({p["method"] for p in points if p["cost"] is not None}) > 1:
        figures.append(cost_accuracy(board, style, key, data))
    return figures


def page_figures(page: Page, style: Mapping[str, Style]) -> list[Figure]:
    """The charts of a page that are of no single ranking."""
    figures = []
    with debug_mode(False):
        if page.shares:
            figures.append(mask_shares(page.shares))
        figures += [search_history(search) for search in page.searches if search.trials]
        if any(_weights(search) for search in page.searches):
            figures.append(learned_weights(page.searches))
    return figures


def all_figures(page: Page) -> list[Figure]:
    """Every chart of a page, with unique names."""
    style = styles(page)
    figures = [
        figure
        for number, board in enumerate(page.boards, start=1)
        for figure in board_figures(board, page, style, f"r{number}")
    ]
    return [*figures, *page_figures(page, style)]


# Records


def logit_of(value: float, n: int | None = None) -> float:
    """The logit, of 0 and 1 as if half an image were otherwise."""
    least = 0.5 / (n or 1000)
    inside = min(max(value, least), 1 - least)
    return math.log(inside / (1 - inside))


def point_records(lines: Sequence[BoardLine], board: Board) -> Records:
    """A record for each method and evaluation set, and for the mean over shifts."""
    records = []
    for line in lines:
        for set_name, cell in line.cells.items():
            if cell.estimate is None or set_name not in (ID_TEST, *board.ranking.shifts, MEAN):
                continue
            record = _record(line.name, set_name, line.estimate(board.axes.get(set_name, ID_TEST)))
            record |= _numbers(cell.estimate)
            records.append(
                record
                | {
                    "kind": cell.interval or "",
                    "n": cell.n,
                    "seeds": len(cell.seeds),
                    "selection": line.line.selection,
                    "cost": line.line.cost_seconds,
                    "spent": duration(line.line.cost_seconds),
                    "note": cell.remark or "",
                }
            )
    return records


def curve_records(board: Board) -> Records:
    """A record for each point of a curve and each evaluation set."""
    records = []
    for point in board.curves:
        for set_name, estimate in point.cells.items():
            if set_name not in (ID_TEST, *board.ranking.shifts, MEAN):
                continue
            reference = point.cells.get(board.axes.get(set_name, ID_TEST))
            record = _record(point.name, set_name, reference) | _numbers(estimate)
            records.append(record | {"alpha": point.alpha, "seeds": estimate.seeds})
    return records


def _record(method: str, set_name: str, reference: Estimate | None) -> dict[str, Any]:
    mean = None if reference is None else reference.mean
    return {
        "method": method,
        "set": set_name,
        "id": _rounded(mean),
        "x": None if mean is None else _rounded(logit_of(mean)),
    }


def _numbers(estimate: Estimate) -> dict[str, Any]:
    mean = estimate.mean
    known = estimate.low is not None and estimate.high is not None
    # Without an interval the bar has no length: Vega warns of axes without any number.
    low = mean if estimate.low is None else estimate.low
    high = mean if estimate.high is None else estimate.high
    return {
        "value": _rounded(mean),
        "low": _rounded(low),
        "high": _rounded(high),
        "interval": f"{100 * low:.1f} % to {100 * high:.1f} %" if known else "none",
        "y": _rounded(logit_of(mean)),
        "ylow": _rounded(logit_of(low)),
        "yhigh": _rounded(logit_of(high)),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


# Charts of a ranking


def id_ood(
    board: Board, page: Page, style: Mapping[str, Style], key: str, data: Mapping[str, Records]
) -> Figure:
    """Accuracy under each shift against accuracy in distribution, in logits."""
    shifts = board.ranking.shifts
    panels = [MEAN, *shifts] if len(shifts) > 1 else [*shifts]
    cloud: Records = [
        {
            "set": p.shift,
            "model": p.model,
            "training": "ImageNet alone" if p.standard else "other",
            "id": _rounded(p.id_accuracy),
            "value": _rounded(p.ood_accuracy),
            "x": _rounded(logit_of(p.id_accuracy)),
            "y": _rounded(logit_of(p.ood_accuracy)),
        }
        for p in page.cloud
    ]
    line: Records = [
        {
            "set": p.shift,
            "x": _rounded(logit_of(p.id_accuracy)),
            "y": _rounded(logit_of(p.ood_accuracy)),
            "low": _rounded(logit_of(p.low)),
            "high": _rounded(logit_of(p.high)),
        }
        for p in page.baselines
    ]
    charts = [_id_ood_panel(name, board, style, key, data, line) for name in panels]
    published = [shift for shift in shifts if shift in board.axes and cloud]
    text = (
        "Each mark is a method (mean over seeds, bars: 95 % intervals), lines join the points of "
        "an alpha curve; both axes are in logits, dashed: equal accuracy."
    )
    if published:
        text += (
            f" Grey: published models ({', '.join(published)}), their trend and its 95 % band "
            "as far as they were trained on ImageNet alone."
        )
    elif board.ranking.data_kind != "real":
        text += " Published models are of real data, so none is here."
    left = [s for s in shifts if s not in board.axes and board.ranking.task == "imagenet"]
    if published and left:
        text += f" No trend for {', '.join(left)}: our ID accuracy on their classes is not known."
    return Figure(
        name=f"{key}-id-ood",
        title=f"ID and OOD · {title(board.ranking)}",
        text=text,
        chart=alt.concat(*charts, columns=3),
        data={**data, "cloud": cloud, "baseline": line, "equal": EQUAL},
    )


def _id_ood_panel(
    set_name: str,
    board: Board,
    style: Mapping[str, Style],
    key: str,
    data: Mapping[str, Records],
    baseline: Records,
) -> alt.LayerChart | alt.FacetChart:
    wanted = alt.datum.set == set_name
    ours = [r for of in data.values() for r in of if r["set"] == set_name and r["x"] is not None]
    # The axes show where ours and the trend are; models that are worse than it are cut off.
    trend_points = [r for r in baseline if r["set"] == set_name and set_name in board.axes]
    x_domain = _domain([r["x"] for r in (*ours, *trend_points)])
    y_domain = _domain([r["y"] for r in (*ours, *trend_points)])
    axis = alt.Axis(
        values=[round(logit_of(t), 5) for t in TICKS], labelExpr=_OF_LOGIT, labelOverlap="greedy"
    )
    id_name = board.axes.get(set_name, ID_TEST)
    x = alt.X("x:Q", scale=_scale(x_domain), axis=axis, title=f"{id_name} ({_metric(board)})")
    y = alt.Y("y:Q", scale=_scale(y_domain), axis=axis, title=SHORT.get(set_name, set_name))
    dashed = alt.Chart(alt.NamedData("equal")).mark_line(
        clip=True, strokeDash=[4, 4], color=NEUTRAL
    )
    layers: list[alt.Chart] = [dashed.encode(x=x, y=y)]
    if trend_points:
        shown = alt.Chart(alt.NamedData("cloud")).transform_filter(wanted)
        tooltip = [
            alt.Tooltip("model:N"),
            alt.Tooltip("training:N", title="trained on"),
            *_accuracies(id_name, set_name),
        ]
        filled = alt.condition(alt.datum.training == "other", alt.value(0.25), alt.value(0.6))
        layers.append(
            shown.mark_circle(size=14, color=MUTED, clip=True).encode(
                x=x, y=y, opacity=filled, tooltip=tooltip
            )
        )
        trend = alt.Chart(alt.NamedData("baseline")).transform_filter(wanted)
        layers.append(
            trend.mark_area(opacity=0.25, color=NEUTRAL, clip=True).encode(
                x=x, y=alt.Y("low:Q", scale=_scale(y_domain), title=""), y2="high:Q"
            )
        )
        layers.append(trend.mark_line(color=NEUTRAL, strokeWidth=1.2, clip=True).encode(x=x, y=y))
    curve = alt.Chart(alt.NamedData(f"{key}-curve")).transform_filter(wanted)
    names = _names(data)
    colour = _colour(names, style)
    fade = _fade()
    layers.append(
        curve.mark_line(clip=True, strokeWidth=1.5).encode(
            x=x, y=y, color=colour, detail="method:N", order="alpha:Q", opacity=fade
        )
    )
    tooltip = [
        alt.Tooltip("method:N"),
        alt.Tooltip("alpha:Q"),
        *_accuracies(id_name, set_name),
        alt.Tooltip("seeds:Q"),
    ]
    layers.append(
        curve.mark_point(clip=True, size=12, filled=True).encode(
            x=x, y=y, color=colour, tooltip=tooltip, opacity=fade
        )
    )
    points = alt.Chart(alt.NamedData(f"{key}-points")).transform_filter(wanted)
    layers.append(
        points.mark_rule(clip=True, strokeWidth=1).encode(
            x=x,
            y=alt.Y("ylow:Q", scale=_scale(y_domain), title=""),
            y2="yhigh:Q",
            color=colour,
            opacity=_fade(0.35),
        )
    )
    layers.append(
        points.mark_point(clip=True, size=60, filled=True).encode(
            x=x,
            y=y,
            color=_colour(names, style),
            shape=_shape(names, style),
            tooltip=[alt.Tooltip("method:N"), *_accuracies(id_name, set_name), *_facts()],
            opacity=fade,
        )
    )
    heading = "mean over shifts" if set_name == MEAN else set_name
    return alt.layer(*layers).properties(width=PANEL, height=PANEL, title=heading)


def cells_chart(
    board: Board, style: Mapping[str, Style], key: str, data: Mapping[str, Records]
) -> Figure:
    """Every method on every set with its interval, a panel for each set."""
    names = [line.name for line in board.lines if line.line.selection != ORACLE]
    present = {r["set"] for r in data[f"{key}-points"]}
    shifts = board.ranking.shifts
    sets = [MEAN] * (len(shifts) > 1) + [ID_TEST, *shifts]
    panels = []
    for position, set_name in enumerate(s for s in sets if s in present):
        base = (
            alt.Chart(alt.NamedData(f"{key}-points"))
            .transform_filter(alt.datum.set == set_name)
            .encode(
                y=alt.Y(
                    "method:N",
                    sort=names,
                    title=None,
                    scale=alt.Scale(domain=names),
                    axis=alt.Axis(labels=position % 4 == 0, labelLimit=220, grid=True),
                ),
                color=_colour(names, style, legend=False),
                opacity=_fade(),
            )
        )
        axis = alt.Axis(format="~%", tickCount=5)
        metric = board.ranking.metrics.get(set_name, "mean")
        records = [r for r in data[f"{key}-points"] if r["set"] == set_name]
        scale = _accuracy_scale(records)
        x = alt.X("value:Q", scale=scale, axis=axis, title=metric)
        rules = base.mark_rule(clip=True).encode(
            x=alt.X("low:Q", scale=scale, title=metric), x2="high:Q"
        )
        marks = base.mark_point(filled=True, size=45, clip=True).encode(
            x=x,
            shape=_shape(names, style, legend=False),
            tooltip=[
                alt.Tooltip("method:N"),
                alt.Tooltip("value:Q", format=_PERCENT, title=set_name),
                *_facts(),
            ],
        )
        heading = "mean over shifts" if set_name == MEAN else set_name
        panels.append((rules + marks).properties(width=NARROW, height=alt.Step(15), title=heading))
    return Figure(
        name=f"{key}-sets",
        title=f"Each evaluation set · {title(board.ranking)}",
        text=(
            "Methods in the order of the ranking; bars: 95 % intervals, over seeds where there "
            "are several, else over the set's images. Each panel has its own axis, at whose ends "
            "long bars are cut."
        ),
        chart=alt.concat(*panels, columns=4),
        data=data,
    )


def alpha_curves(
    board: Board, style: Mapping[str, Style], key: str, data: Mapping[str, Records]
) -> Figure:
    """Accuracy along every curve, in distribution and under shift."""
    shifts = board.ranking.shifts
    present = {r["set"] for r in data[f"{key}-curve"]}
    names = list(dict.fromkeys(r["method"] for r in data[f"{key}-curve"]))
    panels = []
    for set_name in [ID_TEST, *([MEAN] if len(shifts) > 1 else []), *shifts]:
        if set_name not in present:
            continue
        heading = "mean over shifts" if set_name == MEAN else set_name
        panels.append(
            alt.Chart(alt.NamedData(f"{key}-curve"))
            .transform_filter(alt.datum.set == set_name)
            .mark_line(point=alt.OverlayMarkDef(size=30, filled=True))
            .encode(
                x=alt.X("alpha:Q", title="alpha", axis=alt.Axis(tickCount=5)),
                y=alt.Y(
                    "value:Q",
                    scale=alt.Scale(zero=False),
                    axis=alt.Axis(format="~%", tickCount=5),
                    title=board.ranking.metrics.get(set_name, "mean"),
                ),
                color=_colour(names, style),
                opacity=_fade(),
                tooltip=[
                    alt.Tooltip("method:N"),
                    alt.Tooltip("alpha:Q"),
                    alt.Tooltip("value:Q", format=_PERCENT, title=set_name),
                    _interval(),
                    alt.Tooltip("seeds:Q"),
                ],
            )
            .properties(width=NARROW, height=150, title=heading)
        )
    return Figure(
        name=f"{key}-alpha",
        title=f"Alpha curves · {title(board.ranking)}",
        text=(
            "From the pretrained weights or outputs (alpha 0) to the fine-tuned ones (alpha 1), "
            "mean over seeds. Each panel has its own axis."
        ),
        chart=alt.concat(*panels, columns=4),
        data=data,
    )


def cost_accuracy(
    board: Board, style: Mapping[str, Style], key: str, data: Mapping[str, Records]
) -> Figure:
    """What each method costs, what it gains, and which ones no other beats in both."""
    shifts = board.ranking.shifts
    target = shifts[0] if len(shifts) == 1 else MEAN if shifts else ID_TEST
    points = [r for r in data[f"{key}-points"] if r["set"] == target and r["cost"] is not None]
    best: Iterable[bool] = pareto([(-r["cost"], r["value"]) for r in points]) if points else []
    frontier = [
        {"cost": r["cost"], "value": r["value"]}
        for r, on_it in zip(points, best, strict=True)
        if on_it
    ]
    most = max((r["cost"] for r in points), default=0.0)
    names = _names(data)
    x = alt.X(
        "cost:Q",
        scale=alt.Scale(type="symlog", constant=1, domain=[0, most * 1.3 + 1]),
        axis=alt.Axis(values=[s for s in SECONDS if s <= most * 1.3 + 1], labelExpr=_OF_SECONDS),
        title="device time to train and to search, parents included",
    )
    scale = _accuracy_scale(points)
    y = alt.Y(
        "value:Q",
        scale=scale,
        axis=alt.Axis(format="~%"),
        title=f"{'mean over shifts' if target == MEAN else target}",
    )
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
        color=_colour(names, style),
        opacity=_fade(0.35),
    )
    marks = shown.mark_point(filled=True, size=60).encode(
        x=x,
        y=y,
        color=_colour(names, style),
        shape=_shape(names, style),
        opacity=_fade(),
        tooltip=[
            alt.Tooltip("method:N"),
            alt.Tooltip("spent:N", title="cost"),
            alt.Tooltip("value:Q", format=_PERCENT, title=target),
            *_facts(),
        ],
    )
    chart = alt.layer(line, rules, marks).properties(width=640, height=340)
    return Figure(
        name=f"{key}-cost",
        title=f"Cost and accuracy · {title(board.ranking)}",
        text="Dashed: the frontier that no method beats in both cost and accuracy.",
        chart=chart,
        data={**data, f"{key}-frontier": frontier},
    )


# Other charts


def mask_shares(shares: Sequence[Share]) -> Figure:
    """Where masks are, layer by layer."""
    records: Records = [
        {
            "mask": _mask_name(share),
            "layer": share.layer,
            "share": _rounded(share.share),
            "density": round(share.density, 7),
        }
        for share in shares
    ]
    layers = _merged_order(shares)
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
    cells = base.mark_rect().encode(
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
        title="Where the masks are",
        text="Share of all trained scalars that is in each layer, mean over seeds.",
        chart=(cells + numbers).properties(width=alt.Step(46), height=alt.Step(18)),
        data={"shares": records},
    )


def search_history(search: SearchHistory) -> Figure:
    """The score of every trial of a search, in order, and the best so far."""
    line = search.line
    key = f"search-{line.search_id}"
    records: Records = [
        {
            "trial": trial.number + (0 if trial.study == "search" else first),
            "study": trial.study,
            "state": trial.state,
            "score": _rounded(trial.score),
            "steps": trial.steps,
            "values": ", ".join(f"{name} {_short(v)}" for name, v in trial.values.items()),
            "error": trial.error,
        }
        for first in [1 + max((t.number for t in search.trials if t.study == "search"), default=0)]
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
        opacity=alt.condition(alt.datum.study == "search", alt.value(1), alt.value(0.45)),
        tooltip=[
            alt.Tooltip("trial:Q"),
            alt.Tooltip("study:N"),
            alt.Tooltip("state:N"),
            alt.Tooltip("score:Q", format=_PERCENT),
            alt.Tooltip("steps:Q"),
            alt.Tooltip("values:N"),
            alt.Tooltip("error:N"),
        ],
    )
    shots = "" if line.shots is None else f" · {line.shots} shots"
    return Figure(
        name=key,
        title=f"Search {line.search_id} · {line.label} · {line.task} · {line.backbone}{shots}",
        text=(
            "Score on OOD validation by trial; crosses were stopped at a rung, pale ones repeat "
            "the best on fresh seeds, the line is the best so far."
        ),
        chart=alt.layer(best, marks).properties(width=420, height=200),
        data={key: records},
    )


def learned_weights(found: Sequence[SearchHistory]) -> Figure:
    """What the searches settled on, a row for each setting."""
    records: Records = [
        {
            "setting": name,
            "value": value,
            "method": search.line.label,
            "where": f"{search.line.task} · {search.line.backbone}",
            "search": search.line.search_id,
        }
        for search in found
        for name, value in _weights(search).items()
    ]
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
        .properties(width=480, height=alt.Step(10))
    )
    return Figure(
        name="learned-weights",
        title="What the searches found",
        text="Each mark is a search: the weights of its losses, and its other positive settings.",
        chart=chart,
        data={"learned": records},
    )


# Pieces


def _fade(opacity: float = 1.0) -> Any:
    test = f"{WANTED} === '' || indexof(lower(datum.method), {WANTED}) >= 0"
    return alt.condition(test, alt.value(opacity), alt.value(FADED))


def _names(data: Mapping[str, Records]) -> list[str]:
    return list(dict.fromkeys(r["method"] for of in data.values() for r in of))


def _colour(names: Sequence[str], style: Mapping[str, Style], *, legend: bool = True) -> alt.Color:
    scale = alt.Scale(domain=[*names], range=[style[name].colour for name in names])
    return alt.Color("method:N", scale=scale, legend=_legend() if legend else None)


def _shape(names: Sequence[str], style: Mapping[str, Style], *, legend: bool = True) -> alt.Shape:
    scale = alt.Scale(domain=[*names], range=[style[name].shape for name in names])
    return alt.Shape("method:N", scale=scale, legend=_legend() if legend else None)


def _legend() -> alt.Legend:
    return alt.Legend(
        title=None, orient="bottom", columns=5, symbolLimit=0, labelLimit=200, symbolOpacity=1
    )


def _accuracies(id_name: str, set_name: str) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("id:Q", format=_PERCENT, title=id_name),
        alt.Tooltip("value:Q", format=_PERCENT, title=set_name),
    ]


def _interval() -> alt.Tooltip:
    return alt.Tooltip("interval:N", title="95 % interval")


def _facts() -> list[alt.Tooltip]:
    return [
        _interval(),
        alt.Tooltip("kind:N", title="kind"),
        alt.Tooltip("n:N", title="images"),
        alt.Tooltip("seeds:Q"),
        alt.Tooltip("selection:N"),
        alt.Tooltip("note:N"),
    ]


def _domain(values: Iterable[float], least: float = 0.15) -> tuple[float, float]:
    """Ends of an axis that holds the values with some room.

    Intervals do not count: that of a few seeds can be wider than all values, and is cut off.
    """
    each = np.array([*values], dtype=np.float64)
    if not len(each):
        return -1.0, 1.0
    low, high = float(each.min()), float(each.max())
    room = max(0.08 * (high - low), least)
    return round(low - room, 4), round(high + room, 4)


def _accuracy_scale(records: Iterable[Mapping[str, Any]]) -> alt.Scale:
    """An axis of accuracies: as ``_domain``, within what an accuracy can be."""
    low, high = _domain((r["value"] for r in records), least=0.01)
    return _scale((max(low, 0.0), min(high, 1.005)))


def _scale(domain: tuple[float, float]) -> alt.Scale:
    return alt.Scale(domain=list(domain), nice=False, zero=False)


def _metric(board: Board) -> str:
    return board.ranking.metrics.get(ID_TEST, "no metric")


def _mask_name(share: Share) -> str:
    shots = "" if share.shots is None else f" · {share.shots} shots"
    return f"{share.label} · {share.task} · {share.backbone}{shots}"


def _merged_order(shares: Sequence[Share]) -> list[str]:
    from shiftbench.report.html.data import layer_order

    return sorted({share.layer for share in shares}, key=layer_order)


def _weights(search: SearchHistory) -> dict[str, float]:
    """The settings that a logarithmic axis can show; whole numbers, such as seeds, are none."""
    return {
        name: value
        for name, value in search.line.values.items()
        if isinstance(value, float) and value > 0
    }


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value)
