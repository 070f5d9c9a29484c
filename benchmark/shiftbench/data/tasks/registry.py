"""The tasks that a suite can name."""

from __future__ import annotations

import importlib
from types import ModuleType

from shiftbench.core.plugins import Registry, modules_of
from shiftbench.data.tasks.definition import Task

_BUILTIN = "shiftbench.data.tasks.builtin"


def _accept(name: str, loaded: object) -> Task:
    del name
    if not isinstance(loaded, Task):
        raise TypeError("it is not a shiftbench.Task")
    return loaded


TASKS = Registry(
    "tasks",
    lambda: {name: f"{module}:TASK" for name, module in modules_of(_BUILTIN).items()},
    _accept,
)
"""Built in is the ``TASK`` of every file of ``data/tasks/builtin``, called as its file."""


def builtin_tasks() -> dict[str, Task]:
    """Return the tasks of the nine shifts by name."""
    return {name: module.TASK for name, module in _modules().items()}


def miniature_tasks() -> dict[str, Task]:
    """Return the same tasks for the miniature world, which has other classes and fewer images."""
    return {name: module.MINIATURE for name, module in _modules().items()}


def _modules() -> dict[str, ModuleType]:
    return {name: importlib.import_module(path) for name, path in modules_of(_BUILTIN).items()}
