"""The names in a suite's document: paths, tasks and methods, each checked where it is written."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from shiftbench.core import document
from shiftbench.core.document import Key, Node, Place
from shiftbench.core.errors import InputError, Problems
from shiftbench.core.validation import validate
from shiftbench.core.words import nearest
from shiftbench.data.sources.base import Source
from shiftbench.data.tasks.definition import EvaluationSet, Task
from shiftbench.data.tasks.registry import TASKS
from shiftbench.methods.base import EnsembleMethod, Method
from shiftbench.methods.config import MethodConfig, file_settings
from shiftbench.methods.registry import METHODS
from shiftbench.models.names import LOCAL
from shiftbench.suite.file import (
    LABEL,
    MINIATURE,
    OF_METHODS,
    Resources,
    TrainingResources,
)
from shiftbench.suite.shorthands import with_files
from shiftbench.suite.task_metrics import faults


def named(node: Node, key: str) -> Mapping[str, Node]:
    """The tasks or methods of a suite's document whose names and settings are well-formed."""
    entries = node.child(key)
    return {
        name: entry
        for name, entry in (entries.children if entries else {}).items()
        if re.match(LABEL, name) and isinstance(entry.value, dict | None)
    }


def resolve_data(node: Node) -> str:
    """``miniature``, a URI, or a folder as seen from the working directory."""
    text = str(node.value)
    if not text:
        raise node.error("must be 'miniature', a folder or a URI")
    return text if text == MINIATURE or "://" in text else document.relative(node.place, text)


def resolve_backbones(node: Node) -> tuple[str, ...]:
    """Names of backbones; folders and files as seen from the working directory."""
    return tuple(_backbone(item.place, str(item.value)) for item in node.value)


def _backbone(place: Place, name: str) -> str:
    path = name.removeprefix(LOCAL)
    is_path = path != name or path.startswith(("./", "../", "~", "/"))
    return document.relative(place, path) if is_path else name


def resolve_task(name: str, entry: Node, *, miniature: bool) -> Task:
    """A task of the suite: a registered one with the suite's changes, or one of its own.

    Args:
        name: its key in the suite.
        entry: its settings there.
        miniature: whether the registered tasks stand for miniature data.

    Raises:
        InputError: a line for each fault, with file, line, key and what is accepted.
    """
    patch = entry.without("methods", "from")
    if "name" in patch.children:
        raise patch.children["name"].error("a task is called as its key says; remove this line")
    origin = entry.child("from")
    if origin is None:
        registered = registered_task(name, entry, miniature=miniature)
    else:
        registered = _origin(origin, miniature=miniature)
    if registered is None and "train" not in patch.children:
        known = TASKS.entries()
        raise entry.error(
            f'"{name}" is not a registered task{nearest(name, known)}, '
            'and not a task of your own either, which needs "classes", "train" and "id_test"'
        )
    if registered is not None and not patch.children:
        task = registered.model_copy(update={"name": name})
    else:
        if registered is not None:
            settings = registered.model_dump(mode="json", exclude={"name"})
            base = document.tree(settings, entry.place, entry.path)
            patch = document.merge(base, patch)
        patch = with_files(patch)
        task = validate(Task, _without_removed_shifts(_named(name, patch)))
    problems = Problems()
    for path, fault in faults(task):
        problems.note(patch.error(fault, path))
    problems.check()
    return task


def _origin(node: Node, *, miniature: bool) -> Task:
    """The registered task that another one starts from."""
    known = TASKS.entries()
    registered = None
    if isinstance(node.value, str):
        registered = registered_task(node.value, node, miniature=miniature)
    if registered is None:
        raise node.error(
            f'"{node.plain}" is not a registered task{nearest(str(node.plain), known)}'
        )
    return registered


def registered_task(name: str, entry: Node, *, miniature: bool) -> Task | None:
    """The task registered as ``name``; ``None`` when there is none.

    Raises:
        InputError: its plugin cannot be loaded; the message points at ``entry``.
    """
    if miniature:
        from shiftbench.data.tasks.registry import miniature_tasks

        tasks = miniature_tasks()
        if name in tasks:
            return tasks[name]
    if name not in TASKS.entries():
        return None
    try:
        return TASKS.load(name)
    except InputError as error:
        raise entry.error(str(error)) from error


