"""Model soups: the average of several fine-tuned models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from shiftbench.methods.base import DerivedMethod, Parent
from shiftbench.methods.config import MethodConfig
from shiftbench.methods.merging import MergeConfig

if TYPE_CHECKING:
    from shiftbench.methods.base import Derivation, Weights


class SoupConfig(MergeConfig):
    """The runs that are averaged, and the recipe that selects among them."""

    fewest: ClassVar[int] = 2

    kind: Annotated[
        Literal["uniform", "greedy"],
        Field(description="all of them, or those that do not lower the ID-validation score"),
    ] = "greedy"


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
        return self.config.runs

    def selects(self) -> bool:
        """True of the greedy soup, whose ingredients ID validation decides."""
        return self.config.kind == "greedy"

    def derive(self, variant: str, derivation: Derivation) -> Weights:
        """The plain mean of all parents, or of the greedy soup's ingredients."""
        from shiftbench.models.weights import average

        thetas = self.config.weights(derivation)
        if self.config.kind == "greedy":
            thetas = [thetas[i] for i in greedy_ingredients(thetas, derivation.id_val)]
        return average(thetas)
