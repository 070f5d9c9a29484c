"""Rankings for spreadsheets and papers: CSV of every number, and LaTeX tables with booktabs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from shiftbench.core.files import written_atomically
from shiftbench.data.tasks.definition import ID_TEST
from shiftbench.report.curves import MEAN
from shiftbench.report.html.data import Board, BoardLine, Page
from shiftbench.report.terminal import NONE, SHORT, duration, name, title

HEADER = (
    *("data_kind", "task", "task_digest", "backbone", "shots", "evaluation_images"),
    *("rank", "tied", "method", "label", "selection", "variants", "evaluation_set", "metric"),
    *("value", "sd", "low", "high", "interval", "n", "seeds", "complete", "remark"),
    *("cost_seconds", "runs"),
)
"""Columns of the CSV. Values are in [0, 1]; an empty cell is what is not known, or all of them."""

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "–": "--",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def to_csv(page: Page) -> str:
    """A row for each line of a ranking and evaluation set, and for the mean over shifts."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for board in page.boards:
        for line in board.lines:
            writer.writerows(_csv_rows(board, line))
    return text.getvalue()


def to_latex(page: Page) -> str:
    """A table for each ranking, in percent, the best of each column that ranks in bold."""
    parts = ["% Needs \\usepackage{booktabs}."]
    for number, board in enumerate(page.boards, start=1):
        parts.append(_latex_table(board, f"tab:shiftbench-{number}"))
    return "\n\n".join(parts) + "\n"


def escape_latex(text: str) -> str:
    """Text that LaTeX typesets as it is, on one line."""
    return "".join(_SPECIAL.get(character, character) for character in " ".join(text.split()))


def write_text(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all."""
    with written_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _csv_rows(board: Board, line: BoardLine) -> list[list[object]]:
    ranking, of = board.ranking, line.line
    rows: list[list[object]] = []
    for set_name, cell in line.cells.items():
        estimate = cell.estimate
        numbers: list[object] = [None] * 4
        if estimate is not None:
            numbers = [estimate.mean, estimate.sd, estimate.low, estimate.high]
        complete = cell.remark is None
        rows.append(
            [
                *(ranking.data_kind, ranking.task, ranking.task_digest, ranking.backbone),
                *(ranking.shots, ranking.images),
                *(of.rank, line.letters, of.method, of.label, of.selection),
                *(" ".join(filter(None, of.variants)), set_name),
                *(ranking.metrics.get(set_name, "mean"), *numbers),
                *(cell.interval, cell.n, " ".join(map(str, cell.seeds))),
                *(str(complete).lower(), cell.remark, of.cost_seconds, " ".join(line.runs)),
            ]
        )
    return rows


def _latex_table(board: Board, label: str) -> str:
    ranking = board.ranking
    several = len(ranking.shifts) > 1
    sets = [s for s in (ID_TEST, *ranking.shifts) if s in ranking.metrics] + [MEAN] * several
    headings = ["ID" if s == ID_TEST else "OOD" if s == MEAN else SHORT.get(s, s) for s in sets]
    header = ["", "method", *headings, "tied", "cost"]
    best = {s: _best(board.lines, s) for s in sets}
    body = [
        [
            "" if line.line.rank is None else str(line.line.rank),
            escape_latex(name(line.line)),
            *(_latex_cell(line, set_name, best[set_name]) for set_name in sets),
            escape_latex(line.letters or NONE),
            escape_latex(duration(line.line.cost_seconds)),
        ]
        for line in board.lines
    ]
    rows = [" & ".join(row) + r" \\" for row in body]
    headings_row = " & ".join(map(escape_latex, header)) + r" \\"
    caption = (
        f"{title(ranking)}. Percent, mean over seeds ± standard deviation; methods that share a "
        "letter tie. * incomplete data or seeds."
    )
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(caption)}}}",
            rf"\label{{{label}}}",
            rf"\begin{{tabular}}{{rl{'r' * len(sets)}lr}}",
            r"\toprule",
            headings_row,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _latex_cell(line: BoardLine, set_name: str, best: float | None) -> str:
    cell = line.cells.get(set_name)
    if cell is None or cell.estimate is None:
        return escape_latex(NONE)
    text = f"{100 * cell.estimate.mean:.1f}"
    if line.line.rank is not None and cell.estimate.mean == best:
        text = rf"\textbf{{{text}}}"
    if cell.estimate.sd is not None:
        text += rf" {{\scriptsize $\pm$ {100 * cell.estimate.sd:.1f}}}"
    return text + ("*" if cell.remark else "")


def _best(lines: Sequence[BoardLine], set_name: str) -> float | None:
    """The highest value of a column among lines that rank."""
    estimates = (line.estimate(set_name) for line in lines if line.line.rank is not None)
    return max((estimate.mean for estimate in estimates if estimate is not None), default=None)
