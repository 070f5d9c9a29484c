"""``shiftbench serve``: the report in a browser, kept current while suites run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shiftbench.cli.common import ReadResults, existing

if TYPE_CHECKING:
    from shiftbench.api import Leaderboard
    from shiftbench.report.live import LivePage, Seen

EPILOG = """[bold]Examples[/bold]

The report of ./results, at the address that is printed:

  shiftbench serve

Several results folders: a page of each, and one of all together:

  shiftbench serve --results results --results /mnt/other/results --port 8080

On a cluster's head node, seen from a laptop through ssh -L 8421:localhost:8421:

  shiftbench serve --results /shared/results
"""
PORT = 8421
LOOPBACK = "127.0.0.1"
ALL = "all"


def serve(
    results: ReadResults = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port; 0 for any that is free.")
    ] = PORT,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            help="Address to listen on. Whoever reaches it can read the results: there is no "
            "password.",
        ),
    ] = LOOPBACK,
) -> None:
    """Show the report as a web page that follows what runs, until Ctrl-C.

    It only reads, and only answers this machine unless --host says otherwise. A page is made anew
    when rows have changed.
    """
    import ipaddress
    from contextlib import suppress

    from shiftbench.report.server import ReportServer

    server = ReportServer(pages_of(existing(results)), host, port)
    loopback = host == "localhost"
    with suppress(ValueError):
        loopback = loopback or ipaddress.ip_address(host).is_loopback
    if not loopback:
        typer.echo(f"warning: whoever reaches {host} can read these results", err=True)
    with server:
        typer.echo(f"Serving at {server.url} (Ctrl-C ends)")
        server.serve_forever()


def pages_of(results: Sequence[Path]) -> Mapping[str, LivePage]:
    """The pages of some results, by path: one at the root, or one for each and one of all."""
    from shiftbench.api import Leaderboard
    from shiftbench.core.mirror import shown

    if len(results) == 1:
        return {"": _live(shown(results[0]), Leaderboard(results[0]))}
    together = Leaderboard(results)
    each = {str(i): _live(shown(one), Leaderboard(one)) for i, one in enumerate(results, start=1)}
    return {ALL: _live("all together", together), **each}


def _live(title: str, board: Leaderboard) -> LivePage:
    """The page of a leaderboard."""
    from shiftbench.core.mirror import refresh
    from shiftbench.leaderboard import store
    from shiftbench.report.html.page import render
    from shiftbench.report.live import LivePage, Seen
    from shiftbench.report.model import build
    from shiftbench.suite.finding import find_named

    def look() -> Seen:
        for where in board.sources.values():
            refresh(store.folder(where))
        stamps = [sorted(store.stamps(where).items()) for where in board.sources.values()]
        version = hashlib.sha256(repr(stamps).encode()).hexdigest()[:16]
        return Seen(version, len({run_id for of in stamps for run_id, _ in of}))

    def make(version: str) -> str:
        merged = board.merged(compact=False)
        table, folders = merged.table, merged.folders
        report = build(table, folders, title=board.title, find=find_named, curves=True)
        return render(report, version)

    return LivePage(title, look, make)
