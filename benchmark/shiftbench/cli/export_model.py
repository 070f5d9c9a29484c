"""``shiftbench export-model``: a run's model as a folder that open_clip loads, or on the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shiftbench.cli.common import ONE_RUN, RESULTS, Results, check_there

EPILOG = """[bold]Examples[/bold]

The model of a run, by its id, the beginning of it, or method, task and seed:

  shiftbench export-model 3f1c --to ./my-clip

  shiftbench export-model wise-ft/cifar10/0 --to ./my-clip

A point of WiSE-FT's curve, which is made again from its parents, also on the Hugging Face Hub:

  shiftbench export-model 77ab --variant alpha=0.5 --to ./my-clip --license mit --push mylab/my-clip

It classifies with open_clip alone, or with shiftbench predict ./my-clip image.jpg
"""


def export_model(
    run: Annotated[str, typer.Argument(metavar="RUN", help=ONE_RUN)],
    to: Annotated[Path, typer.Option("--to", help="Folder to make.")],
    variant: Annotated[
        str | None,
        typer.Option(help="Such as alpha=0.5; else the one that stands for the method."),
    ] = None,
    push: Annotated[
        str | None,
        typer.Option("--push", metavar="ORG/NAME", help="Also upload it to the Hugging Face Hub."),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="A repository that --push makes is private.")
    ] = False,
    licence: Annotated[
        str | None,
        typer.Option("--license", help="Of the model, for its card: mit, cc-by-nc-4.0, …"),
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Write a run's model, its classifier, class names and a model card as an open_clip folder."""
    from shiftbench.core.errors import InputError

    if push is not None and push.count("/") != 1:
        raise InputError(f"--push {push}: must be a repository of the Hub, such as mylab/my-clip")
    check_there(results)
    from shiftbench.leaderboard.store import read
    from shiftbench.leaderboard.verify import select

    (run_id,) = select(read(results), [run])
    from shiftbench.execution.exporting import export_model as write
    from shiftbench.models import hub

    model = write(results, run_id, to, variant, licence=licence, repo=push)
    of = f", {model.variant}" if model.variant else ""
    typer.echo(f"{to}: run {run_id}{of}, {len(model.classes)} classes")
    if push is not None:
        typer.echo(hub.push(to, push, private=private))
