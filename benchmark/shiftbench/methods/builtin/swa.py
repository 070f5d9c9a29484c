"""SWA: full fine-tuning that ends with the plain mean of late weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from shiftbench.methods.builtin.ema import Averaging
from shiftbench.methods.config import MethodConfig, TrainingConfig

if TYPE_CHECKING:
    from shiftbench.methods.base import Context
    from shiftbench.models.classifier import ImageClassifier


class SwaConfig(TrainingConfig):
    """Settings of full fine-tuning, and which weights are averaged."""

    start: Annotated[
        float, Field(ge=0, lt=1, description="part of the training before the first ones")
    ] = 0.75
    every: Annotated[
        int | None, Field(ge=1, description="steps from one to the next; null: an epoch")
    ] = None


def averaged_steps(steps: int, every: int, start: float) -> range:
    """Numbers of steps after which the weights enter the mean, ascending.

    They are counted back from the end, so the last weights are always among them, and none comes
    before ``start · steps`` (rounded) or before the first step.
    """
    earliest = max(1, round(start * steps))
    return range(steps - (steps - earliest) // every * every, steps + 1, every)


class Swa(Averaging):
    """Stochastic weight averaging (Izmailov et al. 2018, arXiv 1803.05407, algorithm 1).

    Differs from the paper in two points: the learning rate follows the cosine of every training
    here, down to zero, where the paper holds it high or cycles it; and batch-norm statistics are
    averaged, see ``Averaging``.
    """

    name: ClassVar[str] = "swa"
    Config: ClassVar[type[MethodConfig]] = SwaConfig
    config: SwaConfig

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Fix the steps whose weights are averaged."""
        super().prepare(model, context)
        every = self.config.every or math.ceil(context.steps / self.config.epochs)
        self._averaged = averaged_steps(context.steps, every, self.config.start)

    def share(self, step: int) -> float:
        """1 / k for the k-th of the averaged steps."""
        return 1 / (self._averaged.index(step) + 1) if step in self._averaged else 0.0
