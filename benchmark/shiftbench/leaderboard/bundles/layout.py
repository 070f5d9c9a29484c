"""The members of a bundle and how large they may be."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pyarrow as pa

from shiftbench.leaderboard.schema import COLUMNS, VERSION, RunInfo

FORMAT = "shiftbench bundle"
FORMAT_VERSION = 2
MANIFEST, RUNS = "manifest.json", "runs.json"
ROWS, PREDICTIONS = "rows", "predictions"
ID = r"[0-9A-Za-z]{1,64}"  # of a run or a search, which is a part of paths
MEMBER = re.compile(rf"(?:{ROWS}|{PREDICTIONS})/({ID})\.parquet")

DIGEST = 12  # hex digits that name a content

MOST_MEMBERS = 20_000
MOST_BYTES = 2 * 2**30  # of one member
MOST_BYTES_IN_ALL = 32 * 2**30
MOST_TEXT = 64 * 2**20  # bytes of a JSON member
MOST_UNPACKED = 2 * 2**30  # bytes of a Parquet file in memory
MOST_RATIO = 100  # of unpacked to packed bytes, where more than FREE are unpacked
FREE = 64 * 2**20
MOST_ROWS = 100_000  # of one run


def unpacks_fairly(packed: int, unpacked: int) -> bool:
    """False for what unpacks to more than anybody needs, or to suspiciously much."""
    return unpacked <= MOST_UNPACKED and unpacked <= max(FREE, MOST_RATIO * packed)


def make_manifest(
    members: Mapping[str, Mapping[str, Any]], leaderboard: str = VERSION
) -> dict[str, Any]:
    """The manifest of members.

    Args:
        members: ``bytes`` and ``sha256`` of each, by name.
        leaderboard: version of the rows.
    """
    content = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "leaderboard": leaderboard,
        "members": dict(members),
    }
    return {**content, "digest": hashlib.sha256(canonical(content)).hexdigest()}


def canonical(value: Mapping[str, Any]) -> bytes:
    """The one JSON text of a member."""
    text = json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False, indent=1)
    return f"{text}\n".encode()


def summary(tables: Mapping[str, pa.Table]) -> bytes:
    """The member ``runs.json``: the columns of ``RunInfo`` of each run.

    Args:
        tables: rows of each run, by run id.
    """
    names = [item.name for item in fields(RunInfo)]
    return canonical({run_id: _described(table, names) for run_id, table in tables.items()})


def is_summary(content: bytes, tables: Mapping[str, pa.Table]) -> bool:
    """True if ``runs.json`` says what the rows say.

    It may have more of their columns than ours, and lack those that are null in all rows, as a
    bundle does that was made before there were such columns.

    Args:
        content: of the member.
        tables: rows of each run, by run id.
    """
    try:
        found = json.loads(content)
        if canonical(found) != content or found.keys() != tables.keys():
            return False
        names = {item.name for item in fields(RunInfo)}
        return all(
            of.keys() <= {*tables[run_id].column_names}
            and of == _described(tables[run_id], of)
            and not any(_described(tables[run_id], names - of.keys()).values())
            for run_id, of in found.items()
        )
    except (ValueError, TypeError, AttributeError, RecursionError):
        return False


def _described(table: pa.Table, names: Any) -> dict[str, Any]:
    """The first row's values in these columns, as JSON has them."""
    row = table.slice(0, 1).to_pylist()[0]
    return {name: _plain(name, row[name]) for name in names}


def _plain(name: str, value: Any) -> Any:
    if value is not None and name in COLUMNS.json:
        return json.loads(value)
    return value.isoformat() if hasattr(value, "isoformat") else value
