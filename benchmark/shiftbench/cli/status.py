"""``shiftbench status``: how far a suite is, what is under way, and what failed."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shiftbench.cli.common import (
    RESULTS,
    Data,
    Overrides,
    ReadResults,
    SuiteArgument,
    load_suite,
)

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from shiftbench.execution.progress import RunProgress
    from shiftbench.execution.under_way import UnderWay
    from shiftbench.suite.plan import Plan

    Results = Mapping[str, Path]

EPILOG = """[bold]Examples[/bold]

  shiftbench status miniature

  shiftbench status nine-shifts --data ~/data --results /shared/results

What is under way, from any machine that sees the results, until all is done:

  shiftbench status nine-shifts --data ~/data --results /shared/results --watch

The same for programs, a line of JSON for each look; and what two machines have done:

  shiftbench status miniature --watch --json

  shiftbench status miniature --results results --results /mnt/other/results
"""
LEFT_EVERY_S = 60.0
"""Seconds after which it is told anew how long everything still takes: planning takes a while."""


def status(
    suite: SuiteArgument,
    overrides: Overrides = None,
    data: Data = None,
    results: ReadResults = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show what is under way until nothing is left.")
    ] = False,
    every: Annotated[
        float, typer.Option("--every", min=0.1, help="Seconds between two looks of --watch.")
    ] = 5.0,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print every run and how far it is, for programs; with --watch a line for each "
            "look.",
        ),
    ] = False,
) -> None:
    """Show how far a suite is, who does what, what it has cost, and why runs failed."""
    from rich.console import Console

    from shiftbench.suite.plan import Plan

    console = Console(soft_wrap=True, highlight=False)
    plan = Plan.build(load_suite(suite, overrides, data))
    folders = _folders(results)
    left = _Left(plan, folders)
    if watch:
        _watch(console, plan, folders, left, every, as_json)
    elif as_json:
        document = _document(plan, folders, left, _look(plan, folders))
        typer.echo(json.dumps(document, indent=1, ensure_ascii=False))
    else:
        _summary(console, plan, _look(plan, folders))


def _folders(results: list[str] | None) -> Results:
    """The results folders by a name for people.

    Raises:
        InputError: a store does not answer, or one of several is not there.
    """
    from shiftbench.cli.common import check_there
    from shiftbench.core.mirror import address, opened
    from shiftbench.leaderboard.merging import names_of

    chosen = [opened(one) for one in results or [str(RESULTS)]]
    for folder in chosen if len(chosen) > 1 else ():
        check_there(folder)
    return dict(zip(names_of([address(folder) for folder in chosen]), chosen, strict=True))


def _look(plan: Plan, results: Results) -> list[RunProgress]:
    from shiftbench.execution.progress import progress_in

    return progress_in(plan, results)


class _Left:
    """Seconds of workers that are left, as estimated now and then.

    Args:
        plan: the runs.
        results: where they are; of several, what was begun in the first counts.
        clock: gives seconds.
    """

    def __init__(
        self, plan: Plan, results: Results, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._plan, self._results, self._clock = plan, results, clock
        self._at = float("-inf")
        self._found = (0.0, True)

    def __call__(self, runs: list[RunProgress]) -> tuple[float, bool]:
        """Seconds, and whether that is all.

        Args:
            runs: how far they are.
        """
        from shiftbench.execution.cost import plan_state

        if self._clock() - self._at > LEFT_EVERY_S:
            done = {found.run.id for found in runs if found.state == "done"}
            first = next(iter(self._results.values()))
            seconds = plan_state(self._plan, first, root=None, elsewhere=done).cost.worker_seconds
            self._at, self._found = self._clock(), (seconds.known, seconds.whole)
        return self._found


def _summary(console: Console, plan: Plan, runs: list[RunProgress]) -> None:
    from rich.markup import escape

    of = {found.run.id: found for found in runs}
    counts = Counter(_ended(found) for found in runs)
    summary = (
        f"{counts['done']} of {len(runs)} runs done, {counts['failed']} failed, "
        f"{counts['left']} left"
    )
    console.print(f"[bold]{escape(plan.suite.name)}[/bold]: {summary}{escape(_cost(runs))}")
    parts: dict[tuple[str, str], list[str]] = {}
    for (task, backbone, label), group in plan.groups():
        done = sum(of[run.id].state == "done" for run in group)
        parts.setdefault((task, backbone), []).append(f"{label} {done}/{len(group)}")
    for (task, backbone), labels in parts.items():
        console.print(f"  {escape(task)}, {escape(backbone)}: {escape(', '.join(labels))}")
    for found in runs:
        if found.state != "failed":
            continue
        run = found.run
        shots = "" if run.shots is None else f", {run.shots} shots"
        named = " = ".join(run.labels)
        name = f"{run.task.name}, {run.backbone}, {named}, seed {run.seed}{shots}"
        reason = escape(found.reason or "")
        console.print(f"[red]failed[/red] {run.id} ({escape(name)}): {reason}")


def _ended(found: RunProgress) -> str:
    return found.state if found.state in ("done", "failed") else "left"


def _cost(runs: list[RunProgress]) -> str:
    """What was spent so far, to be added to a line."""
    from shiftbench.execution.spent import hours, in_words

    words = in_words(hours(found.spent for found in runs if found.spent is not None))
    return f"; {words} so far" if words else ""


def _document(plan: Plan, results: Results, left: _Left, runs: list[RunProgress]) -> dict[str, Any]:
    """All that is known, as JSON has it; ``null`` is unknown or does not apply."""
    from shiftbench.core.mirror import shown
    from shiftbench.execution.spent import hours

    counts = Counter(progress.state for progress in runs)
    seconds, whole = left(runs)
    folders = [shown(folder) for folder in results.values()]
    spent = hours(found.spent for found in runs if found.spent is not None)
    return {
        "suite": plan.suite.name,
        "results": folders[0] if len(folders) == 1 else folders,
        "counts": dict(counts),
        "hours_so_far": {f"{kind}-hours": each for kind, each in spent.items()},
        "device_seconds_left": seconds if whole else None,
        "device_seconds_left_at_least": seconds,
        "runs": [_entry(progress) for progress in runs],
    }


def _entry(progress: RunProgress) -> dict[str, Any]:
    run, spent = progress.run, progress.spent
    facts = {
        "run_id": run.id,
        "task": run.task.name,
        "backbone": run.backbone,
        "label": run.label,
        "also_called": run.also_called,
        "seed": run.seed,
        "shots": run.shots,
    }
    own = {name: value for name, value in vars(progress).items() if name not in ("run", "spent")}
    seconds = None if spent is None else spent.seconds
    return facts | own | {"worker_seconds": seconds, "on": None if spent is None else spent.kind}


def _watch(
    console: Console, plan: Plan, results: Results, left: _Left, every: float, as_json: bool
) -> None:
    """Show what is under way until nothing is left; without a terminal, a line for each change.

    A store that was there when this began, and is away for a while, is looked at again.
    """
    from rich.live import Live

    from shiftbench.core.errors import StorageError

    last = ""
    drawn = console.is_terminal and not as_json
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while True:
            try:
                runs = _look(plan, results)
            except StorageError as error:
                typer.echo(f"warning: {error}; looked at again in {every:g} s", err=True)
                time.sleep(every)
                continue
            if as_json:
                document = _document(plan, results, left, runs)
                console.print(json.dumps(document, ensure_ascii=False), markup=False, emoji=False)
            elif drawn:
                live.update(_table(_counts(plan, runs, left), runs), refresh=True)
            elif (line := _counts(plan, runs, left)) != last:
                console.print(line)
                last = line
            if all(progress.state in ("done", "failed") for progress in runs):
                return
            time.sleep(every)


def _counts(plan: Plan, runs: list[RunProgress], left: _Left) -> str:
    """How many runs are in which state, what that has cost, and how long it still takes."""
    from rich.markup import escape

    from shiftbench.core.words import duration

    counts = Counter(progress.state for progress in runs)
    parts = [f"{number} {state}" for state, number in counts.items()]
    eta = ""
    each = plan.suite.resources.workers
    if workers := sum(each if run.state == "training" else run.under_way for run in runs):
        seconds, whole = left(runs)
        eta = f"; {'about' if whole else 'at least'} {duration(seconds / workers)} left"
    head = f"[bold]{escape(plan.suite.name)}[/bold]: {len(runs)} runs: {', '.join(parts)}"
    return f"{head}{escape(_cost(runs))}{eta}"


def _table(line: str, runs: list[RunProgress]) -> RenderableType:
    from rich.console import Group
    from rich.markup import escape
    from rich.text import Text

    from shiftbench.execution.display import name_of
    from shiftbench.execution.under_way import SHOWN, table_of

    under_way = [_shown(run) for run in runs if run.under_way]
    failed = [progress for progress in runs if progress.state == "failed"]
    lines = [
        f"[red]failed[/red] {escape(name_of(run.run))}: {escape(run.reason or '')}"
        for run in failed[:SHOWN]
    ]
    more = max(0, len(under_way) - SHOWN) + max(0, len(failed) - SHOWN)
    lines += [f"[dim]and {more} more: --json has them all[/dim]"] if more else []
    return Group(Text.from_markup(line), table_of(under_way), *map(Text.from_markup, lines))


def _shown(progress: RunProgress) -> UnderWay:
    """What a table shows of a run."""
    from shiftbench.execution.display import name_of
    from shiftbench.execution.under_way import UnderWay

    done, of = progress.step, progress.steps
    if progress.state == "evaluating":
        done, of = progress.predicted, progress.to_predict
    return UnderWay(
        name_of(progress.run),
        progress.state,
        done,
        of,
        progress.images_per_second,
        progress.seconds_left,
        progress.holder,
        progress.results,
    )
