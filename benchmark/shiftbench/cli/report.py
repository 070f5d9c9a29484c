"""``shiftbench report``: rank what has been run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shiftbench.cli.common import (
    Data,
    OptionalSuite,
    Overrides,
    ReadResults,
    check_suite_options,
    existing,
    load_suite,
    written,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from shiftbench.api import Leaderboard
    from shiftbench.report.model import Report
    from shiftbench.report.reproduce import Find

EPILOG = """[bold]Examples[/bold]

Everything in ./results, in the terminal and in results/report.md:

  shiftbench report

The runs of one suite:

  shiftbench report miniature --results results

What two machines have done, as one, with a column that says where each line is from:

  shiftbench report --results results --results /mnt/other/results

A suite that was run on other data needs the same flag here:

  shiftbench report nine-shifts --data ~/data

One task, in a file of your own:

  shiftbench report --task imagenet --markdown imagenet.md

A page with charts that opens in any browser, without a network:

  shiftbench report --html report.html

Numbers for a spreadsheet, tables and figures for a paper:

  shiftbench report --csv report.csv --latex report.tex --figures figures
"""


def report(
    suite: OptionalSuite = None,
    results: ReadResults = None,
    task: Annotated[
        list[str] | None, typer.Option(help="Only this task; may be given several times.")
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(
            help="File to write; by default in the folder of the results, if it is one; else here."
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with charts too.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write all numbers as CSV too.")
    ] = None,
    latex: Annotated[
        Path | None, typer.Option("--latex", metavar="FILE", help="Write LaTeX tables too.")
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option("--figures", metavar="FOLDER", help="Write charts as SVG and PNG too."),
    ] = None,
    data: Data = None,
    overrides: Overrides = None,
) -> None:
    """Rank the methods of every task, and write the same as Markdown."""
    from rich.console import Console

    from shiftbench.api import Leaderboard, of_tasks
    from shiftbench.core.files import file_name
    from shiftbench.core.mirror import placed
    from shiftbench.report.markdown import write_markdown
    from shiftbench.report.model import build
    from shiftbench.report.terminal import print_report

    console = Console()
    check_suite_options(suite, overrides, data)
    loaded = None if suite is None else load_suite(suite, overrides, data)
    board = Leaderboard(existing(results), loaded)
    merged = board.merged()
    found = merged.table
    table = of_tasks(found, task or [])
    # Planning every suite takes a while, and only the page shows how to reproduce runs.
    finder = _finder(suite) if html else None
    model = build(table, merged.folders, title=board.title, find=finder, curves=html is not None)
    name = "report" if loaded is None else loaded.name
    here = board.folder is None or placed(board.folder) is not None
    file = markdown or (Path() if here else board.results) / file_name(name, ".md")
    wanted = {"html": html, "csv": csv, "latex": latex, "figures": figures}
    with written(file):
        write_markdown(file, model)
    files = [file, *_write_more(wanted, model)]
    # Printed last: who reads only the first lines, as head does, has the files none the less.
    print_report(console, model)
    if board.plan is not None:
        console.print(_progress(found, len(board.plan.runs)))
        if others := _others(board, found):
            console.print(others, highlight=False, soft_wrap=True)
    for path in files:
        console.print(f"Written to {path}", style="dim", highlight=False, soft_wrap=True)


def _finder(suite: str | None) -> Find:
    """Finds suites by name; the one that was given is found where it is."""
    from shiftbench.suite.finding import find as find_given
    from shiftbench.suite.finding import find_named

    def find(name: str) -> Path:
        if suite is not None and Path(suite).stem == name:
            return find_given(suite)
        return find_named(name)

    return find


def _write_more(wanted: Mapping[str, Path | None], model: Report) -> list[Path]:
    """Write what was asked for beside the Markdown."""
    from shiftbench.report.tables import to_csv, to_latex, write_text

    if html := wanted["html"]:
        from shiftbench.report.html.page import write_html

        with written(html):
            write_html(html, model)
    if csv := wanted["csv"]:
        with written(csv):
            write_text(csv, to_csv(model))
    if latex := wanted["latex"]:
        with written(latex):
            write_text(latex, to_latex(model))
    if figures := wanted["figures"]:
        from shiftbench.report.html.charts.drawn import all_undrawn
        from shiftbench.report.html.figures import write_figures

        with written(figures):
            write_figures(figures, model)
        for lack in all_undrawn(model):
            typer.echo(f"not drawn: {lack}", err=True)
    return [path for path in wanted.values() if path is not None]


def _others(board: Leaderboard, table: pa.Table) -> str:
    """Says how many runs are beside a suite's, where some of the suite's are missing."""
    from shiftbench.leaderboard import store

    if board.plan is None or board.folder is None:
        return ""
    asked = board.plan.runs.keys()
    others = len(store.statuses(board.folder).keys() - asked)
    if not others or asked <= {*table["run_id"].to_pylist()}:
        return ""
    there = f"{others} other {'run is' if others == 1 else 'runs are'} here"
    return f"{there}, of other settings or suites: repeat their --set, or name no suite to see all"


def _progress(table: pa.Table, asked: int) -> str:
    status = dict(zip(table["run_id"].to_pylist(), table["status"].to_pylist(), strict=True))
    counts = Counter(status.values())
    left = asked - len(status)
    return f"{counts['done']} of {asked} runs done, {counts['failed']} failed, {left} left"
