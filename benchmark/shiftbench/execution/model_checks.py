"""Checks of backbones, and of methods that are to train them, before anything is spent. No ray."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shiftbench.core.errors import InputError, RunFailedError
from shiftbench.methods.base import TrainedMethod
from shiftbench.methods.config import TrainingConfig
from shiftbench.methods.registry import METHODS
from shiftbench.models.backbones import check_backbone, image_tower, is_plain_vit, is_shipped

if TYPE_CHECKING:
    from shiftbench.methods.base import Method
    from shiftbench.methods.config import MethodConfig
    from shiftbench.suite.plan import Plan, Run


def check_backbones(plan: Plan) -> None:
    """Refuse unknown backbones, and methods that cannot train one; downloads nothing.

    Raises:
        InputError: one of these.
    """
    for position, name in enumerate(plan.suite.backbones):
        try:
            check_backbone(name)
        except InputError as error:
            raise plan.suite.error(str(error), "backbones", position) from error
    distinct = {(run.task.name, run.backbone, run.label): run for run in plan.runs.values()}
    for run in distinct.values():
        _check_method(plan, run)


def _check_method(plan: Plan, run: Run) -> None:
    """Refuse a method that cannot work with its run's backbone."""
    method = run.create()
    if not method.elsewhere and _is_known(run, method):
        return
    try:
        method.check(lambda: image_tower(run.backbone))
    except (RunFailedError, InputError) as error:
        message = f"{run.label} on {run.backbone}: {error}"
        raise plan.suite.error(message, "methods", run.label) from error


def _is_known(run: Run, method: Method[MethodConfig]) -> bool:
    """True where tests see to it that a method takes a backbone, so that no torch is imported.

    Built-in methods take the shipped backbone and plain ViTs; those that train these, if the
    settings that they check are the defaults.
    """
    if not METHODS.entry(run.method).builtin:
        return False
    checked = method.checked
    own = {
        name: field.default
        for name, field in type(run.config).model_fields.items()
        if (name not in TrainingConfig.model_fields if checked is None else name in checked)
    }
    plain = not isinstance(method, TrainedMethod) or all(
        getattr(run.config, name) == default for name, default in own.items()
    )
    return is_shipped(run.backbone) or (plain and is_plain_vit(run.backbone))
