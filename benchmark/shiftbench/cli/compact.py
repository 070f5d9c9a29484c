"""``shiftbench compact``: make reading thousands of runs quick."""

from __future__ import annotations

import typer

from shiftbench.cli.common import ReadResults, existing

EPILOG = """[bold]Examples[/bold]

After thousands of runs, so that reports are quick; runs may go on meanwhile:

  shiftbench compact --results results

Results in an object store:

  shiftbench compact --results s3://bucket/results
"""


def compact(results: ReadResults = None) -> None:
    """Copy the rows of all runs into one file, leaderboard.parquet, which reports read instead."""
    from shiftbench.core.mirror import shown
    from shiftbench.leaderboard.store import compact as copied

    chosen = existing(results)
    for one in chosen:
        done = copied(one)
        later = f"; {done.recent:,} too new to be copied" if done.recent else ""
        where = f"{shown(one)}: " if len(chosen) > 1 else ""
        typer.echo(f"{where}{done.rows:,} rows of {done.runs:,} runs are in one file now{later}")
