"""``shiftbench run``: do what is left of a suite."""

from __future__ import annotations

from typing import Annotated

import typer

from shiftbench.cli.common import (
    RESULTS,
    Address,
    Data,
    ExecutorName,
    Overrides,
    Results,
    SuiteArgument,
    load_suite,
)

EPILOG = """[bold]Examples[/bold]

On this machine, without any data or weights:

  shiftbench run quickstart

The real nine shifts, on one GPU:

  shiftbench run nine-shifts --data ~/data --set resources.gpus_per_worker=1

In this process, without Ray, say under a debugger:

  shiftbench run quickstart --executor in-process

On a Ray cluster, 8 workers for each training:

  shiftbench run nine-shifts --address 10.0.0.1:6379 --data /shared/data
  --results /shared/results --set resources.workers=8 --set resources.gpus_per_worker=1

From another machine, shiftbench submit does the same as a job.

The same command goes on after any interruption, and does nothing when all is done.
"""


def run(
    suite: SuiteArgument,
    data: Data = None,
    results: Results = RESULTS,
    overrides: Overrides = None,
    executor: ExecutorName = "ray",
    address: Address = None,
    allow_incomplete: Annotated[
        bool, typer.Option("--allow-incomplete", help="Go on with data sets that lack files.")
    ] = False,
) -> None:
    """Fine-tune, evaluate and rank: do what is left of a suite."""
    from rich.console import Console

    from shiftbench.api import Leaderboard, executor_of
    from shiftbench.core.files import file_name
    from shiftbench.execution.launch import launch
    from shiftbench.report.markdown import write_markdown
    from shiftbench.report.model import build
    from shiftbench.report.terminal import print_report

    console = Console()
    loaded = load_suite(suite, overrides, data)
    outcome = launch(
        loaded,
        results,
        executor_of(executor, address),
        console,
        allow_incomplete=allow_incomplete,
    )
    board = Leaderboard(results, outcome.plan)
    model = build(board.rows(), results, title=board.title)
    markdown = results / file_name(loaded.name, ".md")
    write_markdown(markdown, model)
    print_report(console, model)
    console.print(f"Results: {results}/leaderboard · report: {markdown}", highlight=False)
    if outcome.failed:
        raise typer.Exit(1)
