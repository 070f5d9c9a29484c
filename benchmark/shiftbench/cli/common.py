"""Arguments and options that several verbs share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from shiftbench.suite.suite import Suite

SuiteArgument = Annotated[
    str, typer.Argument(metavar="SUITE", help="Suite file, or the name of one: list suites.")
]
OptionalSuite = Annotated[
    str | None,
    typer.Argument(
        metavar="[SUITE]",
        help="Suite whose runs are meant, by its file or its name; else all there are.",
    ),
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


def _as_given(value: str | Path) -> str | Path:
    """A results folder as it was given: a path would make ``s3:/`` of ``s3://``."""
    return value if "://" in str(value) else Path(value)


def _opened(value: str | Path) -> Path:
    """A results folder, or the copy here of one in an object store, as it is now.

    Raises:
        InputError: the store cannot be used.
    """
    if isinstance(value, Path):
        return value
    from shiftbench.core.mirror import opened

    return opened(value)


Results = Annotated[
    Path,
    typer.Option(
        "--results",
        parser=_as_given,
        callback=_opened,
        metavar="FOLDER",
        help="Folder of the results, or its URL in an object store.",
    ),
]
RESULTS = Path("results")
ONE_RUN = "Run id or its beginning, or method, method/task, method/task/seed."
MANY_RUNS = "Run ids or their beginnings, or method, method/task, method/task/seed."
ExecutorName = Annotated[
    Literal["ray", "in-process"],
    typer.Option(
        "--executor",
        help="Do the work in several processes, on Ray where that is needed, or in this process, "
        "one job after the other.",
    ),
]
LoggerNames = Annotated[
    list[str] | None,
    typer.Option(
        "--logger",
        metavar="NAME",
        help="Show trainings as they go on: tensorboard, wandb, mlflow or a plugin's. May be given "
        "several times.",
    ),
]
AllowIncomplete = Annotated[
    bool, typer.Option("--allow-incomplete", help="Go on with data sets that lack files.")
]
MaxConcurrent = Annotated[
    int | None,
    typer.Option(min=1, help="Have at most so many workers at once (resources.max_concurrent)."),
]
FastDevRun = Annotated[
    bool,
    typer.Option(
        "--fast-dev-run",
        help="Do a few steps and images of every run, and keep nothing; exit code 1 if one fails.",
    ),
]
Address = Annotated[
    str | None,
    typer.Option("--address", help="Ray cluster to join; by default one on this machine."),
]
ReadResults = Annotated[
    list[str] | None,
    typer.Option(
        "--results",
        metavar="FOLDER",
        help="Folder of the results, or its URI in an object store; given several times, they are "
        "read as one. By default results.",
        show_default=False,
    ),
]


def check_there(results: Path) -> None:
    """See that there are results.

    Raises:
        InputError: there are none.
    """
    if not results.is_dir():
        from shiftbench.core.errors import InputError
        from shiftbench.core.mirror import shown

        raise InputError(f"--results {shown(results)}: there is no such folder")


def existing(results: list[str] | None) -> list[Path]:
    """The results that ``--results`` means.

    Raises:
        InputError: there are none.
    """
    from shiftbench.core.mirror import opened

    chosen = [opened(one) for one in results or [str(RESULTS)]]
    for folder in chosen:
        check_there(folder)
    return chosen


def load_suite(suite: str, overrides: list[str] | None, data: str | None) -> Suite:
    """The suite that the shared arguments mean.

    Raises:
        InputError: one line with file, line, key and what is accepted.
    """
    from shiftbench.suite.suite import Suite

    return Suite.load(suite, overrides or (), data)


def limited(overrides: list[str] | None, max_concurrent: int | None) -> list[str]:
    """What ``--set`` overrides, with ``--max-concurrent``."""
    limit = [] if max_concurrent is None else [f"resources.max_concurrent={max_concurrent}"]
    return [*(overrides or ()), *limit]


def check_suite_options(suite: str | None, overrides: list[str] | None, data: str | None) -> None:
    """Refuse options that say something of a suite where no suite is named.

    Raises:
        InputError: there are some.
    """
    if suite is None and (data is not None or overrides):
        from shiftbench.core.errors import InputError

        raise InputError("--data and --set say which runs a suite means; name the suite")


@contextmanager
def written(file: Path) -> Iterator[None]:
    """Say in one line why a file cannot be written.

    Raises:
        InputError: it cannot.
    """
    from shiftbench.core.errors import InputError

    try:
        yield
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror})") from error
