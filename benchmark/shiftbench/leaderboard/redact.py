"""Rows that may be shown to anybody: without absolute paths and credentials."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa

JSON_COLUMNS = ("config", "budget", "details", "searched", "versions", "hardware")
_TEXT = ("suite", "backbone", "label", "method", "origin", "device", "incomplete_reason", "leakage")
_HARDWARE = ("cpu", "cores", "memory_bytes", "gpus")


def public(table: pa.Table) -> pa.Table:
    """Rows without what tells of the machine beyond its hardware: paths, credentials."""
    for name in (*_TEXT, *JSON_COLUMNS):
        position = table.schema.get_field_index(name)
        values = [None if text is None else _public(name, text) for text in table[name].to_pylist()]
        field = table.schema.field(position)
        table = table.set_column(position, field, pa.array(values, field.type))
    return table


def _public(name: str, text: str) -> str:
    if name not in JSON_COLUMNS:
        return clean(text)
    value = json.loads(text)
    if name == "hardware":
        value = {key: value[key] for key in _HARDWARE if key in value}
    return json.dumps(clean_value(value), sort_keys=True, allow_nan=False, ensure_ascii=False)


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
    text = _QUERY.sub(r"\1?…", _USER.sub("://…@", text))
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
