"""The page itself: what ``data`` gathered and ``charts`` drew, in one file that fetches nothing."""

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
from shiftbench.report.curves import MEAN
from shiftbench.report.html import assets
from shiftbench.report.html.charts import (
    Figure,
    Style,
    board_figures,
    page_figures,
    styles,
)
from shiftbench.report.html.data import Board, BoardLine, Cell, Page
from shiftbench.report.ranking import ORACLE
from shiftbench.report.terminal import (
    NONE,
    SHORT,
    TRADEOFFS,
    duration,
    name,
    overall_title,
    title,
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
class Column:
    """A column of a ranking's table: an evaluation set, or their mean."""

    set_name: str
    heading: str
    explanation: str


def render(page: Page) -> str:
    """The page as HTML."""
    style = styles(page)
    boards = []
    figures: list[Figure] = []
    for number, board in enumerate(page.boards, start=1):
        key = f"r{number}"
        of_board = board_figures(board, page, style, key)
        figures += of_board
        boards.append({"key": key, "board": board, "figures": of_board})
    others = page_figures(page, style)
    figures += others
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("shiftbench.report.html"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., str]] = {
        "percent": percent,
        "points": points,
        "duration": duration,
        "shots": shots_text,
        "thousands": lambda number: f"{number:,}",
        "short": short,
        "order": order,
    }
    environment.filters |= filters
    environment.globals |= {
        "NONE": NONE,
        "MEAN": MEAN,
        "ID_TEST": ID_TEST,
        "ORACLE": ORACLE,
        "columns": columns,
        "cell_title": cell_title,
        "interval": interval,
        "metrics_text": metrics_text,
        "marker": lambda method: marker(style.get(method)),
        "title_of": title,
        "overall_title": overall_title,
        "name_of": name,
        "sort_value": sort_value,
        "partial": partial,
        "TRADEOFFS": TRADEOFFS,
        "tradeoff_header": tradeoff_header,
        "tradeoff_cells": tradeoff_cells,
    }
    return environment.get_template("page.html.jinja").render(
        page=page,
        boards=boards,
        search_figures={f.name: f for f in others},
        other_figures=[f for f in others if not f.name.startswith("search-")],
        filters=_filters(page),
        counts=_counts(page),
        css=_own("page.css"),
        script=_own("page.js"),
        vega=_script(assets.vega()) if figures else "",
        datatables=_script(assets.datatables()),
        charts=as_json(
            {
                "specs": {figure.name: figure.spec(with_data=False) for figure in figures},
                "datasets": {key: of for figure in figures for key, of in figure.data.items()},
            }
        ),
    )


def write_html(path: Path, page: Page) -> None:
    """Write ``render`` so that the file appears whole or not at all."""
    text = render(page)
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


# What cells say


def columns(board: Board) -> list[Column]:
    """Evaluation sets of a ranking's table, in distribution first and the mean last."""
    ranking = board.ranking
    of_sets = [
        Column(s, "ID" if s == ID_TEST else SHORT.get(s, s), f"{s}: {ranking.metrics[s]}, percent")
        for s in (ID_TEST, *ranking.shifts)
        if s in ranking.metrics
    ]
    if len(ranking.shifts) == 1:  # it is the mean
        only = f"{ranking.shifts[0]}: {ranking.metrics[ranking.shifts[0]]}, percent; ranks"
        return [*of_sets[:-1], Column(MEAN, SHORT.get(ranking.shifts[0], ranking.shifts[0]), only)]
    if not ranking.shifts:
        return of_sets
    return [*of_sets, Column(MEAN, "OOD", "mean over all shifts, percent; ranks")]


def percent(value: float | None) -> str:
    """In [0, 1] as percent with one decimal."""
    return NONE if value is None else f"{100 * value:.1f}"


def points(value: float | None) -> str:
    """A difference in percentage points with its sign."""
    return NONE if value is None else f"{round(100 * value, 1) + 0.0:+.1f}"


def interval(cell: Cell | None) -> str:
    """The 95 % interval in percent, empty where there is none."""
    if cell is None or cell.estimate is None:
        return ""
    low, high = cell.estimate.low, cell.estimate.high
    return "" if low is None or high is None else f"{percent(low)} to {percent(high)}"


def partial(cell: Cell | None) -> bool:
    """Whether a number is marked as not the whole truth."""
    return cell is not None and cell.remark is not None


def order(text: str) -> str:
    """What a number in words, such as ``+1,234``, is sorted by; what is none comes last."""
    return "-1e9" if text == NONE else text.replace(",", "").replace("+", "")


def sort_value(cell: Cell | None) -> str:
    """What a cell is sorted by: numbers that are missing come last when the best are first."""
    return "-1" if cell is None or cell.estimate is None else f"{cell.estimate.mean:.6f}"


def cell_title(line: BoardLine, column: Column, cell: Cell | None) -> str:
    """All that is known of a number, for its tooltip."""
    if cell is None:
        return f"{line.name} has no result on {column.set_name}"
    parts = [f"{line.name} · {column.set_name}"]
    if cell.estimate is not None:
        parts[0] += f": {percent(cell.estimate.mean)} %"
        if cell.estimate.sd is not None:
            parts.append(f"standard deviation over seeds {percent(cell.estimate.sd)}")
    if interval(cell):
        parts.append(f"95 % interval {interval(cell)} ({cell.interval})")
    elif cell.estimate is not None:
        parts.append("no interval: one seed")
    if cell.n:
        parts.append(f"{cell.n} images")
    parts.append(f"seeds {', '.join(map(str, cell.seeds))}")
    parts.append(f"selection {line.line.selection}, cost {duration(line.line.cost_seconds)}")
    if cell.remark:
        parts.append(f"partial: {cell.remark}")
    parts += line.provenance
    return "\n".join(parts)


def metrics_text(board: Board) -> str:
    """Which metric each set has."""
    ranking = board.ranking
    by_metric: dict[str, list[str]] = {}
    for set_name in (ID_TEST, *ranking.shifts):
        if set_name in ranking.metrics:
            by_metric.setdefault(ranking.metrics[set_name], []).append(set_name)
    return "; ".join(f"{metric}: {', '.join(sets)}" for metric, sets in by_metric.items())


def marker(style: Style | None) -> Markup:
    """A method's mark as in the charts."""
    if style is None:
        return Markup("")
    return Markup(
        '<svg class="marker" viewBox="0 0 16 16" aria-hidden="true"><path d="{}" fill="{}"/></svg>'
    ).format(SHAPE_PATHS[style.shape], style.colour)


def shots_text(shots: int | None) -> str:
    """Training images per class, for people."""
    return "all" if shots is None else str(shots)


def short(value: object) -> str:
    """A setting, with as many digits as anyone reads."""
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _filters(page: Page) -> dict[str, Sequence[str]]:
    """What the page can be narrowed to: values by name, of those that have several."""
    ranked = [board.ranking for board in page.boards]
    return {
        "task": list(dict.fromkeys(ranking.task for ranking in ranked)),
        "backbone": list(dict.fromkeys(ranking.backbone for ranking in ranked)),
        "shots": list(dict.fromkeys(shots_text(ranking.shots) for ranking in ranked)),
    }


def _counts(page: Page) -> dict[str, int]:
    return {
        "done": sum(run.status == "done" for run in page.runs),
        "failed": len(page.failures),
        "incomplete": len(page.incomplete),
        "leaks": len(page.leaks),
        "faults": len(page.golden_faults),
        "untied": sum(not board.ties.known for board in page.boards),
    }
