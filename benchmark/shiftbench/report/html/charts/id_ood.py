"""Accuracy under each shift against accuracy in distribution, with published models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import altair as alt
import numpy as np

from shiftbench.data.tasks.definition import ID_TEST
from shiftbench.evaluation.robustness import AXES
from shiftbench.leaderboard.schema import REAL
from shiftbench.report.cloud import IMAGENET
from shiftbench.report.corruptions import shown_shifts
from shiftbench.report.html.charts.composed import Chart, layered, side_by_side, stacked
from shiftbench.report.html.charts.encodings import (
    PERCENT,
    domain,
    dots,
    facts,
    fade,
    fixed,
    heading,
    stroke,
)
from shiftbench.report.html.charts.figure import (
    MUTED,
    NEUTRAL,
    Figure,
    Records,
    Undrawn,
)
from shiftbench.report.html.charts.labels import NARROWEST, Ends, Point, placed
from shiftbench.report.html.charts.labels import layers as names
from shiftbench.report.html.charts.records import RankingRecords, logit_of, rounded
from shiftbench.report.model import Report
from shiftbench.report.scores import MEAN
from shiftbench.report.words import set_metric, short, title_of

MAIN = (900, 440)  # pixels
PANEL = 230
COLUMNS = 4
ENOUGH = 8  # methods, of which one can be far out
TICKS = (0.01, 0.02, *(t / 20 for t in range(1, 20)), 0.98, 0.99, 0.995, 0.999)
EQUAL = [{"x": end, "y": end} for end in (-10.0, 10.0)]
"""Where both accuracies are equal, in logits, beyond any axis."""
_OF_LOGIT = "format(1 / (1 + exp(-datum.value)), '.3~%')"


def id_ood(records: RankingRecords, report: Report) -> Figure | Undrawn:
    """A large panel for the mean over shifts and a small one for each, both axes in logits."""
    ranking, axes = records.ranking, records.of_ranking.axes
    shifts = ranking.shifts
    title = f"ID and OOD · {title_of(ranking)}"
    if not shifts:
        return Undrawn(title, "the task has no shift")
    if fault := _no_fractions(records):
        return Undrawn(title, fault)
    shown = shifts if len(shifts) == 1 else shown_shifts(ranking)
    wanted = [MEAN] * (len(shifts) > 1) + [*shown]
    lacking = {name: _lacking(name, records) for name in wanted}
    panels = [name for name, reason in lacking.items() if not reason]
    if not panels:
        return Undrawn(title, _listed(lacking, "no point on"))
    models, trend = _cloud_records(report), _trend_records(report)
    published = [shift for shift in shifts if shift in axes and models]
    text = (
        "Each mark is a method (mean over seeds, bars: 95 % intervals), lines join the points of "
        "an alpha curve; both axes are in logits, dashed: equal accuracy. Named, where there "
        "is room: the recommended recipe, zero-shot, the best in and out of distribution, and what "
        "no other method beats in both, or in accuracy and cost."
    )
    if any("muted" in point for point in records.points):
        text += " All others are paler until they are chosen below."
    if published:
        text += (
            f" Grey: published models ({', '.join(published)}), their trend and its 95 % band "
            "as far as they were trained on ImageNet alone."
        )
    elif ranking.data_kind != REAL:
        text += " Published models are of real data, so none is here."
    text += _untrended(records, report)
    if far_out := _far_out(panels[0], records):
        text += f" Below the axes, since far worse than all others: {', '.join(far_out)}."
    if absent := {name: reason for name, reason in lacking.items() if reason}:
        text += f" {_listed(absent, 'No panel for')}."
    return Figure(
        name=f"{records.key}-id-ood",
        title=title,
        text=text,
        chart=_concatenated(
            [_panel(name, records, trend, large=i == 0) for i, name in enumerate(panels)]
        ),
        data={
            **records.data,
            f"{records.key}-named": _named(panels[0], records, trend),
            "cloud": models,
            "baseline": trend,
            "equal": EQUAL,
        },
    )


def _concatenated(panels: Sequence[Chart]) -> Chart:
    """The first above the others."""
    first, *others = panels
    return stacked(first, side_by_side(*others, columns=COLUMNS)) if others else first


def _named(set_name: str, records: RankingRecords, trend: Records) -> Records:
    """Labels of the few marks that a reader looks for; none outside of the axes."""
    far_out = {*_far_out(set_name, records)}
    of_set = [
        Point(r["x"], r["y"], {key: r[key] for key in ("method", "x", "y", "muted") if key in r})
        for r in records.points
        if r["set"] == set_name and r["x"] is not None and r["method"] not in far_out
    ]
    ends = _ends(set_name, records, trend)
    return placed(of_set, records.prominent, *ends, (NARROWEST, MAIN[1]))


def _ends(set_name: str, records: RankingRecords, trend: Records) -> tuple[Ends, Ends]:
    """Ends of both axes of a panel: where ours and the trend are; worse models are cut off."""
    far_out = {*_far_out(set_name, records)}
    ours = [
        r
        for r in (*records.points, *records.curve)
        if r["set"] == set_name and r["x"] is not None and r["method"] not in far_out
    ]
    shown = [*ours, *_of_set(set_name, records, trend)]
    return domain(r["x"] for r in shown), domain(r["y"] for r in shown)


def _of_set(set_name: str, records: RankingRecords, trend: Records) -> Records:
    """The published trend on a set, where ours are on its axis."""
    return [r for r in trend if r["set"] == set_name and set_name in records.of_ranking.axes]


def _far_out(set_name: str, records: RankingRecords) -> list[str]:
    """Methods so much worse than the others that they would squeeze them: below Tukey's fence."""
    points = [r for r in records.points if r["set"] == set_name and r["x"] is not None]
    if len(points) < ENOUGH:
        return []
    values = np.array([(r["x"], r["y"]) for r in points])
    first, third = np.quantile(values, (0.25, 0.75), axis=0)
    outside = np.any(values < first - 1.5 * (third - first), axis=1)
    return [r["method"] for r, out in zip(points, outside, strict=True) if out]