def with_beside(node: Node, tasks: Mapping[str, Task], *, miniature: bool) -> dict[str, Task]:
    """Tasks with the test sets of those that ``also`` and ``ood_detection`` name, but their own.

    Args:
        node: the suite's document.
        tasks: that could be resolved.
        miniature: whether the registered tasks stand for miniature data.

    Raises:
        InputError: a line for each name that is no task's.
    """
    found, problems = dict(tasks), Problems()
    for key, field in (("also", "also"), ("ood_detection", "outliers")):
        asked = node.child(key)
        for item in asked.value if asked is not None and isinstance(asked.value, tuple) else ():
            with problems:
                other = _task_called(item, node, tasks, miniature=miniature)
                of_others = {own: task for own, task in found.items() if own != item.value}
                for own, task in of_others.items():
                    sets = {str(item.value): _beside(field, other), **getattr(task, field)}
                    found[own] = task.model_copy(update={field: sets})
    problems.check()
    return found


def _task_called(item: Node, node: Node, tasks: Mapping[str, Task], *, miniature: bool) -> Task:
    name = str(item.value)
    found = tasks.get(name) or registered_task(name, item, miniature=miniature)
    if found is None:
        known = {*named(node, "tasks"), *TASKS.entries()}
        raise item.error(f'"{name}" is no task{nearest(name, known)}')
    return found


def _beside(field: str, other: Task) -> EvaluationSet | Source:
    """Another task's test set, among its own classes, or its images alone."""
    if field == "outliers":
        return other.id_test.source
    own = {"classes": other.classes, "templates": other.templates}
    return other.id_test.model_copy(update=own)


def _named(name: str, node: Node) -> Node:
    return Node({"name": Node(name, node.place), **node.children}, node.place, node.path)


def _without_removed_shifts(node: Node) -> Node:
    shifts = node.children.get("shifts")
    if shifts is None:
        return node
    removed = [name for name, shift in shifts.children.items() if shift.value is None]
    return Node({**node.children, "shifts": shifts.without(*removed)}, node.place, node.path)


def resolve_resources(node: Node, task: str, suite: Resources) -> dict[str, Resources]:
    """The resources of the methods of one task that have some of their own, by label.

    Args:
        node: the suite's document.
        task: a name of it.
        suite: what holds where a method says nothing.

    Raises:
        InputError: a line for each fault, with file, line, key and what is accepted.
    """
    problems = Problems()
    found = {}
    for label, entry in named(node, "methods").items():
        path: tuple[Key, ...] = ("tasks", task, "methods", label)
        override = node.nearest(path)
        layers = [entry, override] if override.path == path else [entry]
        said: dict[str, Any] = {}
        for layer in layers:
            own = layer.child("resources")
            with problems:
                if own is not None:
                    said |= validate(TrainingResources, own).model_dump(exclude_unset=True)
        if said:
            with problems:
                found[label] = _merged(entry, suite, said)
    problems.check()
    return found


def _merged(entry: Node, suite: Resources, own: Mapping[str, Any]) -> Resources:
    """The suite's resources with those of a method in place of them."""
    if own.get("gpus_per_worker") and not suite.gpus_per_worker:
        raise entry.error(
            "its evaluations would have no GPU: set the suite's resources.gpus_per_worker too, to "
            "a fraction where several share one",
            ("resources", "gpus_per_worker"),
        )
    if "min_workers" not in own and (suite.min_workers or 0) > own.get("workers", suite.workers):
        own = {**own, "min_workers": None}
    try:
        return Resources.model_validate({**suite.model_dump(), **own})
    except ValidationError as error:
        raise entry.error(error.errors()[0]["msg"], ("resources",)) from None


def resolve_methods(node: Node, task: str) -> dict[str, Method[MethodConfig]]:
    """The methods of one task by label, with the task's own settings applied.

    Raises:
        InputError: a line for each fault, with file, line, key and what is accepted.
    """
    own = node.nearest(("tasks", task)).child("methods")
    overrides = {} if own is None else own.children
    if own is not None and not isinstance(own.value, dict | None):
        raise own.error("must map the labels of methods to the settings that differ here")
    entries = named(node, "methods")
    problems = Problems()
    for label, override in overrides.items():
        if label not in entries:
            message = f'this suite has no method "{label}"{nearest(label, entries)}'
            problems.note(override.error(message))
    left = {
        label: document.merge(entry, overrides[label]) if label in overrides else entry
        for label, entry in entries.items()
        if label not in overrides or overrides[label].value is not None
    }
    methods = {}
    for label, entry in left.items():
        with problems:
            methods[label] = resolve_method(label, entry)
    if entries and not left:
        problems.note(node.error("no method is left for this task", ("tasks", task)))
    malformed = _labels(node) - entries.keys()
    for fault in _faults_of_parents(node, task, methods, left.keys() | malformed):
        problems.note(fault)
    problems.check()
    return methods


def _labels(node: Node) -> set[str]:
    """The labels of all methods of a suite's document, well-formed or not."""
    methods = node.child("methods")
    return set() if methods is None else {*methods.children}


