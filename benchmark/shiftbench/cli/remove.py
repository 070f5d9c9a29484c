"""``shiftbench remove``: forget runs."""

from __future__ import annotations

from typing import Annotated

import typer

from shiftbench.cli.common import MANY_RUNS, RESULTS, Results, check_there
from shiftbench.cli.gc import settle

EPILOG = """[bold]Examples[/bold]

What would go with a run, by its id, the beginning of it, or method, task and seed:

  shiftbench remove 3f1c

All runs of a method, or all that failed, for good:

  shiftbench remove --method full --yes

  shiftbench remove --failed --yes
"""


def remove(
    run_ids: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help=MANY_RUNS)] = None,
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
    from shiftbench.leaderboard.verify import meant_of

    check_there(results)
    if not (run_ids or method or failed):
        raise InputError("name runs, or --method, or --failed")
    known = runs(read(results))
    named = {meant_of(text, known) for text in run_ids or ()}
    chosen = {
        run.run_id
        for run in known
        if (not named or run.run_id in named)
        and (method is None or method in run.labels)
        and (not failed or run.status == "failed")
    }
    if not chosen:
        raise InputError("there is no such run")
    settle(removal(results, chosen), yes)
