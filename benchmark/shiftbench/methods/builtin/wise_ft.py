"""WiSE-FT: interpolate between the zero-shot and the fine-tuned weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import Field, model_validator

from shiftbench.methods.base import Method, MethodConfig

if TYPE_CHECKING:
    from shiftbench.methods.base import Weights

Alpha = Annotated[float, Field(ge=0, le=1)]


class WiseFtConfig(MethodConfig):
    """Which run to interpolate with, and how far."""

    parent: Annotated[str, Field(description="label of the fine-tuned run")] = "full"
    alphas: Annotated[tuple[Alpha, ...], Field(min_length=1, description="points of the curve")] = (
        tuple(i / 10 for i in range(11))
    )
    alpha: Annotated[Alpha, Field(description="the point reported when nothing is selected")] = 0.5

    @model_validator(mode="after")
    def _check_alphas(self) -> Self:
        if len(set(self.alphas)) < len(self.alphas):
            raise ValueError(f"alphas must differ from each other, got {list(self.alphas)}")
        if self.alpha not in self.alphas:
            raise ValueError(f"alpha {self.alpha} must be one of alphas {list(self.alphas)}")
        return self


class WiseFt(Method[WiseFtConfig]):
    """Weight-space ensemble of the zero-shot and a fine-tuned model (arXiv 2109.01903, eq. 1).

    Over a linear probe, where only the head differs, it equals the output-space ensemble.
    """

    name: ClassVar[str] = "wise-ft"
    Config: ClassVar[type[MethodConfig]] = WiseFtConfig
    seeded: bool = False

    def parents(self) -> tuple[str, ...]:
        """The fine-tuned run."""
        return (self.config.parent,)

    def variants(self) -> tuple[str, ...]:
        """One for every alpha, in the order of the configuration."""
        return tuple(self._alpha_of)

    def fixed_variant(self) -> str:
        """The configured ``alpha``."""
        return f"alpha={self.config.alpha}"

    def finish(
        self,
        variant: str,
        zero_shot: Weights,
        parents: Mapping[str, Weights],
        trained: Weights | None,
    ) -> Weights:
        """(1 - α) · zero-shot + α · fine-tuned."""
        from shiftbench.models.weights import interpolate

        return interpolate(zero_shot, parents[self.config.parent], self._alpha_of[variant])

    @property
    def _alpha_of(self) -> dict[str, float]:
        return {f"alpha={alpha}": alpha for alpha in self.config.alphas}
