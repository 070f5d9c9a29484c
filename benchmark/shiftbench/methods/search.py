"""Hyper-parameter searches: their settings, search spaces and results."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Generic, Literal, Self, TypeAlias, TypeVar

from pydantic import Field, model_validator

from shiftbench.methods.config import MethodConfig

M = TypeVar("M", covariant=True)


class SearchConfig(MethodConfig):
    """Settings of a search on OOD validation data; defaults are AutoFT's (arXiv 2401.10220)."""

    n_trials: Annotated[
        int,
        Field(ge=0, description="trials; 0: one configuration is drawn and used without a trial"),
    ] = 500
    inner_steps: Annotated[int, Field(ge=1, description="most training steps of a trial")] = 10
    sampler: Annotated[
        Literal["tpe", "tpe-independent", "random"],
        Field(
            description="algorithm that proposes the next trial: TPE of all settings jointly and "
            "aware of trials under way, TPE with Optuna's defaults (each by itself), or none"
        ),
    ] = "tpe"
    n_startup_trials: Annotated[int, Field(ge=1, description="random trials before TPE begins")] = (
        10
    )
    scheduler: Annotated[
        Literal["asha", "none"],
        Field(description="asha stops bad trials early; none trains all to the end"),
    ] = "asha"
    rungs: Annotated[
        int, Field(ge=1, description="most times that asha scores a trial; none does so once")
    ] = 3
    reduction_factor: Annotated[
        int,
        Field(
            ge=2, description="η: each rung keeps the top 1/η, and the next trains η times longer"
        ),
    ] = 3
    finalists: Annotated[
        int, Field(ge=0, description="best trials that are repeated on fresh seeds; 0: none")
    ] = 5
    repeats: Annotated[int, Field(ge=1, description="fresh seeds for each finalist")] = 3
    seed: Annotated[int, Field(ge=0, description="seed of the sampler")] = 0
    per_seed: Annotated[
        bool,
        Field(description="one search for every seed of the suite, instead of one for all seeds"),
    ] = False

    def milestones(self) -> tuple[int, ...]:
        """Training steps after which a trial is scored: ⌈S / ηᵏ⌉ for k = rungs - 1, …, 0.

        Without a scheduler nobody looks before the end, so that is the only one.
        """
        if self.scheduler == "none":
            return (self.inner_steps,)
        steps = (
            math.ceil(self.inner_steps / self.reduction_factor**k)
            for k in reversed(range(self.rungs))
        )
        return tuple(dict.fromkeys(steps))


class _Range(MethodConfig):
    low: float
    high: float

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        return self


class Uniform(_Range):
    """A setting drawn from [low, high]."""

    kind: Literal["uniform"] = "uniform"


class LogUniform(_Range):
    """A setting whose logarithm is drawn uniformly."""

    kind: Literal["log-uniform"] = "log-uniform"
    low: Annotated[float, Field(gt=0)]


class Integer(_Range):
    """A whole number from low to high, both included."""

    kind: Literal["integer"] = "integer"
    low: int
    high: int


class Choice(MethodConfig):
    """One of some values."""

    kind: Literal["choice"] = "choice"
    values: Annotated[tuple[str | int | float | bool, ...], Field(min_length=2)]


Domain: TypeAlias = Annotated[Uniform | LogUniform | Integer | Choice, Field(discriminator="kind")]
Values: TypeAlias = Mapping[str, str | float | int | bool]
"""One trial's hyper-parameters: a value for every setting of the search space."""


@dataclass(frozen=True)
class Searched:
    """Where a search looks for a setting of a method, unless the suite says otherwise.

    A part of the setting's annotation, of which nothing but ``tuned`` takes notice::

        class SmoothConfig(TrainingConfig):
            temperature: Annotated[float, Searched(LogUniform(low=0.5, high=8))] = 2.0

    Attributes:
        domain: where; all of its values must be valid.
    """

    domain: Uniform | LogUniform | Integer | Choice


def searched_settings(config: type[MethodConfig]) -> dict[str, Domain]:
    """The settings whose annotations say where a search looks for them, in their order."""
    return {
        name: mark.domain
        for name, field in config.model_fields.items()
        for mark in field.metadata
        if isinstance(mark, Searched)
    }


@dataclass(frozen=True)
class Search(Generic[M]):
    """A search over a space of settings, and the method that a point of that space stands for.

    Attributes:
        config: length, sampler and scheduler of the search.
        space: domain of every setting, by name.
        candidate: the method that trains with some values. The value called ``seed``, if the space
            has one, is the seed of the trial's data order.
        export: values as YAML that a suite can hold or load.
    """

    config: SearchConfig
    space: Mapping[str, Domain]
    candidate: Callable[[Values], M]
    export: Callable[[Values], str]
