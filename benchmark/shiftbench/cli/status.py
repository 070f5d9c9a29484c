"""``shiftbench status``: how far a suite is, what is under way, and what failed."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shiftbench.cli.common import RESULTS, Data, Overrides, Results, SuiteArgument, load_suite

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from shiftbench.execution.cost import PlannedGroup
    from shiftbench.execution.progress import RunProgress
    from shiftbench.suite.plan import Plan

EPILOG = """[bold]Examples[/bold]

  shiftbench status miniature

  shiftbench status nine-shifts --data ~/data --results /shared/results

What is under way, from any machine that sees the results, until all is done:

  shiftbench status nine-shifts --data ~/data --results /shared/results --watch
"""
SHOWN = 20
"""Runs under way, and failures, that a terminal shows."""


def status(
    suite: SuiteArgument,
    overrides: Overrides = None,
    data: Data = None,
    results: Results = RESULTS,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show what is under way until nothing is left.")
    ] = False,
    every: Annotated[
        float, typer.Option("--every", min=0.1, help="Seconds between two looks of --watch.")
    ] = 5.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print every run and how far it is, for programs.")
    ] = False,
) -> None:
    """Show how far a suite is, and why runs failed."""
    from rich.console import Console

    from shiftbench.suite.plan import Plan

    console = Console(soft_wrap=True, highlight=False)
    plan = Plan.build(load_suite(suite, overrides, data))
    if as_json:
        typer.echo(json.dumps(_document(plan, results), indent=1, ensure_ascii=False))
    elif watch:
        _watch(console, plan, results, every)
    else:
        _summary(console, plan, results)


def _summary(console: Console, plan: Plan, results: Path) -> None:
    from rich.markup import escape

    from shiftbench.execution.cost import STATES, plan_state

    found = plan_state(plan, results, root=None)
    done, failed, left = (found.count(state) for state in STATES)
    summary = f"{done} of {done + failed + left} runs done, {failed} failed, {left} left"
    console.print(f"[bold]{escape(plan.suite.name)}[/bold]: {summary}")
    for (task, backbone), groups in _by_task(found.groups).items():
        parts = (
            f"{group.label} {group.done}/{group.done + group.failed + group.left}"
            for group in groups
        )
        console.print(f"  {escape(task)}, {escape(backbone)}: {escape(', '.join(parts))}")
    for failure in found.failures:
        run = failure.run
        shots = "" if run.shots is None else f", {run.shots} shots"
        labels = " = ".join(run.labels)
        name = f"{run.task.name}, {run.backbone}, {labels}, seed {run.seed}{shots}"
        console.print(f"[red]failed[/red] {run.id} ({escape(name)}): {escape(failure.reason)}")


def _by_task(groups: tuple[PlannedGroup, ...]) -> dict[tuple[str, str], list[PlannedGroup]]:
    found: dict[tuple[str, str], list[PlannedGroup]] = {}
    for group in groups:
        found.setdefault((group.task, group.backbone), []).append(group)
    return found


def _document(plan: Plan, results: Path) -> dict[str, Any]:
    """All that is known, as JSON has it; ``null`` is unknown or does not apply."""
    from shiftbench.execution.cost import plan_state
    from shiftbench.execution.progress import progress_of

    runs = progress_of(plan, results)
    counts = Counter(progress.state for progress in runs)
    seconds = plan_state(plan, results, root=None).cost.seconds
    return {
        "suite": plan.suite.name,
        "results": str(results),
        "counts": dict(counts),
        "device_seconds_left": seconds.known if seconds.whole else None,
        "device_seconds_left_at_least": seconds.known,
        "runs": [_entry(progress) for progress in runs],
    }


def _entry(progress: RunProgress) -> dict[str, Any]:
    run = progress.run
    facts = {
        "run_id": run.id,
        "task": run.task.name,
        "backbone": run.backbone,
        "label": run.label,
        "also_called": run.also_called,
        "seed": run.seed,
        "shots": run.shots,
    }
    return facts | {name: value for name, value in vars(progress).items() if name != "run"}


def _watch(console: Console, plan: Plan, results: Path, every: float) -> None:
    """Show what is under way until nothing is left; without a terminal, a line for each change."""
    from rich.live import Live

    from shiftbench.execution.progress import progress_of

    last = ""
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while True:
            runs = progress_of(plan, results)
            line = _counts(plan, runs)
            if console.is_terminal:
                live.update(_table(line, runs), refresh=True)
            elif line != last:
                console.print(line)
            last = line
            if all(progress.state in ("done", "failed") for progress in runs):
                return
            time.sleep(every)


def _counts(plan: Plan, runs: list[RunProgress]) -> str:
    from rich.markup import escape

    counts = Counter(progress.state for progress in runs)
    parts = [f"{number} {state}" for state, number in counts.items()]
    return f"[bold]{escape(plan.suite.name)}[/bold]: {len(runs)} runs: {', '.join(parts)}"


def _table(line: str, runs: list[RunProgress]) -> RenderableType:
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    from shiftbench.execution.display import name_of

    table = Table(box=None, pad_edge=False)
    for header in ("run", "state", "progress", "images/s", "left"):
        table.add_column(header, justify="left" if header in ("run", "state") else "right")
    under_way = [run for run in runs if run.state not in ("done", "failed", "waiting")]
    for progress in under_way[:SHOWN]:
        table.add_row(escape(name_of(progress.run)), progress.state, *_cells(progress))
    failed = [progress for progress in runs if progress.state == "failed"]
    lines = [
        f"[red]failed[/red] {escape(name_of(run.run))}: {escape(run.reason or '')}"
        for run in failed[:SHOWN]
    ]
    more = max(0, len(under_way) - SHOWN) + max(0, len(failed) - SHOWN)
    lines += [f"[dim]and {more} more: --json has them all[/dim]"] if more else []
    return Group(Text.from_markup(line), table, *map(Text.from_markup, lines))


def _cells(progress: RunProgress) -> tuple[str, str, str]:
    """How far, how fast, and how long still."""
    done, of = progress.step, progress.steps
    if progress.state == "evaluating":
        done, of = progress.predicted, progress.to_predict
    left, speed = progress.seconds_left, progress.images_per_second
    return (
        "" if done is None else f"{done:,}/{of:,}",
        "" if speed is None else f"{speed:,.0f}",
        "" if left is None else f"{left // 3600:.0f}:{left // 60 % 60:02.0f}:{left % 60:02.0f}",
    )
