"""Shorthands of a task in a suite: sources that stand alone, and files in place of lists.

What a file holds takes the place of its path, so that a run's identity is of the content, and
workers on other machines need no file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from shiftbench.core import document
from shiftbench.core.document import Node, Place
from shiftbench.core.errors import InputError, one_line
from shiftbench.data.sources.custom import CustomSource
from shiftbench.data.sources.registry import SOURCES
from shiftbench.data.tasks.definition import EvaluationSet

SETS = ("id_test", "ood_val")
NAMED_SETS = ("shifts", "also")
ENDINGS = (".txt", ".json", ".yaml", ".yml")
OF_SETS = frozenset(EvaluationSet.model_fields)


def with_sources(layer: Node) -> Node:
    """A layer of a suite with ``source: {kind: …}`` where a set names a ``kind`` directly."""
    tasks = layer.child("tasks")
    if tasks is None or not tasks.children:
        return layer
    entries = {name: _with_sources(task) for name, task in tasks.children.items()}
    return replace(layer, value={**layer.children, "tasks": replace(tasks, value=entries)})


def _with_sources(task: Node) -> Node:
    children = dict(task.children)
    for key in SETS:
        if key in children:
            children[key] = _with_source(children[key])
    for key in NAMED_SETS:
        named = children.get(key)
        if named is not None and named.children:
            sets = {name: _with_source(item) for name, item in named.children.items()}
            children[key] = replace(named, value=sets)
    return replace(task, value=children) if task.children else task


def _with_source(item: Node) -> Node:
    """An evaluation set whose ``kind`` stands beside its own keys, with both told apart."""
    if "kind" not in item.children or "source" in item.children:
        return item
    own = {key: node for key, node in item.children.items() if key in OF_SETS}
    return replace(item, value={"source": item.without(*own), **own})


def with_files(task: Node) -> Node:
    """A task's settings with the content of the files that its class names and prompts name.

    A mapping of labels to class names renames the labels of the sets that have these classes.

    Raises:
        InputError: a file cannot be read, or does not hold names or texts.
    """
    task, rename = _read_classes(_read_templates(task))
    children = dict(task.children)
    for key in ("train", "id_val"):
        if key in children:
            children[key] = _renamed(children[key], rename)
    for key in SETS:
        if key in children:
            children[key] = _with_renamed_source(children[key], rename)
    for key in NAMED_SETS:
        named = children.get(key)
        if named is not None and named.children:
            sets = {name: _set_with_files(item, rename) for name, item in named.children.items()}
            children[key] = replace(named, value=sets)
    return replace(task, value=children)


def _set_with_files(item: Node, rename: Mapping[str, str | None]) -> Node:
    """A shift with the content of its files; the task's names are for those without their own."""
    classes = item.child("classes")
    own = classes is not None and classes.value is not None
    item, of_own = _read_classes(_read_templates(item))
    return _with_renamed_source(item, of_own if own else rename)


def _read_templates(settings: Node) -> Node:
    node = settings.child("templates")
    if node is None or not _is_file(node):
        return settings
    content = _content(node)
    if not isinstance(content, list | dict):
        raise node.error("the file must hold a list of texts, or texts for every class")
    return _with(settings, "templates", content)


def _read_classes(settings: Node) -> tuple[Node, Mapping[str, str | None]]:
    """Settings whose ``classes`` are a list, and the class that each label stands for, if said."""
    node = settings.child("classes")
    if node is None or not (_is_file(node) or isinstance(node.value, dict)):
        return settings, {}
    content = _content(node) if _is_file(node) else node.plain
    if not isinstance(content, list | dict):
        raise node.error("the file must hold a list of names, or a name for every label")
    if isinstance(content, list):
        return _with(settings, "classes", content), {}
    names = [*content.values()]
    if not all(isinstance(name, str | None) for name in names):
        raise node.error("must map every label to the name of its class")
    if all(label.isdecimal() for label in content):
        by_number = {int(label): name for label, name in content.items()}
        if sorted(by_number) != [*range(len(content))]:
            raise node.error(f"numbers of labels must go from 0 to {len(content) - 1}")
        return _with(settings, "classes", [by_number[k] for k in range(len(content))]), {}
    distinct = dict.fromkeys(name for name in names if name is not None)
    return _with(settings, "classes", [*distinct]), dict(content)


def _with(settings: Node, key: str, content: Any) -> Node:
    """Settings with plain data in place of a value, as if it stood there."""
    old = settings.children[key]
    new = document.tree(content, old.place, old.path)
    return replace(settings, value={**settings.children, key: new})


def _with_renamed_source(item: Node, rename: Mapping[str, str | None]) -> Node:
    source = item.child("source")
    if source is None:
        return item
    return replace(item, value={**item.children, "source": _renamed(source, rename)})


def _renamed(source: Node, rename: Mapping[str, str | None]) -> Node:
    """A source of the user's whose labels are called as a file says, unless it says so itself."""
    kind = source.child("kind")
    if not rename or kind is None or "rename" in source.children:
        return source
    try:
        custom = issubclass(SOURCES.load(str(kind.value)), CustomSource)
    except InputError:  # said when the source is checked
        return source
    if not custom:
        return source
    own = document.tree(dict(rename), source.place, (*source.path, "rename"))
    return replace(source, value={**source.children, "rename": own})


def _is_file(node: Node) -> bool:
    return isinstance(node.value, str) and node.value.lower().endswith(ENDINGS)


def _content(node: Node) -> Any:
    """The data in the file that a value names, relative to where it is written.

    Raises:
        InputError: it is not there, or cannot be read.
    """
    file = Path(document.relative(node.place, str(node.value)))
    try:
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix.lower() == ".txt":
            return [line.strip() for line in text.splitlines() if line.strip()]
        if file.suffix.lower() == ".json":
            return json.loads(text, object_pairs_hook=_distinct)
        return document.parse(text, Place(str(file), 1, file.parent)).plain
    except FileNotFoundError:
        raise node.error(f'there is no file "{file}"') from None
    except InputError as error:
        raise node.error(str(error)) from error
    except (OSError, ValueError, RecursionError) as error:
        reason = one_line(error)
        raise node.error(f'the file "{file}" cannot be read: {reason}') from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON.

    Raises:
        ValueError: a key stands there twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f'the key "{twice}" stands there twice')
    return found
