"""Model soups: the average of several fine-tuned models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from shiftbench.methods.base import Inputs, Method, MethodConfig

if TYPE_CHECKING:
    from shiftbench.methods.base import Weights


class SoupConfig(MethodConfig):
    """Which runs are averaged, and how they are chosen."""

    parents: Annotated[
        tuple[str, ...], Field(min_length=2, description="labels of the fine-tuned runs")
    ]
    kind: Annotated[
        Literal["uniform", "greedy"],
        Field(description="all of them, or those that do not lower the ID-validation score"),
    ] = "greedy"

    @model_validator(mode="after")
    def _check_parents(self) -> Self:
        if len(set(self.parents)) < len(self.parents):
            raise ValueError(f"parents must differ from each other, got {list(self.parents)}")
        return self


def greedy_ingredients(
    candidates: Sequence[Weights], score: Callable[[Weights], float]
) -> list[int]:
    """Positions of the ingredients of a greedy soup, in the order in which they were taken.

    From the best candidate down (the earlier one where two tie), each stays in the average if the
    score does not fall (Wortsman et al. 2022, recipe 1). Each candidate is scored once alone and,
    but for the first, once in an average.
    """
    from shiftbench.models.weights import average

    alone = [score(candidate) for candidate in candidates]
    first, *others = sorted(range(len(candidates)), key=lambda i: -alone[i])
    taken, best = [first], alone[first]
    for i in others:
        together = score(average([candidates[j] for j in [*taken, i]]))
        if together >= best:
            taken, best = [*taken, i], together
    return taken


class Soup(Method[SoupConfig]):
    """Uniform or greedy soup (Wortsman et al. 2022, arXiv 2203.05482, sec. 2)."""

    name: ClassVar[str] = "soup"
    Config: ClassVar[type[MethodConfig]] = SoupConfig
    inputs: Inputs | None = "weights"
    seeded: bool = False

    def parents(self) -> tuple[str, ...]:
        """The fine-tuned runs."""
        return self.config.parents

    def combine(
        self,
        zero_shot: Weights,
        parents: Mapping[str, Weights],
        id_val: Callable[[Weights], float],
    ) -> Weights:
        """The plain mean of all parents, or of the greedy soup's ingredients."""
        from shiftbench.models.weights import average

        thetas = [parents[label] for label in self.config.parents]
        if self.config.kind == "greedy":
            thetas = [thetas[i] for i in greedy_ingredients(thetas, id_val)]
        return average(thetas)
