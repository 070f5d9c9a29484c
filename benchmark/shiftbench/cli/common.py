"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from shiftbench.leaderboard.store import Location
    from shiftbench.suite.suite import Suite

SuiteArgument = Annotated[
    str, typer.Argument(metavar="SUITE", help="Suite file, or the name of one in suites/.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a value of the suite, such as methods.full.lr=1e-5; null removes a method "
        "or a task. May be given several times.",
    ),
]
Data = Annotated[
    str | None,
    typer.Option("--data", help="Folder or URI of the data sets, or 'miniature'."),
]
Results = Annotated[Path, typer.Option("--results", help="Folder of the results.")]
RESULTS = Path("results")
ReadResults = Annotated[
    str, typer.Option("--results", help="Folder of the results, or its URI in an object store.")
]


def existing(results: str) -> Location:
    """The results that ``--results`` means.

    Raises:
        InputError: there are none.
    """
    from shiftbench.core.errors import InputError
    from shiftbench.core.locations import is_remote
    from shiftbench.leaderboard.store import exists

    if not exists(results):
        raise InputError(f"--results {results}: there is no such folder")
    return results if is_remote(results) else Path(results)


def suite_folders() -> list[Path]:
    """Where suites are looked for by name: ``suites/`` here, and the shipped ones."""
    from shiftbench.core.shipped import shipped

    places = (Path("suites"), shipped("suites"))
    folders = {place.resolve(): place for place in reversed(places) if place.is_dir()}
    return list(reversed(folders.values()))


def find_suite(suite: str) -> Path:
    """The file that ``suite`` means: a path, or the name of a suite.

    Raises:
        InputError: there is none.
    """
    path = Path(suite)
    if path.suffix in (".yaml", ".yml") or len(path.parts) != 1 or path.exists():
        return path
    files = {file.stem: file for folder in reversed(suite_folders()) for file in suites_in(folder)}
    if suite not in files:
        from shiftbench.core.errors import InputError
        from shiftbench.core.words import nearest

        raise InputError(f'there is no file or suite "{suite}"{nearest(suite, files)}')
    return files[suite]


def suites_in(folder: Path) -> list[Path]:
    """The suite files of a folder, by name."""
    return sorted(folder.glob("*.yaml"))


def load_suite(suite: str, overrides: list[str] | None, data: str | None) -> Suite:
    """The suite that the shared arguments mean.

    Raises:
        InputError: one line with file, line, key and what is accepted.
    """
    from shiftbench.suite.suite import Suite

    return Suite.load(find_suite(suite), overrides or (), data)
