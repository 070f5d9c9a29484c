"""Parts of a report, straight from a table."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
from rich.console import Console
from shiftbench.leaderboard.schema import rows
from shiftbench.report.markdown import to_markdown
from shiftbench.report.model import build
from shiftbench.report.ranking import Ranking, rank
from shiftbench.report.terminal import print_report


def rankings(table: pa.Table) -> list[Ranking]:
    return rank(rows(table))


def markdown(table: pa.Table, **options: Any) -> str:
    return to_markdown(build(table, **options))


def printed(table: pa.Table, width: int = 100, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_report(console, build(table, **options))
    return console.file.getvalue()
