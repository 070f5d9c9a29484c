"""``shiftbench show``: all that is known of one run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shiftbench.cli.common import ONE_RUN, RESULTS, Results, check_there

if TYPE_CHECKING:
    from rich.console import Console

    from shiftbench.report.run_facts import RunFacts

EPILOG = """[bold]Examples[/bold]

A run by its id, or the beginning of it, or by method, task and seed:

  shiftbench show 3f1c

  shiftbench show full/cifar10/0

Everything, the values of every step included, for programs:

  shiftbench show 3f1c --json
"""


def show(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help=ONE_RUN),
    ],
    results: Results = RESULTS,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all that is known, for programs.")
    ] = False,
) -> None:
    """Show a run: what was asked for, what came out, its training curve, and why it failed."""
    from rich.console import Console

    from shiftbench.report.run_facts import facts_of

    check_there(results)
    found = facts_of(results, run)
    if as_json:
        typer.echo(json.dumps(found.document(), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        _print(Console(highlight=False, soft_wrap=True), found, results)


def _print(console: Console, found: RunFacts, results: Path) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    console.print(f"[bold]{escape(found.name)}[/bold]  {found.run_id}  {_state(found)}")
    for title, values in (("", found.about), ("settings", found.settings)):
        if values:
            console.print(f"\n[bold]{title}[/bold]" if title else "")
            width = max(map(len, values))
            for name, value in values.items():
                console.print(f"  [dim]{escape(name):<{width}}[/dim]  {escape(_text(value))}")
    if found.scores:
        table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for header in ("variant", "selection", "set", "metric", "value", "95 % interval", "images"):
            number = header in ("value", "95 % interval", "images")
            table.add_column(header, justify="right" if number else "left", no_wrap=number)
        for row in found.scores:
            cells = (row.variant, row.selection or "", row.evaluation_set, row.metric)
            interval = f"[{row.low:.4f}, {row.high:.4f}]"
            numbers = (f"{row.value:.4f}", escape(interval), f"{row.n:,}")
            table.add_row(*map(escape, cells), *numbers)
        console.print(table)
    for line in found.curve_lines():
        console.print(escape(line))
    if found.error is not None:
        console.print(f"\n[red]failed[/red]: {escape(found.error)}")
        if found.traceback:
            console.print(escape(found.traceback.rstrip()), style="dim")


def _state(found: RunFacts) -> str:
    colour = {"done": "green", "failed": "red"}.get(found.state, "yellow")
    return f"[{colour}]{found.state}[/{colour}]"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
