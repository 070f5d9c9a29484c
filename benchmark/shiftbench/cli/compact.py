"""``shiftbench compact``: make reading thousands of runs quick."""

from __future__ import annotations

import typer

from shiftbench.cli.common import RESULTS, ReadResults, existing

EPILOG = """[bold]Examples[/bold]

After thousands of runs, so that reports are quick; runs may go on meanwhile:

  shiftbench compact --results results

Results in an object store:

  shiftbench compact --results s3://bucket/results
"""


def compact(results: ReadResults = str(RESULTS)) -> None:
    """Copy the rows of all runs into one file, leaderboard.parquet, which reports read instead."""
    from shiftbench.leaderboard.store import compact as copied

    done = copied(existing(results))
    later = f"; {done.recent:,} too new to be copied" if done.recent else ""
    typer.echo(f"{done.rows:,} rows of {done.runs:,} runs are in one file now{later}")
