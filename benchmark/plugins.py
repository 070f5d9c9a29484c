"""Registries of methods, tasks and backbones: built in, or from other packages.

Three places are looked at, and nothing is imported before it is asked for:

1. the built-in names below;
2. the entry-point groups ``benchmark.methods``, ``benchmark.tasks`` and ``benchmark.backbones`` of
   the installed distributions;
3. for plugins under development, the environment variable ``SHIFTBENCH_PLUGINS``: comma-separated
   ``name=package.module:Object``, or ``tasks/name=…`` and ``backbones/name=…``.

A method is a subclass of ``benchmark.methods.base.Method``, a task a ``benchmark.data.tasks.Task``,
a backbone whatever ``benchmark.models.backbones`` accepts under that name.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from benchmark import __version__
from benchmark.errors import InputError

if TYPE_CHECKING:
    from benchmark.data.tasks import Task
    from benchmark.methods.base import Method, MethodConfig

Kind = Literal["methods", "tasks", "backbones"]
KINDS: tuple[Kind, ...] = ("methods", "tasks", "backbones")
VARIABLE = "SHIFTBENCH_PLUGINS"
BUILTIN = "shiftbench"

_BUILTIN: dict[Kind, dict[str, str]] = {
    "methods": {
        "zero-shot": "benchmark.methods.zero_shot:ZeroShot",
        "linear-probe": "benchmark.methods.linear_probe:LinearProbe",
        "full": "benchmark.methods.full:Full",
        "lp-ft": "benchmark.methods.lp_ft:LpFt",
        "l2-sp": "benchmark.methods.l2_sp:L2Sp",
        "wise-ft": "benchmark.methods.wise_ft:WiseFt",
        "output-ensemble": "benchmark.methods.output_ensemble:OutputEnsemble",
        "soup": "benchmark.methods.soup:Soup",
        "ema": "benchmark.methods.ema:Ema",
        "swa": "benchmark.methods.swa:Swa",
        "bitfit": "benchmark.methods.bitfit:BitFit",
        "lora": "benchmark.methods.lora:Lora",
        "freeze-embedding": "benchmark.methods.freeze_embedding:FreezeEmbedding",
        "saft": "benchmark.methods.saft:Saft",
        "flyp": "benchmark.methods.flyp:Flyp",
        "autoft": "benchmark.methods.autoft:AutoFt",
        "tuned": "benchmark.methods.tuned:Tuned",
    },
    "tasks": {
        name: f"benchmark.data.tasks:BUILTIN_TASKS.{name}"
        for name in ("imagenet", "cifar10", "iwildcam", "fmow")
    },
    "backbones": {"miniature": "benchmark.data.miniature:backbone_dir"},
}


@dataclass(frozen=True)
class Entry:
    """One registered name.

    Attributes:
        name: what a suite calls it.
        target: ``package.module:attribute``, not yet imported.
        distribution: the package that provides it; ``shiftbench`` for what is built in.
        version: of that package; for ``SHIFTBENCH_PLUGINS`` a digest of the module's source.
        rival: another distribution that claims the same name, which makes it unusable.
    """

    name: str
    target: str
    distribution: str
    version: str
    rival: str | None = None

    @property
    def builtin(self) -> bool:
        """Whether it is part of this package."""
        return self.distribution == BUILTIN

    @property
    def origin(self) -> str:
        """Distribution and version, such as ``mylab-methods 1.2``."""
        return f"{self.distribution} {self.version}".strip()


def nearest(name: str, valid: Iterable[str]) -> str:
    """The end of a message about an unknown ``name``: the likeliest valid one, or all of them."""
    choices = sorted(valid)
    close = difflib.get_close_matches(name, choices, n=1)
    if close:
        return f' (did you mean "{close[0]}"?)'
    return f" (known: {', '.join(choices)})" if choices else ""


def entries(kind: Kind) -> dict[str, Entry]:
    """Every registered name of a kind, built-in ones first. Imports no plugin.

    Raises:
        InputError: ``SHIFTBENCH_PLUGINS`` cannot be read.
    """
    found: dict[str, Entry] = {}
    for entry in _all_entries(kind):
        first = found.setdefault(entry.name, entry)
        if first is not entry:
            found[entry.name] = Entry(
                first.name, first.target, first.distribution, first.version, rival=entry.origin
            )
    return found


def entry(kind: Kind, name: str) -> Entry:
    """The one entry called ``name``.

    Raises:
        InputError: nothing, or more than one distribution, registers that name.
    """
    known = entries(kind)
    if name not in known:
        raise InputError(f'unknown {kind.removesuffix("s")} "{name}"{nearest(name, known)}')
    found = known[name]
    if found.rival is not None:
        raise InputError(
            f'{kind.removesuffix("s")} "{name}" is registered by both {found.origin} '
            f"and {found.rival}; uninstall or rename one of them"
        )
    return found


def load(kind: Kind, name: str) -> object:
    """Import and check the object registered as ``name``.

    Raises:
        InputError: the name is unknown or claimed twice, or its plugin cannot be imported.
    """
    found = entry(kind, name)
    try:
        loaded = _import(found.target)
        _check(kind, name, loaded)
    except Exception as error:  # a plugin may fail in any way at all
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f'{kind.removesuffix("s")} "{name}" of {found.origin} ({found.target}) '
            f"cannot be loaded: {reason}"
        ) from error
    return loaded


def method(name: str) -> type[Method[MethodConfig]]:
    """The method class registered as ``name``; see ``load`` for what is raised."""
    return cast("type[Method[MethodConfig]]", load("methods", name))


def task(name: str) -> Task:
    """The task registered as ``name``; see ``load`` for what is raised."""
    return cast("Task", load("tasks", name))


def backbone(name: str) -> object:
    """The backbone registered as ``name``; see ``load`` for what is raised."""
    return load("backbones", name)


def methods() -> dict[str, Entry]:
    """The registered methods by name."""
    return entries("methods")


def _all_entries(kind: Kind) -> Iterator[Entry]:
    for name, target in _BUILTIN[kind].items():
        yield Entry(name, target, BUILTIN, __version__)
    yield from _installed(kind, tuple((place, _changed(place)) for place in sys.path))
    yield from _development_entries(kind)


@lru_cache
def _installed(kind: Kind, places: tuple[tuple[str, int], ...]) -> tuple[Entry, ...]:
    """Entry points of the installed distributions, read once for each state of ``sys.path``."""
    del places
    installed = []
    for point in metadata.entry_points(group=f"benchmark.{kind}"):
        by = point.dist
        name, version = (by.name, by.version) if by else ("unknown distribution", "")
        installed.append(Entry(point.name, point.value, name, version))
    return tuple(sorted(installed, key=lambda entry: (entry.name, entry.distribution)))


def _changed(place: str) -> int:
    """When a folder's list of files last changed, in nanoseconds; 0 for what is no folder."""
    try:
        return Path(place or ".").stat().st_mtime_ns
    except OSError:
        return 0


