"""WiSE-FT: interpolate between the zero-shot and the fine-tuned weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from shiftbench.methods.base import DerivedMethod, Parent
from shiftbench.methods.config import MethodConfig
from shiftbench.methods.search import Searched, Uniform

if TYPE_CHECKING:
    from shiftbench.methods.base import Derivation, Weights

Alpha = Annotated[float, Field(ge=0, le=1), Searched(Uniform(low=0, high=1))]


class CurveConfig(MethodConfig):
    """A curve from the zero-shot model (α = 0) to a fine-tuned one (α = 1)."""

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

    @classmethod
    def of_trial(cls, settings: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """A searched ``alpha`` is the only point of its curve."""
        point = {"alphas": [values["alpha"]]} if "alpha" in values else {}
        return {**settings, **values, **point}

    @property
    def points(self) -> dict[str, float]:
        """Every alpha by the name of its variant, in the order of the configuration."""
        return {f"alpha={alpha}": alpha for alpha in self.alphas}


class WiseFt(DerivedMethod[CurveConfig]):
    """Weight-space ensemble of the zero-shot and a fine-tuned model (arXiv 2109.01903, eq. 1).

    Over a linear probe, where only the head differs, it equals the output-space ensemble. Running
    statistics of batch norm are interpolated like weights; a parent with ``batch_norm: frozen`` has
    the pretrained ones, and so has every point of the curve.
    """

    name: ClassVar[str] = "wise-ft"
    Config: ClassVar[type[MethodConfig]] = CurveConfig
    seeded: bool = False

    def parents(self) -> tuple[Parent, ...]:
        """The fine-tuned run."""
        return (Parent(self.config.parent),)

    def variants(self) -> tuple[str, ...]:
        """One for every alpha, in the order of the configuration."""
        return tuple(self.config.points)

    def fixed_variant(self) -> str:
        """The configured ``alpha``."""
        return f"alpha={self.config.alpha}"

    def derive(self, variant: str, derivation: Derivation) -> Weights:
        """(1 - α) · zero-shot + α · fine-tuned."""
        from shiftbench.models.weights import interpolate

        (fine_tuned,) = derivation.parents.values()
        return interpolate(derivation.zero_shot, fine_tuned, self.config.points[variant])
