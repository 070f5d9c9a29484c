"""The page: a report's model and its charts in one file that fetches nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from shiftbench.core.files import written_atomically
from shiftbench.data.tasks.definition import ID_TEST
from shiftbench.report.html import assets
from shiftbench.report.html.charts.drawn import ranking_charts, report_charts
from shiftbench.report.html.charts.figure import Figure, Style, Undrawn, styles
from shiftbench.report.model import Report
from shiftbench.report.ranking import RankedMethod, Ranking
from shiftbench.report.scale import ACCURACY, NONE
from shiftbench.report.scores import MEAN, Estimate
from shiftbench.report.trainings import HEIGHT, SEEDS, WIDTH
from shiftbench.report.words import (
    OUTSIDE,
    TRADEOFFS,
    duration,
    metrics_of,
    missing_text,
    set_metric,
    short,
    shots_text,
    title_of,
    tradeoff_cells,
    tradeoff_header,
)

SHAPE_PATHS = {
    "circle": "M8 2.5a5.5 5.5 0 1 0 .01 0z",
    "square": "M3 3h10v10H3z",
    "triangle-up": "M8 2l6 11H2z",
    "diamond": "M8 1.5l4.5 6.5L8 14.5 3.5 8z",
    "cross": "M6 2h4v4h4v4h-4v4H6v-4H2V6h4z",
    "triangle-down": "M8 14L2 3h12z",
}


@dataclass(frozen=True)
class ScoreColumn:
    """A column of a ranking's table: an evaluation set, or their mean."""

    set_name: str
    heading: str
    explanation: str


def render(report: Report, version: str = "") -> str:
    """The page as HTML.

    Args:
        report: what it shows.
        version: of the rows, on a page that is served: it asks for that of those there are by then.
    """
    style = styles(report)
    rankings = []
    figures: list[Figure] = []
    for number, of_ranking in enumerate(report.rankings, start=1):
        key = f"r{number}"
        drawn, undrawn = _parted(ranking_charts(of_ranking, report, style, key))
        figures += drawn
        rankings.append({"key": key, "report": of_ranking, "figures": drawn, "undrawn": undrawn})
    others, undrawn = _parted(report_charts(report))
    figures += others
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("shiftbench.report.html"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., str]] = {
        "percent": ACCURACY.text,
        "duration": duration,
        "shots": shots_text,
        "thousands": lambda number: f"{number:,}",
        "setting": setting_text,
        "order": order,
    }
    environment.filters |= filters
    environment.globals |= {
        "NONE": NONE,
        "MEAN": MEAN,
        "columns": columns,
        "score_title": score_title,
        "interval": interval,
        "metrics_of": metrics_of,
        "marker": lambda method: marker(style.get(method)),
        "title_of": title_of,
        "sort_value": sort_value,
        "remark_of": remark_of,
        "TRADEOFFS": TRADEOFFS,
        "tradeoff_header": tradeoff_header,
        "tradeoff_cells": tradeoff_cells,
        "SEEDS": SEEDS,
        "WIDTH": WIDTH,
        "HEIGHT": HEIGHT,
    }
    return environment.get_template("page.html.jinja").render(
        report=report,
        rankings=rankings,
        search_figures={f.name: f for f in others},
        other_figures=[f for f in others if not f.name.startswith("search-")],
        undrawn=undrawn,
        filters=_filters(report),
        counts=_counts(report),
        css=_own("page.css"),
        script=_own("page.js"),
        version=version,
        live=_own("live.js") if version else "",
        vega=_script(assets.vega()) if figures else "",
        datatables=_script(assets.datatables()),
        charts=as_json(
            {
                "specs": {figure.name: figure.spec(with_data=False) for figure in figures},
                "datasets": {key: of for figure in figures for key, of in figure.data.items()},
            }
        ),
    )


def write_html(path: Path, report: Report) -> None:
    """Write ``render`` so that the file appears whole or not at all."""
    text = render(report)
    with written_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def as_json(value: Any) -> Markup:
    """JSON that can stand in a script element: no text in it can end the element or open another.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704


def _own(name: str) -> Markup:
    """A file of this package, which holds nothing that was not written for the page."""
    return Markup(assets.static(name))  # noqa: S704


def _script(text: str) -> Markup:
    """A library's text inside a script element.

    In a script, ``<`` before these words is only ever in a string or a regular expression, where
    the escape means the same.
    """
    return Markup(re.sub(r"<(?=!--|/?script)", r"\\x3c", text, flags=re.IGNORECASE))  # noqa: S704


# What cells of the tables say


def columns(ranking: Ranking) -> list[ScoreColumn]:
    """Evaluation sets of a ranking's table, in distribution first and the mean last."""
    sets = [*([ID_TEST] if ID_TEST in ranking.metrics else []), *ranking.shifts]
    of_sets = [ScoreColumn(name, short(name), _explained(ranking, name)) for name in sets]
    if len(ranking.shifts) == 1:  # it is the mean
        (shift,) = ranking.shifts
        only = ScoreColumn(MEAN, short(shift), f"{_explained(ranking, shift)}; ranks")
        return [*(column for column in of_sets if column.set_name != shift), only]
    if not ranking.shifts:
        return of_sets
    unit = _unit(ranking, MEAN)
    over = f"mean over {', '.join(ranking.shifts)}{unit}; ranks"
    return [*of_sets, ScoreColumn(MEAN, short(MEAN), over)]


