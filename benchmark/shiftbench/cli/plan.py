"""``shiftbench plan``: what a suite asks for, what of it is done, what the rest will cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from shiftbench.cli.common import RESULTS, Data, Overrides, Results, SuiteArgument, load_suite
from shiftbench.core.words import duration, size

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from shiftbench.execution.amounts import Amount, Cost
    from shiftbench.execution.cost import PlanState
    from shiftbench.execution.forecast import Forecast
    from shiftbench.execution.simulation import Simulated
    from shiftbench.suite.plan import Plan
    from shiftbench.suite.suite import Suite

EPILOG = """[bold]Examples[/bold]

What is done, what is left and what it will cost:

  shiftbench plan miniature

With real data, another learning rate and one method less:

  shiftbench plan nine-shifts --data ~/data --set methods.full.lr=1e-5 --set methods.l2-sp=null

What it would take on other GPUs than this machine has:

  shiftbench plan nine-shifts --data ~/data --device H100 --set resources.gpus_per_worker=1

How long 8 nodes of 8 GPUs would take, and what where nodes are preempted twice a day:

  shiftbench plan nine-shifts --data ~/data --cluster 64xH100 --spot-price 2.50
  --preemptions-per-hour 0.08

Everything that a suite means, inherited values and defaults included, as a suite:

  shiftbench plan quickstart --resolved
"""
LEAST = "≥ "
"""Before a number of which only a part is known."""


def plan(
    suite: SuiteArgument,
    overrides: Overrides = None,
    data: Data = None,
    results: Results = RESULTS,
    allow_incomplete: Annotated[
        bool, typer.Option("--allow-incomplete", help="As for run: no problem are missing files.")
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            help="GPU that times are estimated for where nothing was measured, such as H100; by "
            "default this machine's.",
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            metavar="NxGPU",
            help="Simulate what is left on such a cluster: 8xH100, 64xA100, 32xcpu. GPUs of all "
            "nodes, up to 8 each unless --nodes says how many nodes.",
        ),
    ] = None,
    nodes: Annotated[
        int | None, typer.Option("--nodes", min=1, help="Nodes of that cluster.")
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option("--gpus", min=1, help="GPUs of each node, without --cluster; of --device."),
    ] = None,
    spot_price: Annotated[
        float | None,
        typer.Option("--spot-price", min=0.0, help="Price of one GPU for an hour, in any money."),
    ] = None,
    preemptions: Annotated[
        float,
        typer.Option(
            "--preemptions-per-hour",
            min=0.0,
            help="Times that a node is taken away in an hour, on average.",
        ),
    ] = 0.0,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print the suite with everything spelled out.")
    ] = False,
) -> None:
    """Show what a suite asks for, what of it is done, and what the rest will cost.

    Exit code 2 where shiftbench run would refuse the data, a backbone or a logger. No image is
    decoded but the few that tell how much disk a method's store takes.
    """
    from dataclasses import replace

    from rich.console import Console

    loaded = load_suite(suite, overrides, data)
    if resolved:
        from shiftbench.suite.dumping import dump

        typer.echo(dump(loaded), nl=False)
        return
    from shiftbench.core.errors import InputError
    from shiftbench.data.sources.base import read_once
    from shiftbench.execution.cost import plan_state
    from shiftbench.execution.forecast import Cluster, forecast
    from shiftbench.execution.outlook import Machine, needs, outlook
    from shiftbench.execution.preflight import problems, shortages
    from shiftbench.execution.throughput import device_of
    from shiftbench.suite.plan import Plan

    asked = Cluster.of(cluster, nodes, gpus, device)
    if asked is None and (spot_price is not None or preemptions):
        raise InputError("--spot-price and --preemptions-per-hour are of a cluster: add --cluster")
    if asked is not None:
        loaded = replace(loaded, resources=asked.resources(loaded.resources))
    planned = Plan.build(loaded)
    root = data_root(loaded)
    meant = None if device is None else device_of(loaded.resources, device)
    meant = meant if asked is None else asked.device
    console = Console()
    with read_once():
        state = plan_state(planned, results, root, meant)
        machine = Machine.here(loaded.resources, results)
        if asked is not None and (left := left_of(planned, results)):
            simulated = forecast(planned, left, state.estimator, asked, preemptions)
            show_forecast(console, loaded, simulated, state.cost.seconds.whole, spot_price)
            lines = needs(planned, state, results, machine)
        else:
            show(console, loaded, state)
            if meant is not None:  # another machine's
                machine = replace(machine, workers=0)
            lines = outlook(planned, state, results, machine=machine)
        for line in lines:
            console.print(line, style="dim", highlight=False, markup=False, soft_wrap=True)
        if root is not None:
            show_stores(console, planned, root)
        found = problems(planned, root, allow_incomplete=allow_incomplete)
    for problem in found:
        typer.echo(f"error: {problem}", err=True)
    if found:
        raise typer.Exit(2)
    for line in shortages(planned, root) if root else []:
        typer.echo(f"remark: {line}")


def left_of(planned: Plan, results: Path) -> set[str]:
    """Ids of the runs that are not done, or lack a set beside their task's own."""
    from shiftbench.execution.beside import to_evaluate
    from shiftbench.leaderboard import store

    statuses = store.statuses(results, planned.runs)
    more = to_evaluate(planned, store.read(results, planned.runs))
    return {i for i in planned.runs if statuses.get(i) != "done" or i in more}