def _no_fractions(records: RankingRecords) -> str:
    """Why scores cannot be put on axes in logits of fractions; "" if they can."""
    ranking = records.ranking
    others = [
        f"{set_metric(ranking, name)} of {name}"
        for name in (ID_TEST, *ranking.shifts)
        if name in ranking.metrics and not ranking.scale_on(name).percent
    ]
    if others:
        return f"its axes are of fractions, and {', '.join(others)} is none"
    if not ranking.scale_on(MEAN).percent:
        return "the metrics of the shifts have no mean"
    return ""


def _lacking(set_name: str, records: RankingRecords) -> str:
    """Why a panel would have no point; "" if it has one."""
    points = [r for r in (*records.points, *records.curve) if r["set"] == set_name]
    if not points:
        return "no method has all shifts" if set_name == MEAN else "no method has a value"
    id_name = records.of_ranking.axes.get(set_name, ID_TEST)
    return "" if any(r["x"] is not None for r in points) else f"no method has {id_name}"


def _listed(reasons: Mapping[str, str], begins: str) -> str:
    """Reasons, each with the sets that it is of."""
    sets: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        sets.setdefault(reason, []).append(heading(name))
    return "; ".join(f"{begins} {', '.join(of)}: {reason}" for reason, of in sets.items())


def _untrended(records: RankingRecords, report: Report) -> str:
    """Why shifts of the real ImageNet have no trend, each with what it lacks."""
    ranking, axes = records.ranking, records.of_ranking.axes
    if ranking.data_kind != REAL or ranking.task != IMAGENET:
        return ""
    if not report.cloud:
        why = report.trend_note or report.published_note or "the published models are not there"
        return f" No trend: {why}."
    reasons: dict[str, list[str]] = {}
    for shift in (shift for shift in ranking.shifts if shift not in axes):
        if shift not in AXES:
            why = "no published model has a value"
        elif shift not in ranking.metrics:
            why = "no run here has a value"
        elif ranking.metrics[shift] != "accuracy":
            why = f"the trend is of accuracy, and ours is {set_metric(ranking, shift)}"
        else:
            why = f"no run here has {AXES[shift]}"
        reasons.setdefault(why, []).append(shift)
    return "".join(f" No trend for {', '.join(of)}: {why}." for why, of in reasons.items())


def _cloud_records(report: Report) -> Records:
    return [
        {
            "set": p.shift,
            "model": p.model,
            "training": "ImageNet alone" if p.standard else "other",
            "id": rounded(p.id_accuracy),
            "value": rounded(p.ood_accuracy),
            "x": rounded(logit_of(p.id_accuracy)),
            "y": rounded(logit_of(p.ood_accuracy)),
        }
        for p in report.cloud
    ]