def _development_entries(kind: Kind) -> Iterator[Entry]:
    for item in filter(None, (part.strip() for part in os.environ.get(VARIABLE, "").split(","))):
        key, equals, target = item.partition("=")
        module, colon, attribute = target.partition(":")
        if not (key and equals and module and colon and attribute):
            raise InputError(f'{VARIABLE}: "{item}" is not of the form name=package.module:Object')
        group, slash, name = key.partition("/")
        if not slash or group not in KINDS:
            group, name = "methods", key
        if group == kind:
            yield Entry(name, target, VARIABLE, _source_digest(module))


def _source_digest(module: str) -> str:
    """First 12 hex digits of the SHA-256 of a module's source, so that an edit is a new version."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return ""
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return ""
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()[:12]


def _import(target: str) -> object:
    module, _, path = target.partition(":")
    found: object = importlib.import_module(module)
    for part in filter(None, path.split(".")):
        found = found[part] if isinstance(found, Mapping) else getattr(found, part)
    return found


def _check(kind: Kind, name: str, loaded: object) -> None:
    if kind == "methods":
        from benchmark.methods.base import Method

        if not (isinstance(loaded, type) and issubclass(loaded, Method)):
            raise TypeError("it is not a subclass of benchmark.methods.base.Method")
        if loaded.name != name:
            raise TypeError(f'the class calls itself "{loaded.name}"')
    elif kind == "tasks":
        from benchmark.data.tasks import Task

        if not isinstance(loaded, Task):
            raise TypeError("it is not a benchmark.data.tasks.Task")
