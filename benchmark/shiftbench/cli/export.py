"""``shiftbench export``: results with their predictions in one file, for others to check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shiftbench.cli.common import ONE_RUN, RESULTS, Results, check_there

EPILOG = """[bold]Examples[/bold]

All runs that are done:

  shiftbench export --to submission.zip

Two runs, by the beginnings of their ids, with what they build on:

  shiftbench export --runs 3f1c --runs 77ab --to submission.zip

The runs of one method, with what they build on:

  shiftbench export --task cifar10 --method wise-ft --to wise-ft.zip

It holds rows, settings, provenance and predictions, and no weights. Absolute paths and credentials
in settings and remarks are taken out. Others take it in with shiftbench import bundle.
"""


def export(
    to: Annotated[Path, typer.Option("--to", help="File to write, ending in .zip.")],
    runs: Annotated[
        list[str] | None,
        typer.Option("--runs", help=f"{ONE_RUN} May be given several times."),
    ] = None,
    task: Annotated[str | None, typer.Option(help="Runs of this task.")] = None,
    method: Annotated[str | None, typer.Option(help="Runs of the method so called.")] = None,
    results: Results = RESULTS,
) -> None:
    """Write a bundle that others can check and take in."""
    from shiftbench.leaderboard.bundles.export import export as write
    from shiftbench.leaderboard.store import read
    from shiftbench.leaderboard.verify import select

    check_there(results)
    bundle = write(results, select(read(results), runs or (), task, method), to)
    typer.echo(f"{to}: {len(bundle.run_ids)} runs, {to.stat().st_size:,} bytes")
    typer.echo(f"digest {bundle.digest}")
