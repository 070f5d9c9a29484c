"""``shiftbench compare``: our results beside published ones."""

from __future__ import annotations

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
    from rich.console import Console

    from shiftbench.report.order import Order
    from shiftbench.report.references import Comparison

EPILOG = """[bold]Examples[/bold]

Everything in ./results:

  shiftbench compare

The runs of one suite, where a difference of one point still counts as reproduced:

  shiftbench compare nine-shifts --data ~/data --tolerance 1

Numbers for a spreadsheet:

  shiftbench compare --csv compared.csv

Whether the methods of the miniature world come in the order that papers found:

  shiftbench compare miniature --results results/example --order
"""
STYLES = {"reproduced": "green", "differs": "red", "not comparable": "yellow"}


def compare(
    suite: OptionalSuite = None,
    results: ReadResults = None,
    published: Annotated[
        Path | None,
        typer.Option("--published", help="Folder of published results; else results/published."),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            "--tolerance", help="Largest difference, in points, that always counts as reproduced."
        ),
    ] = 0.5,
    order: Annotated[
        bool,
        typer.Option(
            "--order",
            help="Compare the order of methods instead: our gains over zero-shot beside published "
            "ones of CLIP ViT-B/16, and their rank correlation. Of the miniature world too.",
        ),
    ] = False,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Write the tables too.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write all numbers as CSV too.")
    ] = None,
    data: Data = None,
    overrides: Overrides = None,
) -> None:
    """Put published values beside our results, and say which are reproduced."""
    from rich.console import Console

    from shiftbench.api import Leaderboard
    from shiftbench.core.errors import InputError
    from shiftbench.leaderboard.golden import golden_faults
    from shiftbench.leaderboard.published.reading import read_published
    from shiftbench.leaderboard.published.settings import read_stated
    from shiftbench.leaderboard.schema import REAL, rows
    from shiftbench.report.comparison_tables import titled, to_csv, to_markdown
    from shiftbench.report.order import orders
    from shiftbench.report.ranking import rank
    from shiftbench.report.references import compare as compared
    from shiftbench.report.runs import Runs
    from shiftbench.report.tables import write_text

    if not 0 <= tolerance <= 100:
        raise InputError(f"--tolerance {tolerance:g} is not a number of points from 0 to 100")
    check_suite_options(suite, overrides, data)
    loaded = None if suite is None else load_suite(suite, overrides, data)
    board = Leaderboard(existing(results), loaded)
    references = read_published(published)
    table = board.rows()
    console = Console(highlight=False)
    done = rows(table)
    if order:
        _print_orders(console, orders(rank(done), references))
        return
    found = compared(rank(done), references, Runs(done), read_stated(published), tolerance / 100)
    for file, made in ((markdown, to_markdown), (csv, to_csv)):
        if file is not None:
            with written(file):
                write_text(file, made(found))
    for title, of in titled(found):
        _print_table(console, title, of)
    _print_summary(console, found, tolerance)
    for fault in golden_faults(done, references):
        console.print(f"[red]golden row[/red] {fault}", soft_wrap=True)
    # Failed runs are counted too, which rows are not of.
    kinds = dict(zip(table["run_id"].to_pylist(), table["data_kind"].to_pylist(), strict=True))
    others = sum(kind != REAL for kind in kinds.values())
    if others:
        noun = "run of the miniature world is" if others == 1 else "runs of the miniature world are"
        console.print(f"{others} {noun} left out: published values are of real data.")


def _print_orders(console: Console, orders: list[Order]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from shiftbench.report.order import BACKBONE

    if not orders:
        console.print("No ranking has five methods with published values on its shifts.")
    for found in orders:
        title = f"{found.task} · {found.backbone} · {found.data_kind} data"
        console.print(f"[bold]{escape(title)}[/bold]")
        table = Table(box=None, pad_edge=False)
        for header in ("method", "ours", f"published, {BACKBONE}", "source"):
            table.add_column(header, justify="left" if header in ("method", "source") else "right")
        for gain in found.gains:
            numbers = (f"{100 * gain.ours:+.1f}", f"{100 * gain.published:+.1f}")
            table.add_row(escape(gain.name), *numbers, escape("; ".join(gain.sources)))
        console.print(table)
        console.print(
            f"Spearman's ρ {found.rho:.2f} ({found.low:.2f} to {found.high:.2f}, bootstrap over "
            f"{len(found.gains)} methods)"
        )
    console.print(
        "[dim]Gain over zero-shot in the mean over shifts, in points; a published one is over the "
        "zero-shot of its own source, where that gives one, and averaged over sources.[/dim]"
    )


def _print_table(console: Console, title: str, comparisons: list[Comparison]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from shiftbench.report.comparison_tables import NUMBERS, Line, lines

    console.print(f"[bold]{escape(title)}[/bold]")
    table = Table(box=None, collapse_padding=True, pad_edge=False)
    for header in Line._fields:
        numbers = header in NUMBERS
        table.add_column(
            header,
            justify="right" if numbers else "left",
            no_wrap=numbers,
            overflow="fold",
        )
    last = None
    for comparison in comparisons:
        for count, line in enumerate(lines(comparison)):
            style = STYLES.get(line.verdict, "dim")
            told = line._replace(
                method="" if line.method == last else escape(line.method),
                set="" if count else escape(line.set),
                ours="" if count else line.ours,
                verdict=f"[{style}]{line.verdict}[/{style}]",
                settings=escape(line.settings),
                source=escape(line.source),
            )
            table.add_row(*told)
            last = line.method
    console.print(table)
    console.print()


def _print_summary(console: Console, found: list[Comparison], tolerance: float) -> None:
    from collections import Counter

    if not found:
        console.print("No run on real data has finished yet.")
        return
    verdicts = Counter[str](value.verdict for c in found for value in c.published)
    parts = [f"{verdicts[name]} {name}" for name in STYLES if verdicts[name]]
    nothing = sum(not c.published for c in found)
    parts += [f"{nothing} with nothing published"] if nothing else []
    console.print(", ".join(parts))
    console.print(
        "[dim]Percent. Ours: mean over seeds, with its 95 % interval (Student's t over seeds, or "
        "with one seed that of the evaluation set). Difference: ours minus published; its interval "
        "has the published value's too where that is known. Reproduced: the difference is at most "
        f"{tolerance:g} points or half the width of its interval, whichever is larger. Not "
        "comparable: ours is not of all the images. Settings: whether ours, and those of all that "
        "ours build on, are what the value's source states of them.[/dim]"
    )
