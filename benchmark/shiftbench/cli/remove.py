"""``shiftbench remove``: forget runs."""

from __future__ import annotations

from typing import Annotated

import typer

from shiftbench.cli.common import RESULTS, Results
from shiftbench.cli.gc import settle

EPILOG = """[bold]Examples[/bold]

What would go with a run, by its id or the beginning of it:

  shiftbench remove 3f1c

All runs of a method, or all that failed, for good:

  shiftbench remove --method full --yes

  shiftbench remove --failed --yes
"""


def remove(
    run_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Run ids, or their beginnings.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="All runs of the method so called.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All runs that failed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete, and do not only show.")] = False,
    results: Results = RESULTS,
) -> None:
    """Delete rows, weights and predictions of runs; without --yes, show what would be deleted."""
    from shiftbench.core.errors import InputError
    from shiftbench.leaderboard.housekeeping import removal
    from shiftbench.leaderboard.schema import runs
    from shiftbench.leaderboard.store import read

    if not results.is_dir():
        raise InputError(f"--results {results}: there is no such folder")
    if not (run_ids or method or failed):
        raise InputError("name runs, or --method, or --failed")
    known = runs(read(results))
    chosen = {
        run.run_id
        for run in known
        if (not run_ids or any(run.run_id.startswith(start) for start in run_ids))
        and (method is None or method in run.labels)
        and (not failed or run.status == "failed")
    }
    for start in run_ids or ():
        if sum(run.run_id.startswith(start) for run in known) != 1:
            raise InputError(f'"{start}" is not the beginning of exactly one run id')
    if not chosen:
        raise InputError("there is no such run")
    settle(removal(results, chosen), yes)
