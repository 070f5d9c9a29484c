"""``python -m shiftbench.leaderboard.published``: make the Parquet files from CSV files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from shiftbench.core.errors import InputError
from shiftbench.core.shipped import shipped
from shiftbench.leaderboard.published.making import convert, write


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the Parquet files from CSV files."""
    parser = argparse.ArgumentParser(description="Make the Parquet files of published results.")
    parser.add_argument(
        "--from",
        dest="sources",
        type=Path,
        action="append",
        required=True,
        help="a folder of CSV files; may be given several times",
    )
    parser.add_argument("--to", type=Path, default=shipped("published"), help="a folder")
    options = parser.parse_args(arguments)
    try:
        tables = convert(*options.sources)
        write(tables, options.to)
    except InputError as error:
        parser.error(str(error))
    for stem, table in tables.items():
        print(f"{options.to / stem}.parquet: {table.num_rows} rows")


if __name__ == "__main__":
    main()
