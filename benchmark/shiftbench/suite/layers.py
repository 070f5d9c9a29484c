"""Layers of a suite: a file over the one that it extends, and ``--set`` over both.

Methods and tasks are named entries. A mapping changes some of them and adds others, a null removes
one, a list picks some, and ``replace: true`` in a mapping leaves all that is inherited behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from shiftbench.core import document
from shiftbench.core.document import Node
from shiftbench.core.errors import InputError
from shiftbench.suite.file import NAMED, REPLACE
from shiftbench.suite.resolving import resolve_method
from shiftbench.suite.shorthands import with_sources

METHODS, TASKS = "methods", "tasks"


def laid_over(base: Node, over: Node) -> Node:
    """One layer over what it inherits.

    What inherited tasks say of methods that the layer does not choose goes with these methods. A
    method that a list picks brings the inherited ones that it builds on.
    """
    over = _with_parents(base, over)
    chosen = document.merge(_without_replaced(base, over), plain(over), NAMED)
    gone = _labels(base) - (set() if _replaces(over.child(METHODS)) else _labels(chosen))
    if gone:
        base = _without_overrides(base, gone)
    return document.merge(_without_replaced(base, over), plain(over), NAMED)


def plain(layer: Node) -> Node:
    """A layer in full, without the marks that say how it is laid over another."""
    children = dict(with_sources(layer).children)
    for key in NAMED & children.keys():
        mark = children[key].child(REPLACE)
        if mark is not None and isinstance(mark.value, bool):
            children[key] = children[key].without(REPLACE)
    return replace(layer, value=children)


def _replaces(named: Node | None) -> bool:
    mark = None if named is None else named.child(REPLACE)
    return mark is not None and mark.value is True


def _without_replaced(base: Node, over: Node) -> Node:
    return base.without(*(key for key in NAMED if _replaces(over.child(key))))


def _labels(layer: Node) -> set[str]:
    """The labels of a layer's methods."""
    methods = layer.child(METHODS)
    return set() if methods is None else {*document.named_entries(methods).children}


def _without_overrides(base: Node, labels: set[str]) -> Node:
    """A layer whose tasks say nothing of some methods."""
    tasks = base.children.get(TASKS)
    if tasks is None or not isinstance(tasks.value, dict):
        return base
    entries = dict(tasks.children)
    for name, task in entries.items():
        methods = task.child(METHODS)
        if methods is not None and isinstance(methods.value, dict):
            kept = {**task.children, METHODS: methods.without(*labels)}
            entries[name] = replace(task, value=kept)
    return replace(base, value={**base.children, TASKS: replace(tasks, value=entries)})


def _with_parents(base: Node, over: Node) -> Node:
    """A layer whose list of methods holds the inherited ones too that those picked build on."""
    picked, methods = over.child(METHODS), base.child(METHODS)
    if methods is None or picked is None or not isinstance(picked.value, tuple):
        return over
    inherited = document.named_entries(methods).children
    items = list(picked.value)
    there = {item.value for item in items if isinstance(item.value, str)}
    for item in items:  # grows as parents are found
        if not isinstance(item.value, str) or item.value not in inherited:
            continue
        for parent in _parents(base, item.value, inherited[item.value]):
            if parent in inherited and parent not in there:
                there.add(parent)
                items.append(replace(item, value=parent))
    return replace(over, value={**over.children, METHODS: replace(picked, value=tuple(items))})


def _parents(base: Node, label: str, entry: Node) -> Iterator[str]:
    """Labels of what an inherited method builds on, in any task; nothing if it has a fault.

    Faults are said when the whole suite is resolved.
    """
    tasks = base.child(TASKS)
    of_tasks = (task.child(METHODS) for task in (tasks.children.values() if tasks else ()))
    overrides = (methods.children.get(label) for methods in of_tasks if methods)
    own = (document.merge(entry, o) for o in overrides if o and o.value is not None)
    for settings in (entry, *own):
        try:
            method = resolve_method(label, settings)
        except InputError:
            continue
        yield from (parent.label for parent in method.parents())
