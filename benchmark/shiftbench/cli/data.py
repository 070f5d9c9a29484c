"""``shiftbench data``: check, download and draw the data sets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shiftbench.cli.common import Data, Overrides, load_suite

if TYPE_CHECKING:
    from rich.console import Console

    from shiftbench.data.downloads.transfer import Progress
    from shiftbench.data.tasks.definition import Task

app = typer.Typer(
    name="data",
    help="Check, download and draw the data sets.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

_VERIFY_EPILOG = """[bold]Examples[/bold]

All sets of the nine shifts under one folder:

  shiftbench data verify --data ~/data

The sets that one suite, or one task, needs:

  shiftbench data verify pacs --data ~/data

  shiftbench data verify --task cifar10 --data ~/data

Sets beside the nine shifts, task by task (shiftbench list tasks):

  shiftbench data verify --task dtd --task pacs-sketch --data ~/data

Every single image, before a week of training:

  shiftbench data verify --deep --data ~/data
"""

_FETCH_EPILOG = """[bold]Examples[/bold]

  shiftbench data fetch cifar10 cifar10.1 cifar10.2 --to ~/data

  shiftbench data fetch imagenet-r --to ~/data

An interrupted download goes on when the same is typed again.
"""

_MINIATURE_EPILOG = """[bold]Examples[/bold]

  shiftbench data miniature

  shiftbench data miniature --to ./miniature
"""

_STYLES = {"ok": "green", "incomplete": "yellow", "refused": "red", "absent": "red"}


@app.command(epilog=_VERIFY_EPILOG)
def verify(
    suite: Annotated[
        str | None,
        typer.Argument(
            metavar="[SUITE]",
            help="Suite whose tasks to check, by its file or its name; else the nine shifts'.",
        ),
    ] = None,
    overrides: Overrides = None,
    data: Data = None,
    task: Annotated[
        list[str] | None, typer.Option(help="Only this task; may be given several times.")
    ] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Decode all images, find leaks.")] = False,
) -> None:
    """Check files, counts, labels and images: one line a set, exit code 1 unless all are ok.

    As shiftbench run does before anything else, which always decodes every image.
    """
    from rich.console import Console

    from shiftbench.data import roots
    from shiftbench.data.verify import verify as findings
    from shiftbench.execution.preflight import task_problems

    tasks, where = _tasks(suite, overrides, data, task or [])
    console = Console(soft_wrap=True)
    root = roots.resolve(where, lambda name: console.print(f"drawing {name}", style="dim"))
    complete = True
    opened = {}
    for finding in findings(tasks, root, "all" if deep else "sample"):
        opened[finding.name] = finding.status in ("ok", "incomplete")
        _show(console, finding.status, finding.name, finding.detail)
        complete = complete and finding.status == "ok"
    for item in tasks:
        if not all(opened[source.title] for source in item.sources().values()):
            continue
        for problem in task_problems(item, root, deep=deep):
            _show(console, "refused", f"task {item.name}", problem)
            complete = False
    if not complete:
        raise typer.Exit(1)


def _show(console: Console, status: str, name: str, detail: str) -> None:
    from rich.markup import escape

    style = _STYLES[status]
    console.print(
        f"[{style}]{status:10}[/{style}] {escape(name)}: {escape(detail)}", highlight=False
    )


def _tasks(
    suite: str | None, overrides: list[str] | None, data: str | None, names: list[str]
) -> tuple[list[Task], str]:
    """The tasks to check, and where their data are."""
    from shiftbench.core.errors import InputError
    from shiftbench.core.words import nearest
    from shiftbench.data.tasks.registry import TASKS

    if suite is not None:
        loaded = load_suite(suite, overrides, data)
        tasks, where = dict(loaded.tasks), loaded.require_data()
    elif overrides:
        raise InputError("--set changes a suite; name the suite")
    else:
        from shiftbench.data.tasks.registry import builtin_tasks, miniature_tasks

        if data is None:
            raise InputError("no data: add --data FOLDER, or --data miniature for a small copy")
        tasks, where = (miniature_tasks() if data == "miniature" else builtin_tasks()), data
        tasks |= {
            name: TASKS.load(name) for name in names if name in TASKS.entries().keys() - tasks
        }
    for name in names:
        if name not in tasks:
            raise InputError(f'--task: there is no task "{name}"{nearest(name, tasks)}')
    return [tasks[name] for name in names or tasks], where


@app.command(epilog=_FETCH_EPILOG)
def fetch(
    names: Annotated[
        list[str],
        typer.Argument(
            help="cifar10, cifar10.1, cifar10.2, imagenet-v2, imagenet-r, imagenet-a, "
            "imagenet-sketch or cifar100."
        ),
    ],
    to: Annotated[Path, typer.Option(help="The data root, made when it is not there.")],
) -> None:
    """Download data sets that are free to download, and check what came."""
    from shiftbench.core.errors import InputError
    from shiftbench.data.downloads.catalogue import CATALOGUE
    from shiftbench.data.downloads.fetch import fetch as download

    for name in names:
        if name not in CATALOGUE:
            raise InputError(f'"{name}" cannot be downloaded; these can: {", ".join(CATALOGUE)}')
    for name in names:
        with _shown() as progress:
            new = download(name, to.expanduser(), progress)
        typer.echo(f"{name}: {'downloaded' if new else 'was there already'}")
    typer.echo(f"check it with: shiftbench data verify --data {to}")


@contextmanager
def _shown() -> Iterator[Progress]:
    """A progress bar for each file."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), TimeRemainingColumn()) as bars:
        known: dict[str, object] = {}

        def show(name: str, done: int, total: int | None) -> None:
            if name not in known:
                known[name] = bars.add_task(name, total=total)
            bars.update(known[name], completed=done, total=total)  # type: ignore[arg-type]

        yield show


@app.command(epilog=_MINIATURE_EPILOG)
def miniature(
    to: Annotated[
        Path | None, typer.Option(help="Folder to make; by default one in the cache.")
    ] = None,
) -> None:
    """Draw the miniature world, in the real data sets' layouts, and print where it is."""
    from shiftbench.core.errors import InputError
    from shiftbench.data import roots
    from shiftbench.data.miniature.layout import generate

    def say(name: str) -> None:
        typer.echo(f"drawing {name}", err=True)

    if to is None:
        typer.echo(roots.resolve("miniature", say))
        return
    try:
        generate(to.expanduser(), say)
    except OSError as error:
        raise InputError(f"--to {to}: {error}") from error
    typer.echo(str(to))
