"""Modules of an official checkout, imported by file path without the packages around them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Collection, Iterator, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any


def load(root: Path, name: str, needs: Collection[str] = (), packages: str = "src clip") -> Any:
    """A module of a checkout.

    No ``__init__`` of the checkout runs. Other modules of its packages are empty stand-ins, unless
    they are named as needed: most import data loaders, loggers and command lines that no function
    compared here uses.

    Args:
        root: the folder that holds the packages.
        name: dotted name of the module, as the checkout's own imports have it.
        needs: dotted names of the modules that it uses in earnest.
        packages: top-level packages of the checkout, apart by blanks.
    """
    finder = _Checkout(root, {name, *needs}, packages.split())
    with _nothing_kept(finder.packages):
        sys.meta_path.insert(0, finder)
        try:
            return import_module(name)
        finally:
            sys.meta_path.remove(finder)


@contextlib.contextmanager
def stand_in(name: str, **functions: object) -> Iterator[None]:
    """A module with these functions under a name, for as long as the context lasts."""
    module = ModuleType(name)
    vars(module).update(functions)
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


class _Checkout(MetaPathFinder):
    """Finds wanted modules in their files, folders as empty packages, and all else as stand-ins."""

    def __init__(self, root: Path, wanted: set[str], packages: Sequence[str]) -> None:
        self.root, self.wanted, self.packages = root, wanted, packages

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        del path, target
        if name.partition(".")[0] not in self.packages:
            return None
        place = self.root.joinpath(*name.split("."))
        if name in self.wanted:
            return spec_from_file_location(name, place.with_suffix(".py"))
        folder = place.is_dir()
        spec = ModuleSpec(name, _Empty(), is_package=folder)
        if folder:
            spec.submodule_search_locations = [str(place)]
        return spec


class _Empty(Loader):
    """Makes modules in which every name is an empty class, to call, subscript and derive from."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        del module


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__class_getitem__": classmethod(lambda cls, _: cls)})


@contextlib.contextmanager
def _nothing_kept(packages: Collection[str]) -> Iterator[None]:
    """Take modules of these packages out of ``sys.modules``, before and after."""
    before = _modules_of(packages)
    try:
        yield
    finally:
        _modules_of(packages)
        sys.modules.update(before)


def _modules_of(packages: Collection[str]) -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name.partition(".")[0] in packages]
    return {name: sys.modules.pop(name) for name in names}
