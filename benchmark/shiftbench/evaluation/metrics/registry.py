"""The metrics that a task can name, and the one way to look one up."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache

from shiftbench.core.errors import InputError
from shiftbench.core.plugins import VARIABLE, Registry, modules_of
from shiftbench.evaluation.metrics.base import Metric


def _accept(name: str, loaded: object) -> type[Metric]:
    if not (isinstance(loaded, type) and issubclass(loaded, Metric)):
        raise TypeError("it is not a subclass of shiftbench.Metric")
    if loaded.name != name:
        raise TypeError(f'the class calls itself "{loaded.name}"')
    return loaded


METRICS = Registry("metrics", lambda: modules_of("shiftbench.evaluation.metrics.builtin"), _accept)
"""Built in is every file of ``metrics/builtin``: ``macro_f1.py`` holds the metric ``macro-f1``."""


def metric(text: str) -> Metric:
    """The metric that a text names: a registered name, and after a colon what it takes.

    Args:
        text: such as ``accuracy``, ``ece:15`` or ``worst-group:region*year``.

    Raises:
        InputError: the name is unknown (with the nearest ones), or the argument does not fit.
    """
    return _made(text, os.environ.get(VARIABLE, ""))


@lru_cache(maxsize=256)
def _made(text: str, plugins: str) -> Metric:
    """The metric, made once while the plugins under development are the same."""
    del plugins
    name, colon, argument = text.partition(":")
    kind = METRICS.load(name)
    try:
        return kind(argument if colon else None)
    except ValueError as error:
        raise InputError(f'metric "{text}": {error}') from error


def plugin_origins(texts: Iterable[str]) -> dict[str, str]:
    """The metrics from other packages among those that some texts name.

    Returns:
        distribution and version by name, such as ``{"hesitation": "mylab 1.2"}``; a part of the
        identity of runs, so that a changed metric makes new runs.
    """
    entries = METRICS.entries()
    names = sorted({text.partition(":")[0] for text in texts})
    used = (entries[name] for name in names if name in entries)
    return {entry.name: entry.origin for entry in used if not entry.builtin}


def check_mean(texts: Iterable[str]) -> None:
    """Refuse a mean over metrics that have no common direction and unit.

    Raises:
        InputError: one is better when higher and another when lower, or only one is in percent.
    """
    each = [metric(text) for text in dict.fromkeys(texts)]
    for other in each[1:]:
        if other.higher_is_better != each[0].higher_is_better:
            high, low = (each[0], other) if each[0].higher_is_better else (other, each[0])
            raise InputError(
                f'no mean over "{high.text}", of which more is better, and "{low.text}", '
                "of which less is"
            )
        if other.percent != each[0].percent:
            raise InputError(
                f'no mean over "{each[0].text}" and "{other.text}", which have different units'
            )
