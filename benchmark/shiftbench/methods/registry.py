"""The methods that a suite can name."""

from __future__ import annotations

from shiftbench.core.plugins import Registry, modules_of
from shiftbench.methods.base import Method, MethodConfig


def _accept(name: str, loaded: object) -> type[Method[MethodConfig]]:
    if not (isinstance(loaded, type) and issubclass(loaded, Method)):
        raise TypeError("it is not a subclass of shiftbench.Method")
    if loaded.name != name:
        raise TypeError(f'the class calls itself "{loaded.name}"')
    return loaded


METHODS = Registry("methods", lambda: modules_of("shiftbench.methods.builtin"), _accept)
"""Built in is every file of ``methods/builtin``: ``wise_ft.py`` holds the method ``wise-ft``."""
