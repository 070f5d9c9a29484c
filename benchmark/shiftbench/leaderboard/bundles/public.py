"""Rows that may be shown to anybody: without absolute paths and credentials."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from shiftbench.core.locations import without_credentials
from shiftbench.leaderboard.columns import Column, json_text
from shiftbench.leaderboard.schema import COLUMNS


def public(table: pa.Table) -> pa.Table:
    """Rows without what tells of the machine beyond its hardware: paths, credentials.

    Columns that are not known here are cleaned as text. What was not checked here is left out:
    whoever takes the rows in finds out anew.
    """
    position = table.schema.get_field_index("unchecked")
    item = table.schema.field(position)
    table = table.set_column(position, item, pa.nulls(len(table), item.type))
    for position, item in enumerate(table.schema):
        column = COLUMNS.documentation.get(item.name, Column("not known", cleaned=True))
        json_object = item.name in COLUMNS.json
        if item.type == pa.string() and (json_object or column.cleaned):
            change = partial(_public_object, keys=column.public_keys) if json_object else clean
            values = [
                None if text is None else change(text) for text in table[position].to_pylist()
            ]
            table = table.set_column(position, item, pa.array(values, item.type))
    return table


def _public_object(text: str, keys: tuple[str, ...] | None) -> str:
    value = json.loads(text)
    if keys is not None:
        value = {key: value[key] for key in keys if key in value}
    return json_text(clean_value(value))


_ROOT = r"(?:file:/+|(?<![\w.…/\\~-])(?:~[\w.-]*/|[A-Za-z]:[\\/]|\\\\|/(?!/)))"
_PATH = re.compile(_ROOT + r"""(?:[^\s"'<>|;,:()\\/]+[\\/]+)*([^\s"'<>|;,:()\\/]+)""")
_WHOLE_PATH = re.compile(_ROOT + r".*?([^\\/]*)[\\/]*", re.DOTALL)
_USER = re.compile(r"://[^/\s@]+@")
_QUERY = re.compile(r"(\w://[^\s?]+)\?[^\s…]\S*")
_SECRET = re.compile(r"token|secret|password|credential|api_?key", re.IGNORECASE)


def clean(text: str) -> str:
    """A text with the last component of every absolute path, and no credentials in URIs."""
    home = Path.home()
    if len(home.parts) > 1:
        text = re.sub(rf"(?<![\w.…/]){re.escape(str(home))}(?=[\\/]|$)", "~", text)
    text = _QUERY.sub(r"\1?…", _USER.sub("://…@", without_credentials(text)))
    whole = _WHOLE_PATH.fullmatch(text)
    if whole is not None and ": " not in text:
        return f"…/{whole[1]}"
    return _PATH.sub(r"…/\1", text)


def clean_value(value: Any) -> Any:
    """A JSON value whose texts are clean, without those whose key says that they are secret."""
    if isinstance(value, dict):
        return {
            clean(key): "…" if isinstance(item, str) and _SECRET.search(key) else clean_value(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [clean_value(item) for item in value]
    return clean(value) if isinstance(value, str) else value
