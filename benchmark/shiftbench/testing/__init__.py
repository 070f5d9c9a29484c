"""Checks that a plugin keeps its contract, for the tests of its own package.

They are those that the built-in methods, metrics and sources pass, and what ``shiftbench
check-plugin`` does by name::

    from mylab.smooth import Smooth
    from shiftbench.testing import check_method

    def test_smooth_keeps_the_contract_of_a_method():
        check_method(Smooth, temperature=3)

Each raises a ``ContractError``, an ``AssertionError``, that names the first difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shiftbench.testing.checks import ContractError, demand, outcomes

if TYPE_CHECKING:
    from shiftbench.data.sources.base import Source
    from shiftbench.data.tasks.definition import Task
    from shiftbench.evaluation.metrics.base import Metric
    from shiftbench.methods.base import Method
    from shiftbench.methods.config import MethodConfig

__all__ = ["ContractError", "check_method", "check_metric", "check_source", "check_task"]


def check_method(kind: type[Method[MethodConfig]], **settings: Any) -> None:
    """Check a method: settings, training, resuming, workers, weights, and a run on the miniature.

    It takes some seconds: two processes train, and a run goes through all its stages. What draws at
    random in its loss is not compared between numbers of workers.

    Args:
        kind: the method's class, installed or not.
        settings: as a suite says them, for those without a default and where others suit better.

    Raises:
        ContractError: it breaks the contract; the message is the first difference.
        InputError: the settings are none that it takes.
    """
    from shiftbench.testing.plugins import of_method

    demand(of_method(f"method {kind.name}", kind, settings))


def check_metric(metric: Metric) -> None:
    """Check a metric: its value, range, direction, interval, and what it needs.

    Args:
        metric: such as ``Hesitation()``, or ``ECE("15")`` with its argument.

    Raises:
        ContractError: it breaks the contract; the message is the first difference.
    """
    from shiftbench.testing.metrics import CHECKS

    demand(outcomes(f"metric {metric.text}", CHECKS, metric))


def check_source(source: Source, root: str = "miniature") -> None:
    """Check a source: ids, labels, counts, pixels, parts, and that all are the same every time.

    Args:
        source: with its settings.
        root: the data root, a folder, a URI or ``miniature``.

    Raises:
        ContractError: it breaks the contract; the message is the first difference.
        InputError: there is no such data root.
    """
    from shiftbench.data.roots import resolve
    from shiftbench.testing.sources import SOURCES, Placed

    demand(outcomes(f"source {source.kind}", SOURCES, Placed(source, resolve(root))))


def check_task(task: Task, root: str = "miniature") -> None:
    """Check a task: its sets, labels and metrics, and that no test image is trained on.

    Args:
        task: of a package.
        root: the data root, a folder, a URI or ``miniature``.

    Raises:
        ContractError: it breaks the contract; the message is the first difference.
        InputError: there is no such data root.
    """
    from shiftbench.data.roots import resolve
    from shiftbench.testing.sources import TASKS, PlacedTask

    demand(outcomes(f"task {task.name}", TASKS, PlacedTask(task, resolve(root))))
