"""Checks of rows, whatever their values."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from dataclasses import fields
from typing import Any, get_args

import pyarrow as pa

from shiftbench.evaluation.results import Selection, role_of
from shiftbench.leaderboard.columns import json_text
from shiftbench.leaderboard.schema import (
    COLUMNS,
    SCHEMA,
    Row,
    RunInfo,
    rows,
)


def fault_of_rows(table: pa.Table, run_id: str) -> str | None:
    """The first reason why rows are not those of one run that is done; ``None`` if they are.

    Args:
        table: with all columns of the leaderboard.
        run_id: of the run.
    """
    if not len(table):
        return "there are none"
    columns = {name: table[name].to_pylist() for name in table.column_names}
    if {*columns["run_id"]} != {run_id} or {*columns["status"]} != {"done"}:
        return f"a row is not of run {run_id}, done"
    if any(error is not None for name in ("error", "error_file") for error in columns[name]):
        return f"a row is not of run {run_id}, done"
    if any(value is None for name in COLUMNS.required(Row) for value in columns[name]):
        return "a row has no result"
    for name in COLUMNS.json:
        if not all(text is None or _is_object(text) for text in columns[name]):
            return "a column of JSON objects holds something else"
    for item in fields(RunInfo):
        if any(value != columns[item.name][0] for value in columns[item.name]):
            return "the rows are of different runs"
    for name in table.column_names:
        kind = table.schema.field(name).type
        if name not in SCHEMA.names and not (pa.types.is_primitive(kind) or kind == pa.string()):
            return f'its column "{name}" is of the type {kind}'
        if any(_hidden(value) for value in columns[name] if isinstance(value, str)):
            return "a text has control characters"
    return _contradiction(rows(table))


def _contradiction(found: list[Row]) -> str | None:
    """Rows that contradict themselves or each other."""
    for row in found:
        if row.selection not in (None, *get_args(Selection)):
            return f"there is no selection {row.selection!r}"
        if row.role != role_of(row.evaluation_set):
            return f"{row.evaluation_set} is no {row.role}"
        if row.complete != (row.incomplete_reason is None):
            return "a row is complete and incomplete"
    if max(Counter(row.key for row in found).values()) > 1:
        return "the same result is there twice"
    headlines: Counter[Any] = Counter()
    for row in found:
        headlines[row.variant, row.selection, row.evaluation_set] += row.primary
    if {*headlines.values()} != {1}:
        return "a set has not one headline metric"
    return None


def _hidden(text: str) -> bool:
    return any(unicodedata.category(character) in ("Cc", "Cs", "Cf") for character in text)


def _is_object(text: str) -> bool:
    try:
        found = json.loads(text)
        return isinstance(found, dict) and json_text(found) == text
    except (ValueError, RecursionError):
        return False