def resolve_method(label: str, entry: Node) -> Method[MethodConfig]:
    """A method with its settings.

    Args:
        label: what the suite calls it.
        entry: its settings in one task.

    Raises:
        InputError: a line for each fault, with file, line, key and what is accepted.
    """
    chosen = entry.child("method")
    if chosen is not None and not isinstance(chosen.value, str):
        raise chosen.error("must be the name of a registered method")
    name = label if chosen is None else str(chosen.value)
    try:
        kind = METHODS.load(name)
    except InputError as error:
        hint = "" if chosen is not None else '; "method:" says which one a label of your own means'
        raise (chosen or entry).error(f"{error}{hint}") from error
    config = validate(kind.Config, _with_paths(entry.without(*OF_METHODS), kind.Config))
    try:
        return kind(config)
    except InputError as error:
        raise entry.error(str(error)) from error


def _with_paths(entry: Node, config: type[MethodConfig]) -> Node:
    """Settings whose files are seen from the working directory, and not from the suite's file."""
    settings = dict(entry.children)
    for name in file_settings(config) & settings.keys():
        node = settings[name]
        if isinstance(node.value, str) and node.value:
            settings[name] = Node(document.relative(node.place, node.value), node.place, node.path)
    return Node(settings, entry.place, entry.path) if settings else entry


def method_files(
    node: Node, task: str, methods: Mapping[str, Method[MethodConfig]]
) -> Iterator[Node]:
    """The settings of a task's methods that name a file or folder, as they are written.

    Args:
        node: the suite's document.
        task: of the methods.
        methods: by label, as ``resolve_methods`` gives them.
    """
    for label, method in methods.items():
        entry = node.children["methods"].children[label]
        override: tuple[Key, ...] = ("tasks", task, "methods", label)
        own = node.nearest(override)
        if own.path == override:
            entry = document.merge(entry, own)
        files = file_settings(type(method.config))
        for name, setting in entry.children.items():
            yield from (leaf for leaf in _texts(setting) if name in files or _is_yaml(leaf))


def _texts(node: Node) -> Iterator[Node]:
    if isinstance(node.value, str):
        yield node
    for child in node.children.values():
        yield from _texts(child)


def _is_yaml(node: Node) -> bool:
    """True for a path whose file's content takes its place, as AutoFT's objective."""
    return str(node.value).endswith((".yaml", ".yml"))


def _faults_of_parents(
    node: Node,
    task: str,
    methods: Mapping[str, Method[MethodConfig]],
    labels: Collection[str],
) -> Iterator[InputError]:
    """Parents that are not in the suite or have no weights, and a circle of parents.

    Args:
        node: the suite's document.
        task: of the methods.
        methods: by label, those that could be resolved.
        labels: of all methods of the task. One that has a fault itself may be what is meant.
    """
    everywhere = _labels(node)
    faulty = everywhere - methods.keys()
    for label, method in methods.items():
        for parent, _ in method.parents():
            if parent in everywhere and parent not in labels:
                message = f'there is no method "{parent}" for task {task}'
                yield _fault_of_parent(node, task, label, method, message)
            elif parent not in everywhere and not difflib.get_close_matches(parent, faulty):
                message = f'there is no method "{parent}"{nearest(parent, labels)}'
                yield _fault_of_parent(node, task, label, method, message)
            elif isinstance(methods.get(parent), EnsembleMethod):
                message = f'"{parent}" is an ensemble of outputs and has no weights'
                yield _fault_of_parent(node, task, label, method, message)
    circle = next(filter(None, (_circle(methods, (label,)) for label in methods)), None)
    if circle is not None:
        label = circle[-2]
        message = f"methods that need each other: {' → '.join(circle)}"
        yield _fault_of_parent(node, task, label, methods[label], message)


def _circle(
    methods: Mapping[str, Method[MethodConfig]], path: tuple[str, ...]
) -> tuple[str, ...] | None:
    """The first way on from a path of labels, each a parent of the one before, to one of them."""
    for parent, _ in methods[path[-1]].parents():
        if parent in path:
            return (*path, parent)
        if parent in methods and (found := _circle(methods, (*path, parent))) is not None:
            return found
    return None


def _fault_of_parent(
    node: Node, task: str, label: str, method: Method[MethodConfig], message: str
) -> InputError:
    """An error about the setting that names a method's parents, where it is written."""
    key = "parents" if "parents" in type(method.config).model_fields else "parent"
    override: tuple[Key, ...] = ("tasks", task, "methods", label, key)
    overridden = node.nearest(override).path == override
    return node.error(message, override if overridden else ("methods", label, key))
