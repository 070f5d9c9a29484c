"""Model soups: the average of several fine-tuned models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from shiftbench.methods.base import DerivedMethod, Parent
from shiftbench.methods.config import MethodConfig

if TYPE_CHECKING:
    from shiftbench.methods.base import Derivation, Weights


class SoupConfig(MethodConfig):
    """The runs that are averaged, and the recipe that selects among them."""

    parents: Annotated[
        tuple[str, ...], Field(min_length=1, description="labels of the fine-tuned runs")
    ]
    over_seeds: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...] | None,
        Field(
            min_length=1,
            description="seeds of which each of these runs is averaged, also ones that the suite "
            "does not have; null: the seed of the soup",
        ),
    ] = None
    kind: Annotated[
        Literal["uniform", "greedy"],
        Field(description="all of them, or those that do not lower the ID-validation score"),
    ] = "greedy"

    @model_validator(mode="after")
    def _check_parents(self) -> Self:
        for name in ("parents", "over_seeds"):
            values = getattr(self, name) or ()
            if len(set(values)) < len(values):
                raise ValueError(f"{name} must differ from each other, got {list(values)}")
        if len(self.parents) * len(self.over_seeds or (None,)) < 2:
            raise ValueError("a soup needs at least 2 runs: more parents, or over_seeds")
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


class Soup(DerivedMethod[SoupConfig]):
    """Uniform or greedy soup (Wortsman et al. 2022, arXiv 2203.05482, sec. 2).

    Over the seeds of one run, the uniform soup is that of DiWA (arXiv 2205.09739). Running
    statistics of batch norm are averaged like weights, not computed anew; parents with
    ``batch_norm: frozen`` all have the pretrained ones, and so has the soup.
    """

    name: ClassVar[str] = "soup"
    Config: ClassVar[type[MethodConfig]] = SoupConfig
    kept: bool = True
    seeded: bool = False

    def parents(self) -> tuple[Parent, ...]:
        """The fine-tuned runs, each of every seed."""
        seeds = self.config.over_seeds or (None,)
        return tuple(Parent(label, seed) for label in self.config.parents for seed in seeds)

    def selects(self) -> bool:
        """True of the greedy soup, whose ingredients ID validation decides."""
        return self.config.kind == "greedy"

    def derive(self, variant: str, derivation: Derivation) -> Weights:
        """The plain mean of all parents, or of the greedy soup's ingredients."""
        from shiftbench.models.weights import average

        thetas = [derivation.parents[parent] for parent in self.parents()]
        if self.config.kind == "greedy":
            thetas = [thetas[i] for i in greedy_ingredients(thetas, derivation.id_val)]
        return average(thetas)
