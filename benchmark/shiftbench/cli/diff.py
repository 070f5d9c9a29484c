"""``shiftbench diff``: what got better or worse between two results folders."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from shiftbench.report.changes import Change

EPILOG = """[bold]Examples[/bold]

What changed beyond chance between the results of two versions of the code:

  shiftbench diff results-before results

Every score that both have:

  shiftbench diff results-before results --all
"""
STYLES = {"better": "green", "worse": "red"}


def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="Folder of results, or its URI.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Another one, to compare with it.")],
    everything: Annotated[
        bool, typer.Option("--all", help="Show also what is within chance or not tested.")
    ] = False,
) -> None:
    """Compare the scores of the methods that two results folders share, with paired tests."""
    from rich.console import Console
    from rich.markup import escape

    from shiftbench.api import Leaderboard
    from shiftbench.report.changes import changes_between
    from shiftbench.report.words import title_of

    boards = [Leaderboard(folder) for folder in (before, after)]
    ours, theirs = ((board.rankings(), board.folder) for board in boards)
    found = changes_between(ours, theirs)
    console = Console(highlight=False)
    shown = [change for change in found.changes if everything or change.verdict in STYLES]
    for title, group in groupby(shown, key=lambda change: title_of(change.ranking)):
        console.print(f"[bold]{escape(title)}[/bold]")
        _print(console, [*group])
    for folder, only in ((before, found.only_before), (after, found.only_after)):
        for ranking, name in only:
            line = f"only in {folder}: {title_of(ranking)}: {name}"
            console.print(escape(line), soft_wrap=True)
    counts = Counter(change.verdict for change in found.changes)
    names = {"chance": "within chance", "equal": "equal"}
    parts = [f"{count} {names.get(verdict, verdict)}" for verdict, count in counts.items()]
    console.print(", ".join(parts) or "They have nothing in common.")
    if reasons := {change.reason for change in found.changes if change.reason}:
        console.print(f"not tested: {escape('; '.join(sorted(reasons)))}", soft_wrap=True)


def _print(console: Console, changes: list[Change]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for header in ("method", "set", "A", "B", "difference", "p", "verdict"):
        number = header in ("A", "B", "difference", "p")
        table.add_column(header, justify="right" if number else "left", overflow="fold")
    for change in changes:
        scale, style = change.scale, STYLES.get(change.verdict, "dim")
        difference = scale.difference(change.after - change.before)
        if change.low is not None and change.high is not None:
            difference += f" [{scale.difference(change.low)}, {scale.difference(change.high)}]"
        table.add_row(
            *map(escape, (change.method, change.evaluation_set)),
            *(scale.text(change.before), scale.text(change.after), escape(difference)),
            "" if change.p is None else f"{change.p:.2g}",
            f"[{style}]{change.verdict}[/{style}]",
        )
    console.print(table)
