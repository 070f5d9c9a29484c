"""The loggers that a suite can name."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from importlib.util import find_spec

from shiftbench.core.errors import InputError
from shiftbench.core.plugins import Registry, modules_of
from shiftbench.execution.loggers.base import Logger


def _accept(name: str, loaded: object) -> type[Logger]:
    if not (isinstance(loaded, type) and issubclass(loaded, Logger)):
        raise TypeError("it is not a subclass of Logger")
    if loaded.name != name:
        raise TypeError(f'the class calls itself "{loaded.name}"')
    if inspect.isabstract(loaded):
        raise TypeError(f"it does not define {', '.join(sorted(loaded.__abstractmethods__))}")
    return loaded


LOGGERS = Registry("loggers", lambda: modules_of("shiftbench.execution.loggers.builtin"), _accept)
"""Built in is every file of ``loggers/builtin``."""


def check_loggers(names: Iterable[str]) -> None:
    """See that some loggers can be used here, without importing their packages.

    Raises:
        InputError: one is unknown, or its package is not installed.
    """
    for name in names:
        logger = LOGGERS.load(name)
        if find_spec(logger.package) is None:
            raise InputError(
                f"logger {name}: the package {logger.package} is not installed: {logger.install}"
            )
