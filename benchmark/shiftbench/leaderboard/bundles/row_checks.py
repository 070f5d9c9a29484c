"""Checks of rows, whatever their values."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, get_args

import pyarrow as pa

from shiftbench.evaluation.results import Selection, role_of
from shiftbench.leaderboard.bundles.layout import ID, MOST_ROWS
from shiftbench.leaderboard.columns import json_text
from shiftbench.leaderboard.schema import (
    COLUMNS,
    SCHEMA,
    Row,
    RunInfo,
    rows,
)

AMOUNTS = ("train_seconds", "search_seconds", "evaluation_seconds", "world_size")
"""Columns that costs are made of."""


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
    for name in (item.name for item in fields(RunInfo)):
        if any(value != columns[name][0] for value in columns[name]):
            return "the rows are of different runs"
        del columns[name][1:]
    for name in table.column_names:
        kind = table.schema.field(name).type
        if name not in SCHEMA.names and not (pa.types.is_primitive(kind) or kind == pa.string()):
            return f'its column "{name}" is of the type {kind}'
        if fault := next(filter(None, (_fault_of_value(name, v) for v in columns[name])), None):
            return fault
    found = rows(table)
    return _fault_of_run(found[0], len(found)) or _contradiction(found)


def _fault_of_value(name: str, value: object) -> str | None:
    """What is wrong with the value of a column."""
    if isinstance(value, float | int):
        odd = not math.isfinite(value) or (name in AMOUNTS and value < 0)
        return f"its {name} is {value}" if odd else None
    texts = _texts(value)
    if name in COLUMNS.json and isinstance(value, str):  # in which texts may have several lines
        texts = (" ".join(text.split()) for text in _texts(json.loads(value)))
    return "a text has control characters" if any(map(_hidden, texts)) else None


def _fault_of_run(run: Row, count: int) -> str | None:
    """What is wrong with the facts of a run that has so many rows."""
    if run.search_id is not None and not re.fullmatch(ID, run.search_id):
        return "its search has no id, but another text"
    if len({*run.labels}) < len(run.labels) or count * len(run.labels) > MOST_ROWS:
        return "it has too many other labels, or one of them twice"
    if type(run.budget.get("evaluation_images")) not in (int, type(None)):
        return "its budget of images is no number"
    return None


def _texts(value: object) -> Iterator[str]:
    """A text, and those in lists and mappings, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts([*value, *value.values()])
    elif isinstance(value, Sequence):
        for item in value:
            yield from _texts(item)


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
