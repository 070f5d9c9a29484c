"""The methods that a suite can name."""

from __future__ import annotations

import inspect

from shiftbench.core.plugins import Registry, modules_of
from shiftbench.methods.base import DerivedMethod, EnsembleMethod, Method, TrainedMethod
from shiftbench.methods.config import MethodConfig

KINDS = (TrainedMethod, DerivedMethod, EnsembleMethod)


def _accept(name: str, loaded: object) -> type[Method[MethodConfig]]:
    if not (isinstance(loaded, type) and issubclass(loaded, KINDS)):
        kinds = ", ".join(kind.__name__ for kind in KINDS)
        raise TypeError(f"it is not a subclass of any of {kinds}")
    if loaded.name != name:
        raise TypeError(f'the class calls itself "{loaded.name}"')
    if inspect.isabstract(loaded):
        raise TypeError(f"it does not define {', '.join(sorted(loaded.__abstractmethods__))}")
    return loaded


def plugin_origin(method: Method[MethodConfig]) -> str | None:
    """Origin of the code of a method from another package, or that wraps one; else ``None``."""
    entries = [METHODS.entry(name) for name in (method.name, *method.wraps)]
    return ", ".join(entry.origin for entry in entries if not entry.builtin) or None


METHODS = Registry("methods", lambda: modules_of("shiftbench.methods.builtin"), _accept)
"""Built in is every file of ``methods/builtin``: ``wise_ft.py`` holds the method ``wise-ft``."""
