"""``shiftbench gc``: find and delete what nothing needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from shiftbench.cli.common import RESULTS, Results, check_there

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shiftbench.leaderboard.housekeeping import Item

EPILOG = """[bold]Examples[/bold]

What nothing needs, with sizes; nothing is deleted:

  shiftbench gc

Delete it, and the weights of finished runs too; rows and predictions stay:

  shiftbench gc --weights --yes

Decoded images and features, which are made again when a run needs them:

  shiftbench gc --cache
"""


def gc(
    weights: Annotated[
        bool,
        typer.Option("--weights", help="Also weights that no unfinished run builds on."),
    ] = False,
    cache: Annotated[
        bool,
        typer.Option(
            "--cache", help="Also decoded images and features in the cache; not while a suite runs."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete, and do not only show.")] = False,
    results: Results = RESULTS,
) -> None:
    """Find what nothing needs; without --yes, only show it."""
    from shiftbench.core.locations import cache_dir
    from shiftbench.leaderboard.housekeeping import entries, leftovers
    from shiftbench.leaderboard.leases import held_now

    check_there(results)
    at_work = held_now(results)
    if at_work:
        holders = ", ".join(sorted({lease.holder for lease in at_work.values()}))
        typer.echo(f"{len(at_work)} being done by {holders}: their files and all weights stay")
    items = leftovers(results, weights=weights)
    if cache:
        for name in ("store", "features", "ties"):
            items += entries(cache_dir() / name, "made again when a run needs it")
    settle(items, yes)


def settle(items: Sequence[Item], yes: bool) -> None:
    """Show what is to go, and delete it if that is meant."""
    from shiftbench.core.mirror import shown
    from shiftbench.leaderboard.housekeeping import delete

    for item in items:
        typer.echo(f"{size(item.size):>9}  {shown(item.path)}: {item.why}")
    total = size(sum(item.size for item in items))
    if yes:
        typer.echo(f"deleted: {size(delete(items))}")
    else:
        typer.echo(f"{total} in all; nothing is deleted without --yes" if items else "nothing")


def size(count: int) -> str:
    """Such as ``1.2 GB``."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
