"""``shiftbench list``: the methods, metrics, tasks, sources, … and suites there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from shiftbench.core.plugins import Kind, Registry

EPILOG = """[bold]Examples[/bold]

  shiftbench list methods

  shiftbench list tasks

  shiftbench list suites

A method of your own, before it is packaged:

  SHIFTBENCH_PLUGINS=smooth=mylab.smooth:Smooth shiftbench list methods
"""

Row = tuple[str, str, str]


def list_registered(
    what: Annotated[
        Literal["methods", "metrics", "tasks", "sources", "backbones", "loggers", "suites"],
        typer.Argument(
            metavar="WHAT", help="methods, metrics, tasks, sources, backbones, loggers or suites."
        ),
    ],
) -> None:
    """List what a suite can name, where it comes from, and what it is."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if what == "tasks":
        _show_tasks(Console())
        return
    table = Table("name", "from", "what it is", box=None, pad_edge=False, header_style="bold")
    for row in _suites() if what == "suites" else _registered(what):
        style = "red" if row[2].startswith("broken: ") else None
        table.add_row(*map(escape, row), style=style)
    console = Console()
    console.print(table)
    if what == "backbones":
        console.print(
            "Also any pretrained/model of open_clip, such as openai/ViT-B-16: shiftbench backbone "
            "list; hf-hub:org/name; and any folder or file of weights.",
            highlight=False,
        )


def _show_tasks(console: Console) -> None:
    """The tasks, collection by collection: sets, numbers of images, metrics, where to get them."""
    from rich.markup import escape
    from rich.table import Table

    from shiftbench.data.tasks.registry import TASKS, collections

    rows = {name: (origin, said) for name, origin, said in _registered("tasks")}
    groups = collections()
    known = {name for names in groups.values() for name in names}
    entries = TASKS.entries()
    others = tuple(name for name in entries if name not in known or not entries[name].builtin)
    for title, names in (groups | ({"Of plugins": others} if others else {})).items():
        console.print(f"[bold]{escape(title)}[/bold]", highlight=False)
        table = Table(box=None, pad_edge=False, show_header=False)
        for name in names:
            origin, said = rows[name]
            style = "red" if said.startswith("broken: ") else None
            of = "" if title in groups else f"{origin}: "
            table.add_row(escape(name), escape(of + said), style=style)
        console.print(table, "")


def _registered(kind: Kind) -> Iterator[Row]:
    from shiftbench.core.errors import InputError

    registry = _registry(kind)
    for name, entry in registry.entries().items():
        origin = "built in" if entry.builtin else f"plugin {entry.origin}"
        try:
            description = _describe(registry.load(name))
        except InputError as error:
            typer.echo(f"warning: {error}", err=True)
            description = f"broken: {error}"
        yield name, origin, description


def _registry(kind: Kind) -> Registry[object]:
    match kind:
        case "methods":
            from shiftbench.methods.registry import METHODS

            return METHODS
        case "metrics":
            from shiftbench.evaluation.metrics.registry import METRICS

            return METRICS
        case "tasks":
            from shiftbench.data.tasks.registry import TASKS

            return TASKS
        case "sources":
            from shiftbench.data.sources.registry import SOURCES

            return SOURCES
        case "loggers":
            from shiftbench.execution.loggers.registry import LOGGERS

            return LOGGERS
        case _:
            from shiftbench.models.registry import BACKBONES

            return BACKBONES


def _describe(loaded: object) -> str:
    """What a registered object is: a task in some lines, else the first line of its docstring."""
    from shiftbench.data.tasks.definition import Task
    from shiftbench.data.tasks.summary import summary

    if not isinstance(loaded, Task):
        return (getattr(loaded, "__doc__", None) or "").strip().partition("\n")[0]
    told = summary(loaded)
    return "\n".join((told.sets, f"images: {told.images}; metric: {told.metrics}", *told.terms))


def _suites() -> Iterator[Row]:
    from shiftbench.core.errors import InputError
    from shiftbench.suite.finding import files_in, folders
    from shiftbench.suite.suite import Suite

    for folder in folders():
        for file in files_in(folder):
            try:
                description = Suite.load(file).description
            except InputError as error:
                typer.echo(f"warning: {error}", err=True)
                description = f"broken: {error}"
            yield file.stem, str(folder), description
