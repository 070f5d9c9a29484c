"""The tasks that a suite can name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shiftbench.core.plugins import Registry

if TYPE_CHECKING:
    from shiftbench.data.tasks import Task


def _accept(name: str, loaded: object) -> Task:
    del name
    from shiftbench.data.tasks import Task

    if not isinstance(loaded, Task):
        raise TypeError("it is not a shiftbench.Task")
    return loaded


def _builtin() -> dict[str, str]:
    names = ("imagenet", "cifar10", "iwildcam", "fmow")
    return {name: f"shiftbench.data.tasks:BUILTIN_TASKS.{name}" for name in names}


TASKS = Registry("tasks", _builtin, _accept)
