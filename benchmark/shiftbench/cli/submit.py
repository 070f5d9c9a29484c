"""``shiftbench submit``: run a suite as a job on a Ray cluster."""

from __future__ import annotations

import uuid
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from shiftbench.cli.common import (
    AllowIncomplete,
    Data,
    FastDevRun,
    LoggerNames,
    MaxConcurrent,
    Overrides,
    SuiteArgument,
    limited,
    load_suite,
)

if TYPE_CHECKING:
    from shiftbench.suite.suite import Suite

EPILOG = """[bold]Examples[/bold]

Start the nine shifts on a cluster, and watch them:

  shiftbench submit nine-shifts --address http://127.0.0.1:8265 --data /shared/data
  --results /shared/results --set resources.gpus_per_worker=1 --follow

Does everything work there? A few steps and images of every run, of which nothing is kept:

  shiftbench submit nine-shifts --data /shared/data --results /shared/results --follow
  --fast-dev-run

A method of your own package goes along:

  shiftbench submit mine.yaml --results /shared/results --plugin mylab-methods

The same command goes on after any interruption. Exit codes: those of run with --follow (143: the
job was stopped), else 0 when the job is submitted.
"""


def submit(
    suite: SuiteArgument,
    results: Annotated[
        str,
        typer.Option(
            "--results", help="Folder of the results on storage that all nodes see, or its URI."
        ),
    ],
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="URL",
            help="The cluster's dashboard, such as http://127.0.0.1:8265; else "
            "RAY_API_SERVER_ADDRESS.",
        ),
    ] = None,
    data: Data = None,
    overrides: Overrides = None,
    plugins: Annotated[
        list[str] | None,
        typer.Option(
            "--plugin",
            metavar="NAME",
            help="Installed package with plugins, or a module, to take along. May be given "
            "several times.",
        ),
    ] = None,
    allow_incomplete: AllowIncomplete = False,
    loggers: LoggerNames = None,
    max_concurrent: MaxConcurrent = None,
    fast_dev_run: FastDevRun = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show what the job prints, and end as it does.")
    ] = False,
) -> None:
    """Run a suite as a job on a Ray cluster, with the code of this machine."""
    from shiftbench.core.errors import InputError
    from shiftbench.core.locations import is_remote
    from shiftbench.core.provenance import submission
    from shiftbench.core.remote import plain_url
    from shiftbench.distributed.jobs import Jobs
    from shiftbench.execution.loggers.registry import LOGGERS
    from shiftbench.execution.upload import write_archive

    if not (is_remote(results) or Path(results).is_absolute()):
        raise InputError(f"--results {results}: name a folder that all nodes see, from the root /")
    if is_remote(results):
        plain_url(results)  # a job's command is shown
    overrides = limited(overrides, max_concurrent)
    loaded = load_suite(suite, overrides, data)
    for name in (*loaded.loggers, *(loggers or ())):
        LOGGERS.load(name)
    _check_paths(loaded)
    jobs = Jobs.at(address)
    job = f"shiftbench-{loaded.name}-{uuid.uuid4().hex[:8]}".replace(" ", "-")
    with TemporaryDirectory(prefix="shiftbench-") as folder:
        archive = Path(folder) / "job.zip"
        named = write_archive(
            archive, suite, plugins or (), miniature="miniature" in loaded.backbones
        )
        size = archive.stat().st_size
        arguments = ["run", named, "--results", results]
        arguments += [] if data is None else ["--data", data]
        arguments += [word for text in overrides for word in ("--set", text)]
        arguments += [word for name in loggers or () for word in ("--logger", name)]
        arguments += ["--allow-incomplete"] if allow_incomplete else []
        arguments += ["--fast-dev-run"] if fast_dev_run else []
        jobs.submit(job, arguments, archive, submission())
    here = f"--address {jobs.address}"
    typer.echo(f"submitted {job} ({size / 1000:,.0f} kB)")
    typer.echo(f"follow:  ray job logs --follow {here} {job}")
    typer.echo(f"stop:    ray job stop --no-wait {here} {job}")
    typer.echo("resume:  the same shiftbench submit again; what is done is not done again")
    if follow:
        code = jobs.follow(job, lambda text: typer.echo(text, nl=False))
        if code:
            raise typer.Exit(code)


def _check_paths(suite: Suite) -> None:
    """Refuse folders of this machine: relative ones mean nothing on a cluster.

    Raises:
        InputError: the data, a backbone, or a file of a method are one.
    """
    from shiftbench.core.locations import is_remote
    from shiftbench.suite.resolving import method_files

    data = suite.source.child("data")
    if data is not None:
        text = str(data.value)
        if text != "miniature" and not is_remote(text) and not text.startswith(("/", "~")):
            raise data.error("on a cluster, data are in a folder that all nodes see, from the root")
    for backbone in suite.source.children["backbones"].value:
        if str(backbone.value).startswith(("./", "../")):
            raise backbone.error("on a cluster, a backbone's folder is named from the root /")
    for task, methods in suite.methods.items():
        for file in method_files(suite.source, task, methods):
            if not str(file.value).startswith(("/", "~")):
                raise file.error(
                    "on a cluster, a file that all nodes see is named from the root /, "
                    f'got "{file.value}"'
                )
