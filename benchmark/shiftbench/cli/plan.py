"""``shiftbench plan``: what a suite asks for, what of it is done, what the rest will cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from shiftbench.cli.common import RESULTS, Data, Overrides, Results, SuiteArgument, load_suite

if TYPE_CHECKING:
    from rich.console import Console

    from shiftbench.execution.cost import Cost, PlanState
    from shiftbench.suite.plan import Plan
    from shiftbench.suite.suite import Suite

EPILOG = """[bold]Examples[/bold]

What is done, what is left and what it will cost:

  shiftbench plan miniature

With real data, another learning rate and one method less:

  shiftbench plan nine-shifts --data ~/data --set methods.full.lr=1e-5 --set methods.l2-sp=null

Everything that a suite means, inherited values and defaults included, as a suite:

  shiftbench plan quickstart --resolved
"""


def plan(
    suite: SuiteArgument,
    overrides: Overrides = None,
    data: Data = None,
    results: Results = RESULTS,
    allow_incomplete: Annotated[
        bool, typer.Option("--allow-incomplete", help="As for run: no problem are missing files.")
    ] = False,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print the suite with everything spelled out.")
    ] = False,
) -> None:
    """Show what a suite asks for, what of it is done, and what the rest will cost.

    Exit code 2 where shiftbench run would refuse the data or a backbone. No image is decoded but
    the few that tell how much disk a method's store takes.
    """
    from rich.console import Console

    loaded = load_suite(suite, overrides, data)
    if resolved:
        from shiftbench.suite.dumping import dump

        typer.echo(dump(loaded), nl=False)
        return
    from shiftbench.data.sources.base import read_once
    from shiftbench.execution.cost import plan_state
    from shiftbench.execution.preflight import problems, shortages
    from shiftbench.suite.plan import Plan

    planned = Plan.build(loaded)
    root = data_root(loaded)
    with read_once():
        show(Console(), loaded, plan_state(planned, results, root))
        if root is not None:
            show_stores(Console(), planned, root)
        found = problems(planned, root, allow_incomplete=allow_incomplete)
    for problem in found:
        typer.echo(f"error: {problem}", err=True)
    if found:
        raise typer.Exit(2)
    for line in shortages(planned, root) if root else []:
        typer.echo(f"remark: {line}")


def data_root(suite: Suite) -> str | None:
    """Where the suite's data are, drawing the miniature world when it is not there yet."""
    from shiftbench.data.roots import resolve

    if suite.data is None:
        return None
    return resolve(suite.data, lambda name: typer.echo(f"drawing {name} (once)", err=True))


def show(console: Console, suite: Suite, state: PlanState) -> None:
    """Print a line for each task, backbone and method, and the totals."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    from shiftbench.execution.cost import STATES

    console.print(f"[bold]{escape(suite.name)}[/bold] {escape(suite.description)}", highlight=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("method", overflow="fold")
    for name in (*STATES, "steps", "trained", "predicted", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    previous = ("", "")
    for group in state.groups:
        heading = (group.task, group.backbone)
        if heading != previous:
            if any(previous):
                table.add_row()
            table.add_row(f"[bold]{escape(group.task)}[/bold] {escape(group.backbone)}")
            previous = heading
        counts = (str(group.done), str(group.failed), str(group.left))
        table.add_row(f"  {escape(group.label)}", *counts, *cells(group.cost))
    table.add_section()
    totals = (str(state.count(name)) for name in STATES)
    table.add_row("all", *totals, *cells(state.cost), style="bold")
    console.print(table)
    console.print(_remark(suite, state), style="dim", highlight=False)


def show_stores(console: Console, planned: Plan, root: str) -> None:
    """Print a line for each training set that is kept shrunk; nothing where none can be read."""
    from shiftbench.core.errors import InputError
    from shiftbench.core.locations import cache_dir
    from shiftbench.execution.training_stores import free_bytes, training_stores

    try:
        stores = training_stores(planned, root)
    except InputError:  # said below, as a problem
        return
    for store in stores:
        console.print(
            f"Training store: {store.task}, {store.images:,} images, shorter side "
            f"{store.form.side}, {store.form.format}: about {size(store.bytes)}"
            + (", made already." if store.there else "."),
            style="dim",
            highlight=False,
        )
    if stores:
        console.print(
            f"{size(free_bytes())} are free in {cache_dir()}.", style="dim", highlight=False
        )


def size(count: int) -> str:
    """Bytes for people, such as ``3.1 GiB``."""
    return f"{count / 2**30:,.1f} GiB" if count >= 2**29 else f"{count / 2**20:,.1f} MiB"


def cells(cost: Cost) -> tuple[str, str, str, str]:
    """Steps, images trained on, images predicted and time, for people."""
    counts = (cost.steps, cost.images, cost.predictions)
    steps, images, predictions = ("?" if n is None else f"{n:,}" for n in counts)
    return steps, images, predictions, "?" if cost.seconds is None else duration(cost.seconds)


def duration(seconds: float) -> str:
    """Such as ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h"


def _remark(suite: Suite, state: PlanState) -> str:
    parts = ["Steps, images trained on and predicted, and time: of the runs that are not done."]
    if state.cost.predictions is None or state.cost.images is None:
        where = "not named: add --data" if suite.data is None else f"not all in {suite.data}"
        parts.append(f"Some sizes are unknown, since the data are {where}.")
    elif state.cost.seconds is None:
        parts.append("Times are unknown until something like it has run.")
    else:
        parts.append("The time is that of one run after the other.")
    return " ".join(parts)
