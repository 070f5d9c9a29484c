"""A method through every stage of a run, on the miniature world, in this process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from shiftbench.core.document import dumped
from shiftbench.core.errors import InputError
from shiftbench.core.plugins import VARIABLE
from shiftbench.execution.in_process import InProcess
from shiftbench.execution.launch import launch
from shiftbench.methods.base import Method
from shiftbench.methods.config import MethodConfig, TrainingConfig, file_settings
from shiftbench.methods.registry import METHODS
from shiftbench.methods.search import SearchConfig
from shiftbench.suite.suite import Suite
from shiftbench.testing.checks import Check, require

SHORT: Mapping[str, Any] = {"epochs": 1, "batch_size": 32, "warmup_steps": 1}
BUDGET: Mapping[str, Any] = {"steps": 3, "evaluation_images": 40}
LABEL = "checked"


def run_with(settings: Mapping[str, Any]) -> Check[type[Method[MethodConfig]]]:
    """The check that a run of a method with some settings trains, is predicted and scored."""

    def runs_on_the_miniature(kind: type[Method[MethodConfig]]) -> None:
        with registered(kind), TemporaryDirectory() as folder:
            suite = Suite.load(_suite(kind, settings, Path(folder)))
            outcome = launch(suite, Path(folder) / "results", InProcess(), Console(quiet=True))
            reasons = [*outcome.failed.values()]
            require(not reasons, "; ".join(reasons))

    return runs_on_the_miniature


def _suite(kind: type[Method[MethodConfig]], settings: Mapping[str, Any], folder: Path) -> Path:
    """The file of a suite of a method and of those that it builds on."""
    named = file_settings(kind.Config) & settings.keys()
    files = {name: str(Path(settings[name]).absolute()) for name in named}
    own = {"method": kind.name, **_short(kind.Config), **settings, **files}
    methods: dict[str, Any] = {"zero-shot": {}, LABEL: own}
    for parent in _parents(kind, settings):
        name = parent if parent in METHODS.entries() else "full"
        methods[parent] = {"method": name, **_short(METHODS.load(name).Config)}
    content = {
        "data": "miniature",
        "backbones": ["miniature"],
        "tasks": ["cifar10"],
        "methods": methods,
        "budget": {**BUDGET},
    }
    file = folder / "suite.yaml"
    file.write_text(dumped(content), encoding="utf-8")
    return file


def _parents(kind: type[Method[MethodConfig]], settings: Mapping[str, Any]) -> list[str]:
    """Labels of the methods that one builds on, and of those that they build on."""
    found: list[str] = []
    todo = [kind(kind.Config(**settings))]
    while todo:
        for label, _ in todo.pop().parents():
            if label in found or label == "zero-shot":
                continue
            found.append(label)
            if label in METHODS.entries():
                parent = METHODS.load(label)
                todo.append(parent(parent.Config()))
    return found


def _short(config: type[MethodConfig]) -> dict[str, Any]:
    """Settings with which a training is short, and a search tries nothing."""
    found = dict(SHORT) if issubclass(config, TrainingConfig) else {}
    search = config.model_fields.get("search")
    if search is not None and search.annotation is SearchConfig:
        found["search"] = {"n_trials": 0}
    return found


@contextmanager
def registered(kind: type[Method[MethodConfig]]) -> Iterator[None]:
    """Within the block, suites can name a method, whether it is installed or not.

    Raises:
        InputError: another method has its name.
    """
    target = f"{kind.__module__}:{kind.__qualname__}"
    known = METHODS.entries().get(kind.name)
    if known is not None:
        if METHODS.load(kind.name) is not kind:
            raise InputError(f'"{kind.name}" is the name of another method, of {known.provider}')
        yield
        return
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = ",".join(filter(None, (before, f"{kind.name}={target}")))
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
