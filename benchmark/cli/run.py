"""``shiftbench run``: do what is left of a suite."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EPILOG = """[bold]Examples[/bold]

On this machine, without any data or weights:

  shiftbench run suites/quickstart.yaml

The real nine shifts, on one GPU:

  shiftbench run suites/nine-shifts.yaml --data ~/data --set resources.gpus_per_worker=1

On a Ray cluster, 8 workers for each training:

  ray job submit -- shiftbench run suites/nine-shifts.yaml --data /shared/data
  --results /shared/results --set resources.workers=8 --set resources.gpus_per_worker=1

The same command goes on after any interruption, and does nothing when all is done.
"""


def run(
    suite: Annotated[Path, typer.Argument(help="Suite file.")],
    data: Annotated[
        str | None, typer.Option(help="Folder or URI of the data sets, or 'miniature'.")
    ] = None,
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("results"),
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the suite."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to join; by default one on this machine.")
    ] = None,
    allow_incomplete: Annotated[
        bool, typer.Option("--allow-incomplete", help="Go on with data sets that lack files.")
    ] = False,
) -> None:
    """Fine-tune, evaluate and rank: do what is left of a suite."""
    from rich.console import Console

    from benchmark.distributed.launch import launch
    from benchmark.leaderboard.report import print_report, write_markdown
    from benchmark.leaderboard.store import read
    from benchmark.suite import Suite

    console = Console()
    loaded = Suite.load(suite, overrides or [], data)
    outcome = launch(loaded, results, console, address, allow_incomplete)
    table = read(results, outcome.plan.runs)
    print_report(console, table)
    markdown = results / f"{loaded.name}.md"
    write_markdown(markdown, table, f"Leaderboard: {loaded.name}")
    console.print(f"Results: {results}/leaderboard · report: {markdown}", highlight=False)
    if outcome.failed:
        raise typer.Exit(1)
