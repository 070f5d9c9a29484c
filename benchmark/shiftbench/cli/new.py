"""``shiftbench new``: the beginning of a plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

EPILOG = """[bold]Examples[/bold]

A package with a method that works, to be edited; then see that it does:

  shiftbench new method smooth

  pip install -e shiftbench-smooth

  shiftbench check-plugin smooth

A metric beside it, and a package with an example of everything:

  shiftbench new metric first-two --to shiftbench-smooth

  shiftbench new plugin mylab
"""


def new(
    what: Annotated[
        Literal["method", "metric", "source", "task", "plugin"],
        typer.Argument(metavar="WHAT", help="method, metric, source, task, or plugin for all."),
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as my-method.")],
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            metavar="FOLDER",
            help="Folder of the package. Where one is it is added to; by default this folder, if "
            "it is a package, or else a new one.",
        ),
    ] = None,
) -> None:
    """Write an installable package with a small method, metric, source or task, and its tests.

    In a package that is there already, files and an entry point are added. Nothing is overwritten.
    """
    from shiftbench.testing.scaffold import new_part, new_plugin

    written = new_plugin(name, to) if what == "plugin" else new_part(what, name, to)
    for file in written.files:
        typer.echo(f"wrote {written.folder / file}")
    if written.added:
        typer.echo(f"registered in {written.folder / 'pyproject.toml'}; install it once more:")
    typer.echo(f"  pip install -e {written.folder}")
    typer.echo(f"  shiftbench check-plugin {name if what != 'plugin' else written.distribution}")