def _trend_records(report: Report) -> Records:
    return [
        {
            "set": p.shift,
            "x": rounded(logit_of(p.id_accuracy)),
            "y": rounded(logit_of(p.ood_accuracy)),
            "low": rounded(logit_of(p.low)),
            "high": rounded(logit_of(p.high)),
        }
        for p in report.baselines
    ]


def _panel(set_name: str, records: RankingRecords, trend: Records, *, large: bool) -> Chart:
    of_set = _of_set(set_name, records, trend)
    id_name = records.of_ranking.axes.get(set_name, ID_TEST)
    metric = set_metric(records.ranking, ID_TEST)
    x_scale, y_scale = map(fixed, _ends(set_name, records, trend))
    axis = alt.Axis(
        values=tuple(round(logit_of(t), 5) for t in TICKS),
        labelExpr=_OF_LOGIT,
        labelOverlap="greedy",
    )
    x = alt.X("x:Q", scale=x_scale, axis=axis, title=f"{id_name} ({metric})")
    y = alt.Y("y:Q", scale=y_scale, axis=axis, title=short(set_name) if set_name != MEAN else MEAN)
    dashed = alt.Chart(alt.NamedData("equal")).mark_line(
        clip=True, strokeDash=[4, 4], color=NEUTRAL
    )
    layers: list[alt.Chart] = [dashed.encode(x=x, y=y)]
    if of_set:
        layers += _published_layers(set_name, id_name, x, y, y_scale)
    layers += _our_layers(set_name, id_name, records, x, y, y_scale)
    if large:
        layers += names(alt.Chart(alt.NamedData(f"{records.key}-named")), x, y)
    width, height = MAIN if large else (PANEL, PANEL)
    return layered(*layers, width=width, height=height, title=heading(set_name))


def _published_layers(
    set_name: str, id_name: str, x: alt.X, y: alt.Y, y_scale: alt.Scale
) -> list[alt.Chart]:
    """Published models, and their trend with its band."""
    wanted = alt.datum.set == set_name
    models = alt.Chart(alt.NamedData("cloud")).transform_filter(wanted)
    trend = alt.Chart(alt.NamedData("baseline")).transform_filter(wanted)
    tooltip = [
        alt.Tooltip("model:N"),
        alt.Tooltip("training:N", title="trained on"),
        *_accuracies(id_name, set_name),
    ]
    filled = alt.condition(alt.datum.training == "other", alt.value(0.25), alt.value(0.6))
    band = alt.Y("low:Q", scale=y_scale, title="")
    return [
        models.mark_circle(size=14, color=MUTED, clip=True).encode(
            x=x, y=y, opacity=filled, tooltip=tooltip
        ),
        trend.mark_area(opacity=0.25, color=NEUTRAL, clip=True).encode(x=x, y=band, y2="high:Q"),
        trend.mark_line(color=NEUTRAL, strokeWidth=1.2, clip=True).encode(x=x, y=y),
    ]


def _our_layers(
    set_name: str, id_name: str, records: RankingRecords, x: alt.X, y: alt.Y, y_scale: alt.Scale
) -> list[alt.Chart]:
    """Curves, and methods with their intervals."""
    wanted = alt.datum.set == set_name
    names, styles = records.names, records.styles
    curve = alt.Chart(alt.NamedData(f"{records.key}-curve")).transform_filter(wanted)
    points = alt.Chart(alt.NamedData(f"{records.key}-points")).transform_filter(wanted)
    of_method = [alt.Tooltip("method:N"), *_accuracies(id_name, set_name), *facts()]
    of_curve = [
        alt.Tooltip("method:N"),
        alt.Tooltip("alpha:Q"),
        *_accuracies(id_name, set_name),
        alt.Tooltip("seeds:Q"),
    ]
    return [
        curve.mark_line(clip=True, strokeWidth=1.5).encode(
            x=x,
            y=y,
            stroke=stroke(names, styles),
            detail="method:N",
            order="alpha:Q",
            opacity=fade(mute=True),
        ),
        dots(curve, x, y, names, styles, of_curve, size=14),
        points.mark_rule(clip=True, strokeWidth=1).encode(
            x=x,
            y=alt.Y("ylow:Q", scale=y_scale, title=""),
            y2="yhigh:Q",
            stroke=stroke(names, styles),
            opacity=fade(0.35, mute=True),
        ),
        dots(points, x, y, names, styles, of_method),
    ]


def _accuracies(id_name: str, set_name: str) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("id:Q", format=PERCENT, title=id_name),
        alt.Tooltip("value:Q", format=PERCENT, title=set_name),
    ]
