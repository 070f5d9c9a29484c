"""The kinds of sources that a task can name."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from functools import cache

from pydantic import BaseModel

from shiftbench.core.plugins import Registry, modules_of
from shiftbench.data.sources.base import Source


@cache
def _builtin() -> dict[str, str]:
    """Return where every built-in kind is: all classes with a kind in the files of ``builtin/``."""
    found = {}
    for name in modules_of("shiftbench.data.sources.builtin").values():
        for value in vars(importlib.import_module(name)).values():
            if inspect.isclass(value) and value.__module__ == name and _kind(value):
                found[_kind(value)] = f"{name}:{value.__name__}"
    return found


def _kind(value: type) -> str:
    """Return the name that a class registers, "" where it has none."""
    if not issubclass(value, Source) or inspect.isabstract(value):
        return ""
    default = value.model_fields["kind"].default
    return default if isinstance(default, str) else ""


def _accept(name: str, loaded: object) -> type[Source]:
    if not (inspect.isclass(loaded) and issubclass(loaded, Source)):
        raise TypeError("it is not a subclass of shiftbench.Source")
    if inspect.isabstract(loaded):
        raise TypeError('it has no method "read"')
    if _kind(loaded) != name:
        raise TypeError(f'its kind is "{_kind(loaded)}"; write kind: Literal["{name}"] = "{name}"')
    return loaded


SOURCES = Registry("sources", _builtin, _accept)
"""Built in are the classes of the files in ``data/sources/builtin``, one file a family."""


def plugin_origins(*specifications: object) -> dict[str, str]:
    """Return the kinds of sources from other packages that some specifications use.

    Args:
        specifications: tasks, evaluation sets or sources; sources within sources count.

    Returns:
        distribution and version by kind, such as ``{"scans": "mylab 1.2"}``; a part of the
        identity of runs, so that a changed reader makes new runs.
    """
    entries = SOURCES.entries()
    kinds = sorted({source.kind for item in specifications for source in _sources_in(item)})
    used = (entries[kind] for kind in kinds if kind in entries)
    return {entry.name: entry.origin for entry in used if not entry.builtin}


def _sources_in(value: object) -> Iterator[Source]:
    if isinstance(value, Source):
        yield value
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        for item in value:
            yield from _sources_in(item)
