"""A suite: the YAML file that asks for a grid of runs, checked, merged and resolved."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from shiftbench.core import document
from shiftbench.core.document import Key, Node, Place, dumped
from shiftbench.core.errors import InputError
from shiftbench.core.words import nearest
from shiftbench.data.registry import TASKS
from shiftbench.data.tasks import Task
from shiftbench.methods.base import Method, MethodConfig
from shiftbench.methods.registry import METHODS

MINIATURE = "miniature"
NAMED = frozenset({"tasks", "methods"})
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]


def _all_differ(values: tuple[Any, ...]) -> tuple[Any, ...]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"holds {json.dumps(value)} twice")
    return values


class _Closed(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True
    )


class Budget(_Closed):
    """Upper limits; part of a run's identity, since they change what comes out."""

    steps: Annotated[
        int | None, Field(ge=1, description="most optimizer steps of a run; null: no limit")
    ] = None
    evaluation_images: Annotated[
        int | None, Field(ge=1, description="most images of an evaluation set; null: all")
    ] = None


class Resources(_Closed):
    """What a run may use; never changes its outcome beyond floating-point order."""

    workers: Annotated[int, Field(ge=1, description="training workers of a run")] = 1
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1
    micro_batch: Annotated[
        int | None, Field(ge=1, description="images a worker holds at a time; null: its share")
    ] = None
    data_workers: Annotated[int, Field(ge=0, description="loading processes of a worker")] = 0
    max_trials: Annotated[
        int | None, Field(ge=1, description="trials of a search at once; null: what fits")
    ] = None


class SuiteFile(_Closed):
    """What a suite file may say, after ``extends`` and ``--set`` are applied.

    Tasks and methods are typed one by one when they are resolved, because what they may hold
    depends on their names.
    """

    extends: Annotated[
        str | None, Field(description="suite to start from, relative to this file")
    ] = None
    name: Annotated[str, Field(min_length=1, description="default: the file's name")]
    description: str = ""
    data: Annotated[
        str | None,
        Field(
            description="'miniature', or a folder (relative to this file) or URI that holds the "
            "data sets; --data overrides it"
        ),
    ] = None
    tasks: Annotated[dict[Label, dict[str, Any] | None], Field(min_length=1)]
    backbones: Annotated[
        tuple[str, ...],
        AfterValidator(_all_differ),
        Field(
            min_length=1,
            description="'miniature', pretrained/model of open_clip such as openai/ViT-B-16, the "
            "name of a plugin's, or a folder starting with ./, ../, ~ or / (relative to this file)",
        ),
    ]
    methods: Annotated[dict[Label, dict[str, Any] | None], Field(min_length=1)]
    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...],
        AfterValidator(_all_differ),
        Field(min_length=1, description="each is a full repetition of the grid"),
    ] = (0,)
    shots: Annotated[
        tuple[Literal["full"] | Annotated[int, Field(ge=1)], ...],
        AfterValidator(_all_differ),
        Field(min_length=1, description="training images per class, or 'full' for all"),
    ] = ("full",)
    budget: Budget = Budget()
    resources: Resources = Resources()


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
        resources: what a run may use, not part of it.
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
    source: Node = field(repr=False)

    @classmethod
    def load(
        cls, file: str | Path, overrides: Sequence[str] = (), data: str | None = None
    ) -> Suite:
        """Read a suite file, what it extends, and what the command line says.

        Args:
            file: the YAML file.
            overrides: ``--set`` texts such as ``methods.full.lr=1e-5``, later ones win.
            data: ``--data``, wins over the file; a folder relative to the working directory.

        Raises:
            InputError: one line with file, line, key and what is accepted.
        """
        node = _read_chain(Path(file), str(file), ())
        node = document.merge(_name_after(file), node)
        for text in overrides:
            node = _assign(node, text)
        if data is not None:
            option = Place(f"--data {data}", None, Path())
            node = document.merge(node, document.tree({"data": data}, option))
        return resolve(node)

    @property
    def world(self) -> str:
        """``miniature/<version>`` or ``real``: which data the registered tasks stand for."""
        if self.data != MINIATURE:
            return "real"
        from shiftbench.data.miniature import VERSION

        return f"{MINIATURE}/{VERSION}"

    def require_data(self) -> str:
        """Where the data sets are.

        Raises:
            InputError: neither the suite nor ``--data`` says.
        """
        if self.data is None:
            raise self.error('no "data": add --data FOLDER, or --data miniature for a small copy')
        return self.data

    def error(self, message: str, *path: Key) -> InputError:
        """An error about the key at ``path``, with its file and line."""
        return self.source.error(message, path)

    def dump(self) -> str:
        """The suite as YAML with every default and inherited value written out."""
        return dumped(_spelled_out(self))


def resolve(node: Node) -> Suite:
    """Check a merged document and resolve its tasks, methods and paths.

    Raises:
        InputError: one line with file, line, key and what is accepted.
    """
    for key in NAMED & node.children.keys():
        entries = document.named_entries(node.children[key])
        node = Node({**node.children, key: entries}, node.place)
    spec = document.validate(SuiteFile, node)
    data = None if spec.data is None else _data(node.children["data"])
    tasks = {
        name: _resolve_task(name, entry, miniature=data == MINIATURE)
        for name, entry in node.children["tasks"].children.items()
    }
    return Suite(
        name=spec.name,
        description=spec.description,
        data=data,
        tasks=tasks,
        backbones=_resolve_backbones(node.children["backbones"]),
        methods={name: _resolve_methods(node, name) for name in tasks},
        seeds=spec.seeds,
        shots=tuple(None if shots == "full" else shots for shots in spec.shots),
        budget=spec.budget,
        resources=spec.resources,
        source=node,
    )


