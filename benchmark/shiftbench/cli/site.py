"""``shiftbench site``: a public leaderboard from a folder of bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shiftbench.cli.common import Data

EPILOG = """[bold]Examples[/bold]

Pages that any web server can hold, from bundles called 2030-01-31-name.zip:

  shiftbench site submissions --to public

With the labels of the data too, where they are:

  shiftbench site submissions --to public --data ~/data

What a submission is, and how it is checked: docs/submit.md.
"""


def site(
    bundles: Annotated[
        Path, typer.Argument(metavar="BUNDLES", help="Folder of bundles: YYYY-MM-DD-NAME.zip.")
    ],
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Folder to write.")],
    title: Annotated[str, typer.Option("--title", help="Of the pages.")] = "Leaderboard",
    data: Data = None,
    suite: Annotated[
        str | None, typer.Option("--suite", help="Suite whose tasks are meant, with --data.")
    ] = None,
) -> None:
    """Make a static leaderboard with its history, of every bundle that passes all checks.

    Every value is computed again from the predictions. Exit code 1 where a bundle was refused, or
    disagrees with an earlier one; the site is made of the others, and says so.
    """
    from shiftbench.core.words import some
    from shiftbench.report.site import write_site
    from shiftbench.suite.finding import find_named

    labels = None
    if data is not None or suite is not None:
        from shiftbench.cli.import_ import labels_of

        labels = labels_of(suite, data)
    made = write_site(bundles, to, title=title, labels=labels, find=find_named)
    wrong = 0
    for submission in made.submissions:
        if submission.refused is not None:
            typer.echo(f"{submission.file}: REFUSED: {submission.refused}")
        else:
            unchecked = submission.unchecked
            told = f"; labels of {some(unchecked, 10)} not checked" if unchecked else ""
            typer.echo(
                f"{submission.file}: {len(submission.new)} new runs, {len(submission.known)} known"
                f"{told}"
            )
        for conflict in submission.conflicts:
            typer.echo(f"{submission.file}: CONFLICT with an earlier bundle: {conflict}")
        wrong += submission.refused is not None or bool(submission.conflicts)
    typer.echo(f"{to / 'index.html'}: {len(made.submissions) - wrong} bundles without a problem")
    if wrong:
        raise typer.Exit(1)
