"""A suite as YAML with every default and inherited value written out."""

from __future__ import annotations

from typing import Any

from shiftbench.core.document import dumped
from shiftbench.data.tasks.definition import Task
from shiftbench.suite.file import MINIATURE, TrainingResources
from shiftbench.suite.resolving import registered_task
from shiftbench.suite.suite import Suite


def dump(suite: Suite) -> str:
    """The suite as the text of a YAML file that means the same and extends nothing."""
    return dumped(_spelled_out(suite))


def _spelled_out_task(task: Task, suite: Suite) -> dict[str, Any]:
    """A task's settings, and a null for each shift that the registered task has and it has not."""
    settings = task.model_dump(mode="json", exclude={"name"})
    entry = suite.source.nearest(("tasks", task.name))
    registered = registered_task(task.name, entry, miniature=suite.data == MINIATURE)
    removed = () if registered is None else registered.shifts.keys() - task.shifts.keys()
    settings["shifts"] |= dict.fromkeys(sorted(removed))
    return settings


def _own_resources(suite: Suite, task: str, label: str) -> dict[str, Any]:
    """The resources of a method that has some of its own."""
    if label not in suite.own_resources.get(task, {}):
        return {}
    own = suite.resources_of(task, label)
    return {"resources": own.model_dump(include={*TrainingResources.model_fields})}


def _spelled_out(suite: Suite) -> dict[str, Any]:
    settings = {
        task: {
            label: {
                "method": method.name,
                **method.config.model_dump(mode="json"),
                **_own_resources(suite, task, label),
            }
            for label, method in methods.items()
        }
        for task, methods in suite.methods.items()
    }
    common: dict[str, Any] = {}
    for methods in settings.values():
        for label, values in methods.items():
            common.setdefault(label, values)
    return {
        "name": suite.name,
        "description": suite.description,
        "data": suite.data,
        "tasks": {
            name: {
                **_spelled_out_task(task, suite),
                "methods": {
                    label: settings[name].get(label)
                    for label in common
                    if settings[name].get(label) != common[label]
                },
            }
            for name, task in suite.tasks.items()
        },
        "backbones": list(suite.backbones),
        "methods": common,
        "seeds": list(suite.seeds),
        "shots": ["full" if shots is None else shots for shots in suite.shots],
        "budget": suite.budget.model_dump(),
        "resources": suite.resources.model_dump(),
        "loggers": list(suite.loggers),
    }
