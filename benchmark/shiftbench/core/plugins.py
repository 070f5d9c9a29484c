"""Registries: what a suite can name, built in or from other packages.

Three places are looked at, and nothing is imported before it is asked for:

1. the built-in ones, which a registry finds by the names of files in a folder of this package;
2. the entry points of the installed distributions, in the group ``shiftbench.<kind>``;
3. for plugins under development, the environment variable ``SHIFTBENCH_PLUGINS``: comma-separated
   ``name=package.module:Object`` for a method, ``<kind>/name=package.module:Object`` for the other
   kinds.

The registries themselves stand beside the contracts that they hold: ``methods.registry``,
``evaluation.metrics.registry``, ``data.sources.registry``, ``data.tasks.registry``,
``models.registry`` and ``execution.loggers.registry``.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Generic, Literal, TypeVar

from shiftbench.core.errors import InputError, first_line
from shiftbench.core.source_digest import source_digest
from shiftbench.core.version import __version__
from shiftbench.core.words import nearest

Kind = Literal["methods", "tasks", "backbones", "metrics", "sources", "loggers"]
KINDS: tuple[Kind, ...] = ("methods", "tasks", "backbones", "metrics", "sources", "loggers")
VARIABLE = "SHIFTBENCH_PLUGINS"
BUILTIN = "shiftbench"

T = TypeVar("T", covariant=True)


@dataclass(frozen=True)
class Entry:
    """One registered name.

    Attributes:
        name: what a suite calls it.
        target: ``package.module:attribute``, not yet imported.
        distribution: the package that provides it; ``shiftbench`` for what is built in.
        version: of that package; "" for ``SHIFTBENCH_PLUGINS``.
        rival: another distribution that claims the same name, which makes it unusable.
    """

    name: str
    target: str
    distribution: str
    version: str
    rival: str | None = None

    @property
    def builtin(self) -> bool:
        """True for what is part of this package."""
        return self.distribution == BUILTIN

    @property
    def provider(self) -> str:
        """Distribution and version, such as ``mylab-methods 1.2``."""
        return f"{self.distribution} {self.version}".strip()

    @property
    def origin(self) -> str:
        """The provider and, of a plugin, a digest of its code: ``mylab-methods 1.2 +3fa9c1d20b7e``.

        An edit that leaves the version as it is makes another origin; see ``source_digest``.
        """
        if self.builtin:
            return self.provider
        digest = source_digest(self.target.partition(":")[0])
        return f"{self.provider} +{digest}" if digest else self.provider


class Registry(Generic[T]):
    """The registered names of one kind.

    Args:
        kind: names the entry-point group, ``shiftbench.<kind>``.
        builtin: gives the target of every built-in name; called when first needed.
        accept: returns the loaded object as what the registry holds, or raises ``TypeError`` with
            what is wrong with it.
    """

    def __init__(
        self,
        kind: Kind,
        builtin: Callable[[], Mapping[str, str]],
        accept: Callable[[str, object], T],
    ) -> None:
        self.kind = kind
        self._builtin = builtin
        self._accept = accept
        self._known: tuple[object, dict[str, Entry]] | None = None

    @property
    def singular(self) -> str:
        """One of them, for messages."""
        return self.kind.removesuffix("s")

    def entries(self) -> dict[str, Entry]:
        """Every registered name, built-in ones first. Imports no plugin.

        Raises:
            InputError: ``SHIFTBENCH_PLUGINS`` cannot be read.
        """
        builtin = self._builtin()
        installed = _installed(self.kind, tuple((place, _changed(place)) for place in sys.path))
        state = builtin, installed, os.environ.get(VARIABLE, "")
        if self._known is not None and self._known[0] == state:
            return self._known[1]
        found: dict[str, Entry] = {}
        own = (Entry(name, target, BUILTIN, __version__) for name, target in builtin.items())
        for entry in (*own, *installed, *_development_entries(self.kind)):
            first = found.setdefault(entry.name, entry)
            if first is not entry:
                found[entry.name] = replace(first, rival=entry.provider)
        self._known = state, found
        return found

    def entry(self, name: str) -> Entry:
        """The one entry called ``name``.

        Raises:
            InputError: nothing, or more than one distribution, registers that name.
        """
        known = self.entries()
        if name not in known:
            raise InputError(f'unknown {self.singular} "{name}"{nearest(name, known)}')
        found = known[name]
        if found.rival is not None:
            raise InputError(
                f'{self.singular} "{name}" is registered by both {found.provider} '
                f"and {found.rival}; uninstall or rename one of them"
            )
        return found

    def load(self, name: str) -> T:
        """Import and check what is registered as ``name``.

        Raises:
            InputError: the name is unknown or claimed twice, or its plugin cannot be imported.
        """
        found = self.entry(name)
        try:
            return self._accept(name, _import(found.target, name))
        except Exception as error:  # a plugin may fail in any way at all
            reason = first_line(error)
            raise InputError(
                f'{self.singular} "{name}" of {found.provider} ({found.target}) '
                f"cannot be loaded: {reason}"
            ) from error


def modules_of(package: str) -> Mapping[str, str]:
    """The modules of a package by the names that they register: ``wise_ft.py`` is ``wise-ft``.

    Nothing is imported. Modules that begin with an underscore are left out.
    """
    spec = importlib.util.find_spec(package)
    folders = () if spec is None else spec.submodule_search_locations or ()
    return _modules_in(package, tuple((folder, _changed(folder)) for folder in folders))


@lru_cache
def _modules_in(package: str, folders: tuple[tuple[str, int], ...]) -> dict[str, str]:
    """What ``modules_of`` returns, for one state of the package's folders."""
    files = sorted(file for folder, _ in folders for file in Path(folder).glob("[!_]*.py"))
    return {file.stem.replace("_", "-"): f"{package}.{file.stem}" for file in files}


