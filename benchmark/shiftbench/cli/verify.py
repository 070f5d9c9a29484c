"""``shiftbench verify``: recompute rows from their predictions, or run them again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shiftbench.cli.common import (
    MANY_RUNS,
    RESULTS,
    Address,
    Data,
    ExecutorName,
    Overrides,
    Results,
    check_there,
    load_suite,
)

if TYPE_CHECKING:
    from rich.console import Console

    from shiftbench.execution.executor import Executor
    from shiftbench.leaderboard.verify import Verdict

EPILOG = """[bold]Examples[/bold]

Does every row follow from the predictions that were kept?

  shiftbench verify --all

One run, by the beginning of its id or its name (full/cifar10/0), or the runs of one method:

  shiftbench verify 3f1c

  shiftbench verify --task cifar10 --method wise-ft

Train and evaluate a run again, with what it builds on, beside the results:

  shiftbench verify 3f1c --rerun miniature

Exit codes: 0 all agree, 1 something differs or is missing, 2 bad input.
"""


def verify(
    run_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN_ID]...", help=MANY_RUNS),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All runs that are done.")] = False,
    task: Annotated[str | None, typer.Option(help="Runs of this task.")] = None,
    method: Annotated[str | None, typer.Option(help="Runs of the method so called.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Runs of this backbone.")] = None,
    results: Results = RESULTS,
    again: Annotated[
        str | None,
        typer.Option("--rerun", metavar="SUITE", help="Do the runs again, as this suite says."),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(min=0, help="With --rerun, how far values may be off on another device."),
    ] = 0.0,
    data: Data = None,
    overrides: Overrides = None,
    executor: ExecutorName = "ray",
    address: Address = None,
) -> None:
    """Recompute rows from their predictions, and say whether they agree."""
    from rich.console import Console
    from rich.markup import escape

    from shiftbench.api import executor_of
    from shiftbench.core.errors import InputError
    from shiftbench.leaderboard.store import read
    from shiftbench.leaderboard.verify import select, verify_run

    named = run_ids or []
    check_there(results)
    if every == bool(named or task or method or backbone):
        raise InputError("name runs, --task, --method or --backbone, or else --all")
    of_rerun = (data is not None, overrides, executor != "ray", address is not None, tolerance)
    if again is None and any(of_rerun):
        raise InputError("--data, --set, --executor, --address and --tolerance go with --rerun")
    chosen = select(read(results), named, task, method, backbone)
    console = Console(soft_wrap=True, highlight=False)
    if again is None:
        verdicts = [verify_run(results, run_id) for run_id in chosen]
    else:
        verdicts = _rerun(
            again,
            overrides,
            data,
            chosen,
            results,
            executor_of(executor, address),
            console,
            tolerance,
            strict=bool(named),
        )
    for verdict in verdicts:
        style, word = ("red", "differs") if verdict.problems else ("green", "agrees")
        console.print(
            f"[{style}]{word}[/{style}] {verdict.run_id} ({escape(verdict.name)}): "
            f"{verdict.rows} rows"
        )
        for problem in verdict.problems:
            console.print(f"  {escape(problem)}")
    wrong = sum(bool(verdict.problems) for verdict in verdicts)
    console.print(f"{len(verdicts) - wrong} of {len(verdicts)} runs agree")
    if wrong:
        raise typer.Exit(1)


def _rerun(
    suite: str,
    overrides: list[str] | None,
    data: str | None,
    chosen: list[str],
    results: Path,
    executor: Executor,
    console: Console,
    tolerance: float,
    *,
    strict: bool,
) -> list[Verdict]:
    """Verdicts on runs that are done again; without ``strict``, on those that are the suite's."""
    from shiftbench.core.errors import InputError
    from shiftbench.core.files import temporary_folder
    from shiftbench.execution.rerun import rerun
    from shiftbench.suite.plan import Plan

    loaded = load_suite(suite, overrides, data)
    if not strict:
        known = Plan.build(loaded).runs
        left_out = [run_id for run_id in chosen if run_id not in known]
        chosen = [run_id for run_id in chosen if run_id in known]
        if not chosen:
            raise InputError(f"none of these runs is one of {suite}")
        if left_out:
            console.print(f"{len(left_out)} runs are not of this suite, and are left out")
    # Beside the results, since workers on other machines must see it.
    with temporary_folder(results, ".rerun-") as folder:
        return rerun(loaded, chosen, results, folder, executor, console, tolerance=tolerance)
