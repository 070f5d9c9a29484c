"""``shiftbench check-plugin``: the checks that our own methods, metrics and sources pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import reduce
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from shiftbench.testing.checks import Outcome

EPILOG = """[bold]Examples[/bold]

All that a package registers:

  shiftbench check-plugin mylab

One method, with settings of its own; one metric with its argument:

  shiftbench check-plugin smooth --set temperature=3

  shiftbench check-plugin metrics/ece:15

A source, on its data:

  shiftbench check-plugin slides --set path=tiles --data ~/data
"""


def check_plugin(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A package that registers something, or a method, metric, source or task; also "
            "as methods/NAME.",
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A setting of the method or source. May be given several times.",
        ),
    ] = None,
    data: Annotated[
        str, typer.Option("--data", help="Folder or URI of the data sets of sources and tasks.")
    ] = "miniature",
) -> None:
    """Check that a plugin keeps its contract: trains, resumes bit for bit, works with 2 workers.

    A method is trained on a toy, interrupted, shared by two processes, and run on the miniature.
    Metrics are checked on answers drawn at random, sources and tasks on their data. Exit code 1 if
    something fails; the first difference is printed.
    """
    from shiftbench.testing.plugins import check_all, find

    _show(check_all(find(name), _settings(overrides or ()), data))


def _settings(overrides: Iterable[str]) -> dict[str, Any]:
    from shiftbench.core.document import assignment, merge

    nodes = [assignment(text) for text in overrides]
    return dict(reduce(merge, nodes).plain) if nodes else {}


def _show(outcomes: Iterable[Outcome]) -> None:
    """Print each outcome as soon as it is known, and end with 1 if one failed."""
    from rich.console import Console
    from rich.markup import escape

    console, subject = Console(highlight=False), ""
    counts: Counter[str] = Counter()
    first: Outcome | None = None
    styles = {"passed": "[green]✓[/green]", "failed": "[red]✗[/red]", "skipped": "[dim]–[/dim]"}
    for outcome in outcomes:
        if outcome.subject != subject:
            subject = outcome.subject
            console.print(f"[bold]{escape(subject)}[/bold]")
        console.print(f"  {styles[outcome.status]} {escape(outcome.check)}")
        if outcome.detail:
            style = "red" if outcome.status == "failed" else "dim"
            console.print(f"    {outcome.detail}", style=style, markup=False)
        counts[outcome.status] += 1
        if outcome.status == "failed" and first is None:
            first = outcome
    console.print(", ".join(f"{number} {status}" for status, number in sorted(counts.items())))
    if first is not None:
        typer.echo(f"{first.subject}: {first.check}: {first.detail}", err=True)
        raise typer.Exit(1)
