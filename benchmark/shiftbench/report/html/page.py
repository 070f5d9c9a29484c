"""The page: a report's model and its charts in one file that fetches nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from shiftbench.core.files import written_atomically
from shiftbench.data.tasks.definition import ID_TEST
from shiftbench.report import corruptions, detection
from shiftbench.report.answer import RULE, Answer
from shiftbench.report.answer_words import answers, reasons, without_common
from shiftbench.report.corruptions import shown_shifts
from shiftbench.report.forgetting import NOTE as OTHERS_NOTE
from shiftbench.report.html import assets
from shiftbench.report.html.charts.drawn import ranking_charts, report_charts
from shiftbench.report.html.charts.figure import Figure, Style, Undrawn, styles
from shiftbench.report.html.families import families
from shiftbench.report.html.legend import marker
from shiftbench.report.html.templating import environment
from shiftbench.report.measures import ECE, HEADINGS
from shiftbench.report.measures import NOTE as MEASURES_NOTE
from shiftbench.report.model import RankingReport, Report
from shiftbench.report.ranking import RankedMethod, Ranking
from shiftbench.report.regret import NOTE as RULES_NOTE
from shiftbench.report.scale import ACCURACY, NONE, scale_of
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

if TYPE_CHECKING:
    import jinja2


@dataclass(frozen=True)
class ScoreColumn:
    """A column of a ranking's table: an evaluation set, or their mean.

    Attributes:
        set_name: the set, or ``MEAN``.
        heading: its short name.
        explanation: what its numbers are.
        headline: whether it is ID or the mean, whose intervals are always shown.
    """

    set_name: str
    heading: str
    explanation: str
    headline: bool


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
        rankings.append(
            {
                "key": key,
                "report": of_ranking,
                "figures": drawn,
                "undrawn": undrawn,
                "legend": families(of_ranking) if drawn else {},
            }
        )
    others, undrawn = _parted(report_charts(report))
    figures += others
    return (
        _environment(style)
        .get_template("page.html.jinja")
        .render(
            report=report,
            rankings=rankings,
            answers=answers(report),
            lead=_lead(report),
            rule=RULE,
            search_figures={f.name: f for f in others},
            other_figures=[f for f in others if not f.name.startswith("search-")],
            undrawn=undrawn,
            titles=without_common([title_of(of.ranking) for of in report.rankings])
            if len(report.rankings) > 1
            else [of.ranking.task for of in report.rankings],
            published=bool(report.comparisons or report.golden_faults or report.trend_note),
            gaps=bool(report.failures or report.incomplete or report.data_remarks or report.leaks),
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
    )


def _environment(style: Mapping[str, Style]) -> jinja2.Environment:
    """What templates are rendered with: HTML escaped, and the functions that they call."""
    made = environment()
    filters: dict[str, Callable[..., str]] = {
        "duration": duration,
        "shots": shots_text,
        "thousands": lambda number: f"{number:,}",
        "setting": setting_text,
        "order": order,
        "minus": lambda text: text.replace("-", "−"),
    }
    made.filters |= filters
    made.globals |= {
        "NONE": NONE,
        "accuracy": ACCURACY,
        "MEAN": MEAN,
        "columns": columns,
        "score_title": score_title,
        "interval": interval,
        "metrics_of": metrics_of,
        "ECE": ECE,
        "MEASURES": HEADINGS,
        "corrupted_header": corruptions.header,
        "corrupted_numbers": corruptions.numbers,
        "DETECTION_NOTE": detection.NOTE,
        "DETECTION": detection.HEADINGS,
        "RULES_NOTE": RULES_NOTE,
        "OTHERS_NOTE": OTHERS_NOTE,
        "MEASURES_NOTE": MEASURES_NOTE,
        "scale_of": scale_of,
        "marker": lambda method: marker(style.get(method)),
        "alike": alike,
        "aside": aside,
        "reasons": reasons,
        "short": short,
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
    return made


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
    """Evaluation sets of a ranking's table: in distribution, their mean, and each shift."""
    shifts = ranking.shifts if len(ranking.shifts) == 1 else shown_shifts(ranking)
    sets = [*([ID_TEST] if ID_TEST in ranking.metrics else []), *shifts]
    of_sets = [
        ScoreColumn(name, short(name), _explained(ranking, name), name == ID_TEST) for name in sets
    ]
    if len(ranking.shifts) == 1:  # it is the mean
        (shift,) = ranking.shifts
        only = ScoreColumn(MEAN, short(shift), f"{_explained(ranking, shift)}; ranks", True)
        return [*(column for column in of_sets if column.set_name != shift), only]
    if not ranking.shifts:
        return of_sets
    unit = _unit(ranking, MEAN)
    over = f"mean over {', '.join(ranking.shifts)}{unit}; ranks"
    mean = ScoreColumn(MEAN, short(MEAN), over, True)
    first = [column for column in of_sets if column.headline]
    return [*first, mean, *of_sets[len(first) :]]


def alike(of_ranking: RankingReport) -> dict[str, str]:
    """The columns of a ranking's table that say the same of every method, with what they say."""
    texts = [_details(of_ranking, method) for method in of_ranking.ranking.methods]
    said = {name: {of[name] for of in texts} - {""} for name in texts[0]}
    return {name: of.pop() for name, of in said.items() if len(of) == 1}


def aside(of_ranking: RankingReport, method: RankedMethod, same: Collection[str]) -> str:
    """What other columns say of a method, where a screen is too narrow for them.

    Args:
        of_ranking: the ranking.
        method: of it.
        same: columns that say the same of every method.
    """
    details = _details(of_ranking, method)
    return " · ".join(text for name, text in details.items() if text and name not in same)


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
        parts.append(known if ends else "no interval")
        if estimate.n:
            parts.append(f"{' or '.join(f'{n:,}' for n in estimate.n)} images")
    seeds = method.seeds if estimate is None else estimate.seeds
    parts.append(f"seeds {', '.join(map(str, seeds))}")
    parts.append(f"selection {method.selection}, cost {duration(method.cost_seconds)}")
    if remark:
        parts.append(f"partial: {remark}")
    parts += method.provenance
    return "\n".join(parts)


def setting_text(value: object) -> str:
    """A setting, with as many digits as anyone reads."""
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _details(of_ranking: RankingReport, method: RankedMethod) -> dict[str, str]:
    number = len(method.seeds)
    seeds = "" if method.shared else f"{number} {'seed' if number == 1 else 'seeds'}"
    letters = of_ranking.ties.letters.get(method.name, NONE)
    return {
        "selection": " ".join([method.selection, *filter(None, method.variants)]),
        "seeds": seeds,
        "tied": f"tied {letters}",
    }


def _lead(report: Report) -> tuple[str, Answer] | None:
    """The recommendation that stands for all; ``None`` where there is no single one."""
    found = answers(report)
    several = len(report.rankings) > 1
    return found[0] if len(report.overall) == several and len(found) else None


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
        "failed": sum(run.status == "failed" for run in report.runs),
        "incomplete": len(report.incomplete),
        "remarks": len(report.data_remarks),
        "leaks": len(report.leaks),
        "faults": len(report.golden_faults),
        "untied": sum(not of_ranking.ties.known for of_ranking in report.rankings),
    }
