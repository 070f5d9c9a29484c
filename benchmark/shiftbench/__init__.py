"""ShiftBench: a distributed benchmark of robust fine-tuning for vision-language models.

The names in ``__all__`` are the Python API. Each is imported from where it lives when it is first
used, so that ``import shiftbench`` itself loads neither torch nor ray::

    import shiftbench

    board = shiftbench.run("quickstart", results="results")
    print(board.ranking("cifar10").methods[0].name)
    model = board.load_model("3f1c", "alpha=0.5")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from shiftbench.core.version import __version__

if TYPE_CHECKING:
    from shiftbench.api import Leaderboard, load_model, run
    from shiftbench.core.errors import InputError
    from shiftbench.data.images import ImageSet
    from shiftbench.data.sources.base import Source
    from shiftbench.data.tasks.definition import EvaluationSet, Task
    from shiftbench.evaluation.examples import Examples
    from shiftbench.evaluation.metrics.base import MeanMetric, Metric, Proportion, SumMetric
    from shiftbench.execution.finetuned import FineTuned
    from shiftbench.leaderboard.schema import Row
    from shiftbench.methods.base import (
        Batch,
        Context,
        Derivation,
        DerivedMethod,
        EnsembleMethod,
        Method,
        Parent,
        TrainedMethod,
    )
    from shiftbench.methods.config import MethodConfig, TrainingConfig
    from shiftbench.methods.members import Members, Outputs
    from shiftbench.methods.search import Choice, Integer, LogUniform, Searched, Uniform
    from shiftbench.suite.plan import Plan, Run
    from shiftbench.suite.suite import Suite

_HOMES = {
    "Batch": "methods.base",
    "Choice": "methods.search",
    "Context": "methods.base",
    "Derivation": "methods.base",
    "DerivedMethod": "methods.base",
    "EnsembleMethod": "methods.base",
    "EvaluationSet": "data.tasks.definition",
    "Examples": "evaluation.examples",
    "FineTuned": "execution.finetuned",
    "ImageSet": "data.images",
    "InputError": "core.errors",
    "Integer": "methods.search",
    "Leaderboard": "api",
    "LogUniform": "methods.search",
    "MeanMetric": "evaluation.metrics.base",
    "Members": "methods.members",
    "Method": "methods.base",
    "MethodConfig": "methods.config",
    "Metric": "evaluation.metrics.base",
    "Outputs": "methods.members",
    "Parent": "methods.base",
    "Plan": "suite.plan",
    "Proportion": "evaluation.metrics.base",
    "Row": "leaderboard.schema",
    "Run": "suite.plan",
    "Searched": "methods.search",
    "Source": "data.sources.base",
    "Suite": "suite.suite",
    "SumMetric": "evaluation.metrics.base",
    "Task": "data.tasks.definition",
    "TrainedMethod": "methods.base",
    "TrainingConfig": "methods.config",
    "Uniform": "methods.search",
    "load_model": "api",
    "run": "api",
}
"""The module of every public name, below ``shiftbench``."""

__all__ = [
    "Batch",
    "Choice",
    "Context",
    "Derivation",
    "DerivedMethod",
    "EnsembleMethod",
    "EvaluationSet",
    "Examples",
    "FineTuned",
    "ImageSet",
    "InputError",
    "Integer",
    "Leaderboard",
    "LogUniform",
    "MeanMetric",
    "Members",
    "Method",
    "MethodConfig",
    "Metric",
    "Outputs",
    "Parent",
    "Plan",
    "Proportion",
    "Row",
    "Run",
    "Searched",
    "Source",
    "Suite",
    "SumMetric",
    "Task",
    "TrainedMethod",
    "TrainingConfig",
    "Uniform",
    "__version__",
    "load_model",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