@lru_cache
def _installed(kind: Kind, places: tuple[tuple[str, int], ...]) -> tuple[Entry, ...]:
    """Entry points of the installed distributions, read once for each state of ``sys.path``."""
    del places
    installed = []
    for point in metadata.entry_points(group=f"shiftbench.{kind}"):
        by = point.dist
        name, version = (by.name, by.version) if by else ("unknown distribution", "")
        installed.append(Entry(point.name, point.value, name, version))
    return tuple(sorted(installed, key=lambda entry: (entry.name, entry.distribution)))


def others_here() -> dict[str, str]:
    """The names, as ``kind/name``, that other packages register and that can be imported here.

    Returns:
        their targets, by name.
    """
    places = tuple((place, _changed(place)) for place in sys.path)
    found = {}
    for kind in KINDS:
        for entry in (*_installed(kind, places), *_development_entries(kind)):
            with suppress(ImportError, ValueError):
                if importlib.util.find_spec(entry.target.partition(":")[0]) is not None:
                    found[f"{kind}/{entry.name}"] = entry.target
    return found


def _changed(place: str) -> int:
    """When a folder's list of files last changed, in nanoseconds; 0 for what is no folder."""
    try:
        return os.stat(place or ".").st_mtime_ns  # noqa: PTH116 - often called
    except OSError:
        return 0


def development_modules() -> list[str]:
    """The modules that ``SHIFTBENCH_PLUGINS`` names.

    Raises:
        InputError: it cannot be read.
    """
    found = (entry.target for kind in KINDS for entry in _development_entries(kind))
    return [target.partition(":")[0] for target in found]


def _development_entries(kind: Kind) -> Iterator[Entry]:
    for item in filter(None, (part.strip() for part in os.environ.get(VARIABLE, "").split(","))):
        key, equals, target = item.partition("=")
        module, colon, attribute = target.partition(":")
        group, slash, name = key.partition("/")
        if not slash:
            group, name = "methods", key
        if not (name and equals and module and colon and attribute):
            raise InputError(
                f'{VARIABLE}: "{item}" is not of the form name=package.module:Object, '
                "or sources/name=… for another kind"
            )
        if group not in KINDS:
            raise InputError(f'{VARIABLE}: "{item}": unknown kind "{group}"{nearest(group, KINDS)}')
        if group == kind:
            yield Entry(name, target, VARIABLE, "")


def _import(target: str, name: str) -> object:
    """The object of a target: an attribute, or of a whole module its class called ``name``."""
    module, colon, path = target.partition(":")
    found: object = importlib.import_module(module)
    if not colon:
        own = (
            value
            for value in vars(found).values()
            if getattr(value, "__module__", None) == module and getattr(value, "name", None) == name
        )
        found = next(own, None)
        if found is None:
            raise TypeError(f'it has no class with name = "{name}"')
        return found
    for part in path.split("."):
        found = found[part] if isinstance(found, Mapping) else getattr(found, part)
    return found
