"""The names in a suite's document: paths, tasks and methods, each checked where it is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NoReturn

from shiftbench.core import document
from shiftbench.core.document import Key, Node, Place
from shiftbench.core.errors import InputError
from shiftbench.core.validation import validate
from shiftbench.core.words import nearest
from shiftbench.data.tasks.definition import Task
from shiftbench.data.tasks.registry import TASKS
from shiftbench.methods.base import EnsembleMethod, Method
from shiftbench.methods.config import MethodConfig, file_settings
from shiftbench.methods.registry import METHODS
from shiftbench.models.names import LOCAL
from shiftbench.suite.file import MINIATURE
from shiftbench.suite.task_metrics import faults


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
        InputError: one line with file, line, key and what is accepted.
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
        task = validate(Task, _without_removed_shifts(_named(name, patch)))
    for path, fault in faults(task):
        raise patch.error(fault, path)
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


def _named(name: str, node: Node) -> Node:
    return Node({"name": Node(name, node.place), **node.children}, node.place, node.path)


def _without_removed_shifts(node: Node) -> Node:
    shifts = node.children.get("shifts")
    if shifts is None:
        return node
    removed = [name for name, shift in shifts.children.items() if shift.value is None]
    return Node({**node.children, "shifts": shifts.without(*removed)}, node.place, node.path)


def resolve_methods(node: Node, task: str) -> dict[str, Method[MethodConfig]]:
    """The methods of one task by label, with the task's own settings applied.

    Raises:
        InputError: one line with file, line, key and what is accepted.
    """
    own = node.nearest(("tasks", task)).child("methods")
    overrides = {} if own is None else own.children
    if own is not None and not isinstance(own.value, dict | None):
        raise own.error("must map the labels of methods to the settings that differ here")
    entries = node.children["methods"].children
    for label, override in overrides.items():
        if label not in entries:
            raise override.error(f'this suite has no method "{label}"{nearest(label, entries)}')
    methods = {}
    for label, entry in entries.items():
        if label not in overrides:
            methods[label] = _resolve_method(label, entry)
        elif overrides[label].value is not None:
            methods[label] = _resolve_method(label, document.merge(entry, overrides[label]))
    if not methods:
        raise node.error("no method is left for this task", ("tasks", task))
    _check_parents(node, task, methods)
    return methods


def _resolve_method(label: str, entry: Node) -> Method[MethodConfig]:
    named = entry.child("method")
    if named is not None and not isinstance(named.value, str):
        raise named.error("must be the name of a registered method")
    name = label if named is None else str(named.value)
    try:
        kind = METHODS.load(name)
    except InputError as error:
        hint = "" if named is not None else '; "method:" says which one a label of your own means'
        raise (named or entry).error(f"{error}{hint}") from error
    config = validate(kind.Config, _with_paths(entry.without("method"), kind.Config))
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


def _check_parents(node: Node, task: str, methods: Mapping[str, Method[MethodConfig]]) -> None:
    """Refuse parents that are not in the suite or have no weights, and circles of parents."""

    def fail(label: str, message: str) -> NoReturn:
        key = "parents" if "parents" in type(methods[label].config).model_fields else "parent"
        override: tuple[Key, ...] = ("tasks", task, "methods", label, key)
        overridden = node.nearest(override).path == override
        raise node.error(message, override if overridden else ("methods", label, key))

    def visit(label: str, below: tuple[str, ...]) -> None:
        for parent, _ in methods[label].parents():
            if parent not in methods:
                near = nearest(parent, methods)
                fail(label, f'there is no method "{parent}" for task {task}{near}')
            if isinstance(methods[parent], EnsembleMethod):
                fail(label, f'"{parent}" is an ensemble of outputs and has no weights')
            if parent in (*below, label):
                circle = " → ".join((*below, label, parent))
                fail(label, f"methods that need each other: {circle}")
            visit(parent, (*below, label))

    for label in methods:
        visit(label, ())
