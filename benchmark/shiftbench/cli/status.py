"""``shiftbench status``: how far a suite is, in short, and what failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shiftbench.cli.common import RESULTS, Data, Overrides, Results, SuiteArgument, load_suite

if TYPE_CHECKING:
    from shiftbench.execution.cost import PlannedGroup

EPILOG = """[bold]Examples[/bold]

  shiftbench status miniature

  shiftbench status nine-shifts --data ~/data --results /shared/results
"""


def status(
    suite: SuiteArgument,
    overrides: Overrides = None,
    data: Data = None,
    results: Results = RESULTS,
) -> None:
    """Show how far a suite is, and why runs failed."""
    from rich.console import Console
    from rich.markup import escape

    from shiftbench.execution.cost import STATES, plan_state
    from shiftbench.suite.plan import Plan

    console = Console(soft_wrap=True, highlight=False)
    loaded = load_suite(suite, overrides, data)
    found = plan_state(Plan.build(loaded), results, root=None)
    done, failed, left = (found.count(state) for state in STATES)
    summary = f"{done} of {done + failed + left} runs done, {failed} failed, {left} left"
    console.print(f"[bold]{escape(loaded.name)}[/bold]: {summary}")
    for (task, backbone), groups in _by_task(found.groups).items():
        parts = (
            f"{group.label} {group.done}/{group.done + group.failed + group.left}"
            for group in groups
        )
        console.print(f"  {escape(task)}, {escape(backbone)}: {escape(', '.join(parts))}")
    for failure in found.failures:
        run = failure.run
        shots = "" if run.shots is None else f", {run.shots} shots"
        name = f"{run.task.name}, {run.backbone}, {run.label}, seed {run.seed}{shots}"
        console.print(f"[red]failed[/red] {run.id} ({escape(name)}): {escape(failure.reason)}")


def _by_task(groups: tuple[PlannedGroup, ...]) -> dict[tuple[str, str], list[PlannedGroup]]:
    found: dict[tuple[str, str], list[PlannedGroup]] = {}
    for group in groups:
        found.setdefault((group.task, group.backbone), []).append(group)
    return found
