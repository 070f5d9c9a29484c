"""All checks of what a package registers, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from shiftbench.core.document import Place, tree
from shiftbench.core.errors import InputError
from shiftbench.core.plugins import KINDS, Kind, Registry
from shiftbench.core.validation import validate
from shiftbench.core.words import nearest
from shiftbench.data.roots import resolve
from shiftbench.data.sources.base import Source
from shiftbench.data.sources.registry import SOURCES
from shiftbench.data.tasks.definition import Task
from shiftbench.data.tasks.registry import TASKS
from shiftbench.evaluation.metrics.base import Metric
from shiftbench.evaluation.metrics.registry import METRICS, metric
from shiftbench.execution.loggers.registry import LOGGERS
from shiftbench.methods.base import Method, TrainedMethod
from shiftbench.methods.config import MethodConfig
from shiftbench.methods.registry import METHODS
from shiftbench.models.registry import BACKBONES
from shiftbench.testing import methods, metrics, miniature, sources, workers
from shiftbench.testing.checks import Outcome, outcomes

REGISTRIES: Mapping[Kind, Registry[object]] = {
    "methods": METHODS,
    "metrics": METRICS,
    "sources": SOURCES,
    "tasks": TASKS,
    "backbones": BACKBONES,
    "loggers": LOGGERS,
}
Found: TypeAlias = tuple[Kind, str]
"""What is registered: its kind and its name, of a metric with its argument."""


def find(text: str) -> list[Found]:
    """What a name means: one that is registered, ``kind/name``, or all that a distribution has.

    Raises:
        InputError: nothing is called so; or a name that is one of several kinds.
    """
    kind, slash, rest = text.partition("/")
    if slash and kind in KINDS:
        return [_of_kind(kind, rest)]
    name = text.partition(":")[0]
    entries = [(kind, entry) for kind in KINDS for entry in REGISTRIES[kind].entries().values()]
    found: list[Found] = [
        (kind, text if kind == "metrics" else name)
        for kind, entry in entries
        if entry.name == name and (kind == "metrics" or name == text)
    ]
    if len(found) > 1:
        called = " or ".join(f"{kind}/{text}" for kind, _ in found)
        raise InputError(f'"{text}" is the name of several things; say {called}')
    if found:
        return found
    own = [(kind, entry) for kind, entry in entries if not entry.builtin]
    of_package: list[Found] = [
        (kind, entry.name) for kind, entry in own if entry.distribution == text
    ]
    if not of_package:
        known = {entry.name for _, entry in entries} | {entry.distribution for _, entry in own}
        near = nearest(text, known)
        raise InputError(f'"{text}" is neither registered nor a package that registers any{near}')
    return of_package


def _of_kind(kind: Kind, text: str) -> Found:
    REGISTRIES[kind].entry(text.partition(":")[0] if kind == "metrics" else text)
    return kind, text


def check_all(found: Sequence[Found], settings: Mapping[str, Any], data: str) -> Iterator[Outcome]:
    """Every check of some things that are registered.

    Of several, one that cannot be made without settings is skipped.

    Raises:
        InputError: as for ``check``, where only one is meant; or settings where several are.
    """
    if settings and len(found) > 1:
        raise InputError(f"settings are of one plugin, and {len(found)} are meant")
    for one in found:
        try:
            yield from check(one, settings, data)
        except InputError as error:
            if len(found) == 1:
                raise
            title = f"{REGISTRIES[one[0]].singular} {one[1]}"
            yield Outcome(title, "is complete without settings", "skipped", str(error))


def check(found: Found, settings: Mapping[str, Any], data: str) -> Iterator[Outcome]:
    """Every check that there is for something registered, one after the other.

    Args:
        found: as ``find`` gives it.
        settings: of a method or a source, as a suite says them.
        data: the data root that a source or a task is read from, or ``miniature``.

    Raises:
        InputError: the settings are none that it takes, or there are no such data.
    """
    kind, name = found
    title = f"{REGISTRIES[kind].singular} {name}"
    try:
        loaded = metric(name) if kind == "metrics" else REGISTRIES[kind].load(name)
    except InputError as error:
        yield Outcome(title, "can be loaded", "failed", str(error), error)
        return
    if settings and kind not in ("methods", "sources"):
        raise InputError(f"{title} has no settings; only methods and sources have")
    match loaded:
        case Metric():
            yield from outcomes(title, metrics.CHECKS, loaded)
        case Task():
            placed = sources.PlacedTask(loaded, resolve(data))
            yield from outcomes(title, sources.TASKS, placed)
        case type() if issubclass(loaded, Source):
            yield from of_source(title, loaded, settings, data)
        case type() if issubclass(loaded, Method):
            yield from of_method(title, loaded, settings)
        case _:
            more = f"the rest: shiftbench backbone check {name}" if kind == "backbones" else ""
            yield Outcome(title, "can be loaded", "passed", more)


def of_method(
    title: str, kind: type[Method[MethodConfig]], settings: Mapping[str, Any]
) -> Iterator[Outcome]:
    """Every check of a method with some settings.

    Raises:
        InputError: they are none that it takes.
    """
    subject = methods.Subject.of(kind, settings)
    yield from outcomes(title, methods.checks_of(subject), subject)
    if isinstance(subject.create(), TrainedMethod):
        together = {"trains alike with 1 and 2 workers": workers.agree_with_one_worker}
        yield from outcomes(title, together, subject)
    whole = {"runs on the miniature": miniature.run_with(settings)}
    yield from outcomes(title, whole, kind)


def of_source(
    title: str, kind: type[Source], settings: Mapping[str, Any], data: str
) -> Iterator[Outcome]:
    """Every check of a source with some settings.

    Raises:
        InputError: they are none that it takes, or there are no such data.
    """
    source = validate(kind, tree(dict(settings), Place(title, None, Path())))
    yield from outcomes(title, sources.SOURCES, sources.Placed(source, resolve(data)))
