"""The ``shiftbench`` command: one module per verb, imported when it is typed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from keyword import iskeyword
from typing import Any

import typer
from typer.core import TyperGroup

VERBS = {
    "init": "init",
    "run": "run",
    "submit": "submit",
    "plan": "plan",
    "calibrate": "calibrate",
    "status": "status",
    "show": "show",
    "report": "report",
    "compare": "compare",
    "diff": "diff",
    "serve": "serve",
    "site": "site",
    "list": "list_registered",
    "new": "new",
    "check-plugin": "check_plugin",
    "backbone": "app",
    "data": "app",
    "import": "app",
    "verify": "verify",
    "export": "export",
    "export-model": "export_model",
    "predict": "predict",
    "compact": "compact",
    "remove": "remove",
    "gc": "gc",
}
"""Verbs in the order of the help, each with the name of its function, or app, in its module.

Beside a function, the module has the examples of its ``--help`` in ``EPILOG``.
"""


class _Verbs(TyperGroup):
    """Finds a verb by importing its module, so that none pays for the others."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All verbs, for the help and for completion."""
        return [*VERBS]  # once its module is imported, ``list`` is a verb here

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of one verb."""
        if cmd_name not in VERBS:
            return None
        module_name = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name.replace("-", "_")
        module = importlib.import_module(f"shiftbench.cli.{module_name}")
        found = getattr(module, VERBS[cmd_name])
        if not isinstance(found, typer.Typer):
            function, found = found, typer.Typer(rich_markup_mode="rich", add_completion=False)
            found.command(cmd_name, epilog=module.EPILOG)(function)
        command = typer.main.get_command(found)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=_Verbs,
    name="shiftbench",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    epilog="""[bold]Examples[/bold]

A benchmark of robust fine-tuning in a few minutes, on data that ship with it:

  shiftbench run quickstart

What a suite would cost, and what of it is done:

  shiftbench plan nine-shifts --data ~/data

Exit codes: 0 done, 1 some runs failed, 2 bad input, 130 interrupted, 143 stopped by SIGTERM.
""",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from shiftbench.core.version import __version__

        typer.echo(f"shiftbench {__version__}")
        raise typer.Exit


@app.callback()
def shiftbench(
    version: bool = typer.Option(
        False, "--version", help="Print the version.", callback=_show_version, is_eager=True
    ),
) -> None:
    """Benchmark robust fine-tuning of vision-language models under distribution shift."""
    from shiftbench.core.plugins import development_modules

    development_modules()  # a fault of theirs is of every verb that looks at what is registered


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: by default those of the process.

    Returns:
        The exit code: 0 done, 1 some runs failed, 2 bad input, 130 interrupted, 143 stopped by
        SIGTERM.
    """
    from shiftbench.core.errors import InputError, StorageError, disk_full, place_refused
    from shiftbench.core.stopping import INTERRUPTED, stoppable

    try:
        with stoppable():
            app(None if arguments is None else [*arguments], prog_name="shiftbench")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except InputError as error:
        for line in error.lines:
            typer.echo(f"error: {line}", err=True)
        return 2
    except OSError as error:
        if not (isinstance(error, StorageError) or disk_full(error) or place_refused(error)):
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        typer.echo(f"error: {where}{error.strerror or error}", err=True)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
