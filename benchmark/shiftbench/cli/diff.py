"""``shiftbench diff``: what got better or worse between two results folders, or two commits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shiftbench.cli.common import existing

if TYPE_CHECKING:
    from rich.console import Console

    from shiftbench.leaderboard.merging import Folders
    from shiftbench.report.changes import Change
    from shiftbench.report.ranking import Ranking

    Side = tuple[list[Ranking], Folders]

EPILOG = """[bold]Examples[/bold]

What changed beyond chance between the results of two versions of the code:

  shiftbench diff results-before results

Every score that both have:

  shiftbench diff results-before results --all

What two commits of the code computed, where one results folder has runs of both:

  shiftbench diff --results results 3f1c2ab HEAD
"""
STYLES = {"better": "green", "worse": "red"}


def diff(
    before: Annotated[
        str,
        typer.Argument(
            metavar="A", help="Folder of results, or its URI; with --results, a commit."
        ),
    ],
    after: Annotated[str, typer.Argument(metavar="B", help="Another one, to compare with it.")],
    results: Annotated[
        list[str] | None,
        typer.Option(
            "--results",
            metavar="FOLDER",
            help="Compare what two commits computed in these results; given several times, they "
            "are read as one.",
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show also what is within chance or not tested.")
    ] = False,
) -> None:
    """Compare the scores of the methods that two results, or two commits, share, by paired tests.

    Exit code 0 whatever changed. Runs of a commit are those whose rows say so; runs that they build
    on are compared too, whichever commit computed them.
    """
    from rich.console import Console
    from rich.markup import escape

    from shiftbench.report.changes import changes_between
    from shiftbench.report.words import title_of

    console = Console(highlight=False)
    if results:
        ours, theirs = _of_commits(console, existing(results), before, after)
    else:
        ours, theirs = (_of_results(folder) for folder in (before, after))
    found = changes_between(ours, theirs)
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


def _of_results(folder: str) -> Side:
    """The rankings of a results folder, and where its predictions are."""
    from shiftbench.api import Leaderboard
    from shiftbench.leaderboard.merging import Folders

    board = Leaderboard(folder)
    return board.rankings(), Folders.of(board.folder)


def _of_commits(
    console: Console, results: Sequence[Path], before: str, after: str
) -> tuple[Side, Side]:
    """The rankings of what each of two commits computed in some results.

    Raises:
        InputError: no run, or several commits, are meant by one of them, or one commit by both.
    """
    from shiftbench.api import Leaderboard
    from shiftbench.core.errors import InputError
    from shiftbench.leaderboard.schema import rows
    from shiftbench.report.commits import SHORT, of_commit
    from shiftbench.report.ranking import rank

    merged = Leaderboard(results).merged()
    sides = [of_commit(merged.table, commit) for commit in (before, after)]
    if sides[0].sha == sides[1].sha:
        raise InputError(f"{before} and {after} are one commit, {sides[0].sha[:SHORT]}")
    for side in sides:
        if side.changed:
            console.print(
                f"{side.changed} runs of {side.sha[:SHORT]} were computed with changes that are "
                "not in the commit.",
                style="yellow",
            )
    first, second = (
        (rank(row for row in rows(side.table) if row.primary), merged.folders) for side in sides
    )
    return first, second


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
