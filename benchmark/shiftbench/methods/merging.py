"""Settings that merges of several runs' weights have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeVar

from pydantic import Field, model_validator

from shiftbench.methods.base import DerivedMethod, Parent
from shiftbench.methods.config import MethodConfig
from shiftbench.methods.search import Searched, Uniform

if TYPE_CHECKING:
    from shiftbench.methods.base import Derivation, Weights

Scale = Annotated[float, Field(ge=0), Searched(Uniform(low=0, high=1))]


class MergeConfig(MethodConfig):
    """The runs that are merged."""

    fewest: ClassVar[int] = 1

    parents: Annotated[
        tuple[str, ...], Field(min_length=1, description="labels of the fine-tuned runs")
    ]
    over_seeds: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...] | None,
        Field(
            min_length=1,
            description="seeds of which each of these runs is taken, also ones that the suite does "
            "not have; null: the seed of the merge",
        ),
    ] = None

    @model_validator(mode="after")
    def _check_runs(self) -> Self:
        for name in ("parents", "over_seeds"):
            values = getattr(self, name) or ()
            if len(set(values)) < len(values):
                raise ValueError(f"{name} must differ from each other, got {list(values)}")
        if len(self.runs) < self.fewest:
            raise ValueError(f"needs at least {self.fewest} runs: more parents, or over_seeds")
        return self

    @property
    def runs(self) -> tuple[Parent, ...]:
        """Each of the runs, of every seed."""
        seeds = self.over_seeds or (None,)
        return tuple(Parent(label, seed) for label in self.parents for seed in seeds)

    def weights(self, derivation: Derivation) -> list[Weights]:
        """The weights of the runs, in their order."""
        return [derivation.parents[parent] for parent in self.runs]


class ScaledMergeConfig(MergeConfig):
    """The runs that are merged, and how much of the merged change is added."""

    scales: Annotated[
        tuple[Scale, ...],
        Field(min_length=1, description="λ of θ0 + λ · merged; each is a variant"),
    ] = tuple(i / 10 for i in range(1, 11))
    scale: Annotated[Scale, Field(description="the λ reported when nothing is selected")] = 1.0

    @model_validator(mode="after")
    def _check_scales(self) -> Self:
        if len(set(self.scales)) < len(self.scales):
            raise ValueError(f"scales must differ from each other, got {list(self.scales)}")
        if self.scale not in self.scales:
            raise ValueError(f"scale {self.scale} must be one of scales {list(self.scales)}")
        return self

    @classmethod
    def of_trial(cls, settings: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """A searched ``scale`` is the only one."""
        point = {"scales": [values["scale"]]} if "scale" in values else {}
        return {**settings, **values, **point}

    @property
    def points(self) -> dict[str, float]:
        """Every λ by the name of its variant, in the order of the configuration."""
        return {f"scale={scale}": scale for scale in self.scales}


S = TypeVar("S", bound=ScaledMergeConfig, covariant=True)


class ScaledMerge(DerivedMethod[S]):
    """A merge of several runs, with a variant for every scale."""

    def parents(self) -> tuple[Parent, ...]:
        """The fine-tuned runs, each of every seed."""
        return self.config.runs

    def variants(self) -> tuple[str, ...]:
        """One for every scale, in the order of the configuration."""
        return tuple(self.config.points)

    def fixed_variant(self) -> str:
        """The configured ``scale``."""
        return f"scale={self.config.scale}"