def _read_chain(file: Path, shown: str, seen: tuple[Path, ...]) -> Node:
    node = document.read(file, shown)
    extends = node.child("extends")
    if extends is None:
        return node
    if not isinstance(extends.value, str):
        raise extends.error("must be the path of another suite file")
    base = file.parent / extends.value
    seen = (*seen, file.resolve())
    if base.resolve() in seen:
        raise extends.error(f'"{extends.value}" extends this suite in turn')
    if not base.is_file():
        raise extends.error(f'there is no file "{extends.value}" beside this suite')
    above = os.path.normpath(Path(shown).parent / extends.value)
    inherited = _read_chain(base, above, seen).without("name", "description")
    return document.merge(inherited, node.without("extends"), NAMED)


def _name_after(file: str | Path) -> Node:
    return document.tree({"name": Path(file).stem}, Place(str(file), 1, Path(file).parent))


def _assign(node: Node, text: str) -> Node:
    assignment = document.assignment(text)
    (key,) = assignment.children
    if key == "extends":
        raise assignment.error("only a suite file can extend another")
    for name, entry in assignment.children[key].children.items():
        inherited = document.named_entries(node.children[key]) if key in node.children else node
        if key in NAMED and entry.value is None and inherited.child(name) is None:
            raise entry.error(f'there is no "{name}" to remove{nearest(name, inherited.children)}')
    return document.merge(node, assignment, NAMED)


def _data(node: Node) -> str:
    text = str(node.value)
    if not text:
        raise node.error("must be 'miniature', a folder or a URI")
    return text if text == MINIATURE or "://" in text else document.relative(node.place, text)


def _resolve_backbones(node: Node) -> tuple[str, ...]:
    return tuple(
        document.relative(item.place, item.value)
        if item.value.startswith(("./", "../", "~", "/"))
        else str(item.value)
        for item in node.value
    )


def _resolve_task(name: str, entry: Node, *, miniature: bool) -> Task:
    patch = entry.without("methods", "from")
    if "name" in patch.children:
        raise patch.children["name"].error("a task is called as its key says; remove this line")
    origin = entry.child("from")
    if origin is None:
        registered = _registered_task(name, entry, miniature=miniature)
    else:
        registered = _origin(origin, miniature=miniature)
    if registered is None and "train" not in patch.children:
        known = TASKS.entries()
        raise entry.error(
            f'"{name}" is not a registered task{nearest(name, known)}, '
            'and not a task of your own either, which needs "classes", "train" and "id_test"'
        )
    if registered is not None:
        if not patch.children:
            return registered.model_copy(update={"name": name})
        settings = registered.model_dump(mode="json", exclude={"name"})
        base = document.tree(settings, entry.place, entry.path)
        patch = document.merge(base, patch)
    return document.validate(Task, _without_removed_shifts(_named(name, patch)))


def _origin(node: Node, *, miniature: bool) -> Task:
    """The registered task that another one starts from."""
    known = TASKS.entries()
    registered = None
    if isinstance(node.value, str):
        registered = _registered_task(node.value, node, miniature=miniature)
    if registered is None:
        raise node.error(
            f'"{node.plain}" is not a registered task{nearest(str(node.plain), known)}'
        )
    return registered


def _registered_task(name: str, entry: Node, *, miniature: bool) -> Task | None:
    if miniature:
        from shiftbench.data.tasks import miniature_tasks

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


def _resolve_methods(node: Node, task: str) -> dict[str, Method[MethodConfig]]:
    """The methods of one task, by label."""
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
    return kind(document.validate(kind.Config, entry.without("method")))


def _check_parents(node: Node, task: str, methods: Mapping[str, Method[MethodConfig]]) -> None:
    """Refuse parents that are not in the suite, and methods that wait for each other."""

    def place(label: str) -> tuple[Key, ...]:
        override: tuple[Key, ...] = ("tasks", task, "methods", label, "parent")
        found = node.nearest(override).path == override
        return override if found else ("methods", label, "parent")

    def visit(label: str, below: tuple[str, ...]) -> None:
        for parent in methods[label].parents():
            if parent not in methods:
                raise node.error(
                    f'there is no method "{parent}" for task {task}{nearest(parent, methods)}',
                    place(label),
                )
            if parent in (*below, label):
                circle = " → ".join((*below, label, parent))
                raise node.error(f"methods that need each other: {circle}", place(label))
            visit(parent, (*below, label))

    for label in methods:
        visit(label, ())


def _spelled_out_task(task: Task, suite: Suite) -> dict[str, Any]:
    """A task's settings, and a null for each shift that the registered task has and it has not."""
    settings = task.model_dump(mode="json", exclude={"name"})
    entry = suite.source.nearest(("tasks", task.name))
    registered = _registered_task(task.name, entry, miniature=suite.data == MINIATURE)
    removed = () if registered is None else registered.shifts.keys() - task.shifts.keys()
    settings["shifts"] |= dict.fromkeys(sorted(removed))
    return settings


def _spelled_out(suite: Suite) -> dict[str, Any]:
    settings = {
        task: {
            label: {"method": method.name, **method.config.model_dump(mode="json")}
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
    }