def interval(ranking: Ranking, set_name: str, estimate: Estimate | None) -> str:
    """The 95 % interval of a score, empty where there is none."""
    if estimate is None:
        return ""
    return ranking.scale_on(set_name).interval(estimate.low, estimate.high)


def remark_of(method: RankedMethod, set_name: str) -> str | None:
    """Why a score is marked as not the whole truth; ``None`` when it is."""
    estimate = method.scores.get(set_name)
    if estimate is not None:
        return estimate.remark
    return missing_text(method.scores.missing) if set_name == MEAN else None


def order(text: str) -> str:
    """A key to sort numbers in words by, such as ``+1,234``; what is none comes last."""
    return "-1e9" if text == NONE else text.replace(",", "").replace("+", "").replace(OUTSIDE, "")


def sort_value(ranking: Ranking, set_name: str, estimate: Estimate | None) -> str:
    """A key to sort scores by: missing ones come last when the best are first."""
    lower = ranking.scale_on(set_name).higher_is_better is False
    if estimate is None:
        return "1e9" if lower else "-1"
    return f"{estimate.mean:.6f}"


def score_title(ranking: Ranking, method: RankedMethod, set_name: str) -> str:
    """All that is known of a score, for its tooltip."""
    estimate, remark = method.scores.get(set_name), remark_of(method, set_name)
    if estimate is None and remark is None:
        return f"{method.name} has no result on {set_name}"
    parts = [f"{method.name} · {set_name}"]
    if estimate is not None:
        scale = ranking.scale_on(set_name)
        parts[0] += f": {scale.text(estimate.mean)}{' %' if scale.percent else ''}"
        if estimate.sd is not None:
            parts.append(f"standard deviation over seeds {scale.text(estimate.sd)}")
        ends = interval(ranking, set_name, estimate)
        known = f"95 % interval {ends} ({estimate.interval})"
        parts.append(known if ends else "no interval: one seed")
        if estimate.n:
            parts.append(f"{' or '.join(f'{n:,}' for n in estimate.n)} images")
    seeds = method.seeds if estimate is None else estimate.seeds
    parts.append(f"seeds {', '.join(map(str, seeds))}")
    parts.append(f"selection {method.selection}, cost {duration(method.cost_seconds)}")
    if remark:
        parts.append(f"partial: {remark}")
    parts += method.provenance
    return "\n".join(parts)


def marker(style: Style | None) -> Markup:
    """A method's mark as in the charts."""
    if style is None:
        return Markup("")
    return Markup(
        '<svg class="marker" viewBox="0 0 16 16" aria-hidden="true"><path d="{}" fill="{}"/></svg>'
    ).format(SHAPE_PATHS[style.shape], style.colour)


def setting_text(value: object) -> str:
    """A setting, with as many digits as anyone reads."""
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _explained(ranking: Ranking, set_name: str) -> str:
    return f"{set_name}: {set_metric(ranking, set_name)}{_unit(ranking, set_name)}"


def _unit(ranking: Ranking, set_name: str) -> str:
    return ", percent" if ranking.scale_on(set_name).percent else ""


def _parted(charts: Sequence[Figure | Undrawn]) -> tuple[list[Figure], list[Undrawn]]:
    """The charts that are drawn, and those that are not."""
    drawn = [chart for chart in charts if isinstance(chart, Figure)]
    return drawn, [chart for chart in charts if isinstance(chart, Undrawn)]


def _filters(report: Report) -> dict[str, Sequence[str]]:
    """The values that the page can be narrowed to, by name."""
    rankings = [of_ranking.ranking for of_ranking in report.rankings]
    return {
        "task": list(dict.fromkeys(ranking.task for ranking in rankings)),
        "backbone": list(dict.fromkeys(ranking.backbone for ranking in rankings)),
        "shots": list(dict.fromkeys(shots_text(ranking.shots) for ranking in rankings)),
    }


def _counts(report: Report) -> dict[str, int]:
    return {
        "done": sum(run.status == "done" for run in report.runs),
        "failed": len(report.failures),
        "incomplete": len(report.incomplete),
        "remarks": len(report.data_remarks),
        "leaks": len(report.leaks),
        "faults": len(report.golden_faults),
        "untied": sum(not of_ranking.ties.known for of_ranking in report.rankings),
    }
