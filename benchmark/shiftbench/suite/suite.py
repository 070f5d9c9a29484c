"""A suite: the YAML file that asks for a grid of runs, checked, merged and resolved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shiftbench.core.document import Key, Node
from shiftbench.core.errors import InputError, Problems
from shiftbench.core.validation import validate
from shiftbench.data.tasks.definition import Task
from shiftbench.methods.base import Method
from shiftbench.methods.config import MethodConfig
from shiftbench.suite.file import MINIATURE, Budget, Resources, SuiteFile
from shiftbench.suite.reading import read
from shiftbench.suite.resolving import (
    named,
    resolve_backbones,
    resolve_data,
    resolve_methods,
    resolve_resources,
    resolve_task,
    with_beside,
)


def _root(node: Node) -> str | None:
    """Where the data are, as far as a suite says; nothing for what is no text."""
    data = node.child("data")
    return resolve_data(data) if data is not None and isinstance(data.value, str) else None


@dataclass(frozen=True)
class Suite:
    """A suite with every name resolved and every setting checked.

    Attributes:
        name: the file's stem unless it says otherwise.
        description: one line for people.
        data: ``miniature``, a folder or a URI; ``None`` when neither the file nor ``--data`` says.
        tasks: by name, in the order of the file.
        backbones: their names; folders as seen from the working directory.
        methods: for each task, the methods by label, with the task's own overrides applied.
        seeds: of the repetitions.
        shots: training images per class; ``None`` is all of them.
        budget: limits that are part of a run's identity.
        resources: hardware for a run, no part of its identity.
        own_resources: by task and label, those of methods that have some of their own.
        loggers: names of what shows trainings as they go on, no part of their identity.
        source: the merged document, for error messages.
    """

    name: str
    description: str
    data: str | None
    tasks: Mapping[str, Task]
    backbones: tuple[str, ...]
    methods: Mapping[str, Mapping[str, Method[MethodConfig]]]
    seeds: tuple[int, ...]
    shots: tuple[int | None, ...]
    budget: Budget
    resources: Resources
    loggers: tuple[str, ...]
    source: Node = field(repr=False)
    own_resources: Mapping[str, Mapping[str, Resources]] = field(default_factory=dict)

    @classmethod
    def load(
        cls, file: str | Path, overrides: Sequence[str] = (), data: str | None = None
    ) -> Suite:
        """Read a suite file, what it extends, and what the command line says.

        Args:
            file: the YAML file, or the name of a suite in ``suites/`` or of a shipped one.
            overrides: ``--set`` texts such as ``methods.full.lr=1e-5``, later ones win.
            data: ``--data``, wins over the file; a folder relative to the working directory.

        Raises:
            InputError: a line for each fault, with file, line, key and what is accepted.
        """
        node = read(file, overrides, data)
        problems = Problems()
        root = None
        resources = Resources()
        with problems:
            spec = validate(SuiteFile, node)
            resources = spec.resources
        with problems:
            root = _root(node)
        tasks, methods, own_resources = {}, {}, {}
        for name, entry in named(node, "tasks").items():
            with problems:
                tasks[name] = resolve_task(name, entry, miniature=root == MINIATURE)
            with problems:
                methods[name] = resolve_methods(node, name)
            with problems:
                own_resources[name] = resolve_resources(node, name, resources)
        with problems:
            tasks = with_beside(node, tasks, miniature=root == MINIATURE)
        problems.check()
        return cls(
            name=spec.name,
            description=spec.description,
            data=root,
            tasks=tasks,
            backbones=resolve_backbones(node.children["backbones"]),
            methods=methods,
            seeds=spec.seeds,
            shots=tuple(None if shots == "full" else shots for shots in spec.shots),
            budget=spec.budget,
            resources=spec.resources,
            loggers=spec.loggers,
            source=node,
            own_resources={task: own for task, own in own_resources.items() if own},
        )

    def resources_of(self, task: str, label: str) -> Resources:
        """The hardware for the trainings of a method."""
        return self.own_resources.get(task, {}).get(label, self.resources)

    @property
    def data_kind(self) -> str:
        """``miniature/<version>`` or ``real``: which data the registered tasks stand for."""
        if self.data != MINIATURE:
            return "real"
        from shiftbench.data.miniature.definition import VERSION

        return f"{MINIATURE}/{VERSION}"

    def require_data(self) -> str:
        """The folder or URI that holds the data sets.

        Raises:
            InputError: neither the suite nor ``--data`` says.
        """
        if self.data is None:
            raise self.error('no "data": add --data FOLDER, or --data miniature for a small copy')
        return self.data

    def error(self, message: str, *path: Key) -> InputError:
        """An error about the key at ``path``, with its file and line."""
        return self.source.error(message, path)
