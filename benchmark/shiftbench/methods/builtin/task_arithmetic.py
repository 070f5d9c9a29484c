"""Task arithmetic: add what several fine-tunings have changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from shiftbench.methods.config import MethodConfig
from shiftbench.methods.merging import Scale, ScaledMerge, ScaledMergeConfig

if TYPE_CHECKING:
    from shiftbench.methods.base import Derivation, Weights


class TaskArithmeticConfig(ScaledMergeConfig):
    """The runs whose changes are added, and the scales λ.

    0.4 is the value for when there is no validation set (TIES, arXiv 2306.01708), of sums
    over different tasks; of n runs of one task, 1/n is their average.
    """

    scale: Annotated[Scale, Field(description="the λ reported when nothing is selected")] = 0.4


class TaskArithmetic(ScaledMerge[TaskArithmeticConfig]):
    """θ0 + λ · Σ (θᵢ - θ0) (Ilharco et al. 2023, arXiv 2212.04089, sec. 2).

    Of one run it is WiSE-FT at α = λ, and of n runs at λ = 1/n the uniform soup. Every scale is a
    variant, so that ID validation can choose among them as the paper does.
    """

    name: ClassVar[str] = "task-arithmetic"
    Config: ClassVar[type[MethodConfig]] = TaskArithmeticConfig
    seeded: bool = False

    def derive(self, variant: str, derivation: Derivation) -> Weights:
        """(1 - nλ) · zero-shot + λ · the sum of the n runs' weights."""
        from shiftbench.models.weights import average

        thetas, scale = self.config.weights(derivation), self.config.points[variant]
        coefficients = [1 - len(thetas) * scale, *[scale] * len(thetas)]
        return average([derivation.zero_shot, *thetas], coefficients)
