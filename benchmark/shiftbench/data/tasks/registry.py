"""The tasks that a suite can name."""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType

from shiftbench.core.plugins import Registry, modules_of
from shiftbench.data.tasks.definition import Task

_BUILTIN = "shiftbench.data.tasks.builtin"
_COLLECTIONS = "shiftbench.data.tasks.collections"
NINE = "The nine natural distribution shifts"


def _accept(name: str, loaded: object) -> Task:
    del name
    if not isinstance(loaded, Task):
        raise TypeError("it is not a shiftbench.Task")
    return loaded


@cache
def _targets() -> dict[str, str]:
    """Where every built-in task is."""
    nine = {name: f"{path}:TASK" for name, path in modules_of(_BUILTIN).items()}
    paths = modules_of(_COLLECTIONS).values()
    return nine | {
        name: f"{path}:TASKS.{name}"
        for path in paths
        for name in importlib.import_module(path).TASKS
    }


TASKS = Registry("tasks", _targets, _accept)
"""Built in is the ``TASK`` of every file of ``data/tasks/builtin``, called as its file, and all
``TASKS`` of the files of ``data/tasks/collections``."""


def collections() -> dict[str, tuple[str, ...]]:
    """Return the names of the built-in tasks by the title of their collection."""
    modules = [importlib.import_module(path) for path in modules_of(_COLLECTIONS).values()]
    return {NINE: tuple(_modules()), **{module.TITLE: tuple(module.TASKS) for module in modules}}


def builtin_tasks() -> dict[str, Task]:
    """Return the tasks of the nine shifts by name."""
    return {name: module.TASK for name, module in _modules().items()}


def miniature_tasks() -> dict[str, Task]:
    """Return the same tasks for the miniature world, which has other classes and fewer images."""
    return {name: module.MINIATURE for name, module in _modules().items()}


def _modules() -> dict[str, ModuleType]:
    return {name: importlib.import_module(path) for name, path in modules_of(_BUILTIN).items()}
