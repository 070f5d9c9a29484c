"""``shiftbench run``: do what is left of a suite."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shiftbench.cli.common import (
    RESULTS,
    Address,
    AllowIncomplete,
    Data,
    ExecutorName,
    FastDevRun,
    LoggerNames,
    MaxConcurrent,
    Overrides,
    Results,
    SuiteArgument,
    limited,
    load_suite,
)

if TYPE_CHECKING:
    from rich.console import Console

    from shiftbench.execution.executor import Executor
    from shiftbench.suite.suite import Suite

EPILOG = """[bold]Examples[/bold]

On this machine, without any data or weights:

  shiftbench run quickstart

The real nine shifts, on one GPU:

  shiftbench run nine-shifts --data ~/data --set resources.gpus_per_worker=1

One run in this process, where breakpoint() works and an error comes with its traceback:

  shiftbench run quickstart --debug full/cifar10

Three steps and a few images of every run, into a folder that is thrown away:

  shiftbench run quickstart --fast-dev-run

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
    allow_incomplete: AllowIncomplete = False,
    loggers: LoggerNames = None,
    max_concurrent: MaxConcurrent = None,
    debug: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Do one run in this process, after what it builds on, and raise what goes wrong: "
            "its id, the beginning of it, or method, method/task, method/task/seed.",
        ),
    ] = None,
    fast_dev_run: FastDevRun = False,
) -> None:
    """Fine-tune, evaluate and rank: do what is left of a suite."""
    from dataclasses import replace

    from rich.console import Console

    from shiftbench.api import Leaderboard, executor_of
    from shiftbench.core.errors import InputError
    from shiftbench.core.files import file_name
    from shiftbench.core.mirror import shown
    from shiftbench.execution.launch import launch
    from shiftbench.report.markdown import write_markdown
    from shiftbench.report.model import build
    from shiftbench.report.terminal import print_report

    loaded = load_suite(suite, limited(overrides, max_concurrent), data)
    loaded = replace(loaded, loggers=tuple(dict.fromkeys((*loaded.loggers, *(loggers or ())))))
    if debug is not None:
        if address is not None:
            raise InputError("--debug does a run in this process: leave --address out")
        _debug(loaded, debug, results, allow_incomplete, fast=fast_dev_run)
        return
    console = Console()
    chosen = executor_of(executor, address)
    if fast_dev_run:
        _fast_dev_run(loaded, results, chosen, console, allow_incomplete)
        return
    outcome = launch(loaded, results, chosen, console, allow_incomplete=allow_incomplete)
    board = Leaderboard(results, outcome.plan)
    model = build(board.rows(), results, title=board.title)
    markdown = results / file_name(loaded.name, ".md")
    write_markdown(markdown, model)
    print_report(console, model)
    where = f"Results: {shown(results)}/leaderboard · report: {shown(markdown)}"
    console.print(where, highlight=False)
    if outcome.failed:
        raise typer.Exit(1)


def _debug(suite: Suite, text: str, results: Path, allow_incomplete: bool, *, fast: bool) -> None:
    """Do one run here. Without a terminal, rich draws no bar over a debugger."""
    from rich.console import Console

    from shiftbench.core.mirror import shown
    from shiftbench.execution import debugging
    from shiftbench.suite.plan import Plan

    console = Console(force_terminal=False, soft_wrap=True, highlight=False)
    plan = Plan.build(suite)
    run_id = debugging.run_of(plan, text)
    if not fast:
        debugging.debug(suite, run_id, results, console, allow_incomplete=allow_incomplete)
        console.print(f"shiftbench show {run_id} --results {shown(results)}")
        return
    small = debugging.fast(suite)
    alike = debugging.same_place(plan.runs[run_id], Plan.build(small))
    with debugging.thrown_away() as folder:
        debugging.debug(
            small, alike, folder, console, allow_incomplete=allow_incomplete, decode=False
        )


def _fast_dev_run(
    suite: Suite, results: Path, executor: Executor, console: Console, allow_incomplete: bool
) -> None:
    """Do a little of every run, where it can be taken for no result."""
    import os

    from shiftbench.execution import debugging
    from shiftbench.execution.launch import launch

    on_cluster = getattr(executor, "address", None) is not None or "RAY_ADDRESS" in os.environ
    with debugging.thrown_away(results if on_cluster else None) as folder:
        outcome = launch(
            debugging.fast(suite),
            folder,
            executor,
            console,
            allow_incomplete=allow_incomplete,
            decode=False,
        )
    did = (
        f"{len(outcome.executed)} runs, {debugging.STEPS} steps and {debugging.IMAGES} images each"
    )
    if outcome.failed:
        console.print(
            f"[red]{len(outcome.failed)} of {did}, failed[/red]; kept for you to look at, and "
            f"yours to delete: {folder}",
            highlight=False,
        )
        raise typer.Exit(1)
    console.print(f"[green]{did}: none failed[/green]; nothing of it was kept", highlight=False)