def show_forecast(
    console: Console, suite: Suite, found: Forecast, whole: bool, price: float | None
) -> None:
    """Print how long clusters of several sizes take, and what preemptions would change.

    Args:
        console: where to print.
        suite: that is planned.
        found: to be shown.
        whole: whether all that takes time is known.
        price: of a GPU, or a processor, for an hour; ``None`` where none was given.
    """
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    cluster = found.cluster
    many = "GPUs" if cluster.device.kind == "gpu" else "processors"
    least = "" if whole else LEAST
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    costs = [] if price is None else ["cost"]
    for name in (many, "time", "first row", f"{many[:-1]}-hours", "busy", *costs):
        table.add_column(name, justify="right", no_wrap=True)

    def row(name: str, devices: int, of: Simulated, style: str = "") -> None:
        hours = devices * of.seconds / 3600
        table.add_row(
            name,
            least + duration(of.seconds),
            duration(of.first),
            f"{least}{hours:,.1f}",
            f"{of.busy:.0%}",
            *([] if price is None else [f"{least}{hours * price:,.2f}"]),
            style=style,
        )

    for devices, of in found.sizes.items():
        row(f"{devices:,}", devices, of, "bold" if devices == cluster.all_devices else "")
    if (lost := found.preempted) is not None:
        row(f"{cluster.all_devices:,}, preempted", cluster.all_devices, lost)
    nodes = "1 node" if cluster.nodes == 1 else f"{cluster.nodes} nodes"
    console.print(
        f"[bold]{escape(suite.name)}[/bold] on [bold]{cluster.all_devices} × "
        f"{cluster.device.name}[/bold] ({nodes})",
        highlight=False,
    )
    console.print(table)
    for line in _said_of(found, many):
        console.print(line, style="dim", highlight=False, soft_wrap=True)


def _said_of(found: Forecast, many: str) -> list[str]:
    """What a forecast's numbers come to."""
    lines = [
        f"Even {max(found.sizes):,} {many} save a tenth of the time or more."
        if found.helps is None
        else f"More than {found.helps:,} {many} hardly help: twice as many save less than a tenth "
        "of the time."
    ]
    if (lost := found.preempted) is not None:
        again = f"{lost.again / max(lost.work, 1e-9):.1%} of the work is done twice"
        lines.append(f"Preempted {lost.preempted} times: {again}; a node is back after 3 minutes.")
    lines.append("Simulated with the scheduler of run, which has the cluster for itself.")
    return lines


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
        if group.same_as is None:
            table.add_row(f"  {escape(group.label)}", *counts, *cells(group.cost))
        else:  # counted there
            table.add_row(
                f"  {escape(group.label)} = {escape(group.same_as)}", *counts, style="dim"
            )
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


def cells(cost: Cost) -> tuple[str, str, str, str]:
    """Steps, images trained on, images predicted and time, for people."""
    return (
        _cell(cost.steps),
        _cell(cost.images),
        _cell(cost.predictions),
        _cell(cost.seconds, duration),
    )


def _count(n: float) -> str:
    """A number, in millions where it is long."""
    return f"{n:,.0f}" if n < 10e6 else f"{n / 1e6:,.1f} M"


def _cell(of: Amount, text: Callable[[float], str] = _count) -> str:
    return f"{'' if of.whole else LEAST}{text(of.known)}"


def _remark(suite: Suite, state: PlanState) -> str:
    parts = ["Steps, images trained on and predicted, and time: of what is left."]
    cost = state.cost
    if not (cost.predictions.whole and cost.images.whole):
        where = "not named: add --data" if suite.data is None else f"not all in {suite.data}"
        parts.append(f"{LEAST.strip()} at least: some sizes are unknown, as the data are {where}.")
    elif not cost.seconds.whole:
        parts.append(f"{LEAST.strip()} at least: the arithmetic of a backbone is not known.")
    return " ".join(parts)
