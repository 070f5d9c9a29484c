"""DARE: drop changes at random and rescale the rest, then merge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from shiftbench.methods.builtin.ties import Density, ties
from shiftbench.methods.config import MethodConfig
from shiftbench.methods.merging import Scale, ScaledMerge, ScaledMergeConfig
from shiftbench.methods.search import LogUniform, Searched

if TYPE_CHECKING:
    from torch import Tensor

    from shiftbench.methods.base import Derivation, Weights


class DareConfig(ScaledMergeConfig):
    """The runs that are merged, the share of their changes that stays, and how they are merged.

    A tenth stays, as where the paper merges; it tries shares down to a hundredth.
    """

    scale: Annotated[Scale, Field(description="the λ reported when nothing is selected")] = 0.4
    density: Annotated[
        Density,
        Field(description="probability that a scalar's change stays, as 1/density of it"),
        Searched(LogUniform(low=0.01, high=1)),
    ] = 0.1
    merge: Annotated[
        Literal["task-arithmetic", "ties"],
        Field(description="the sum of what is left, or TIES of it"),
    ] = "task-arithmetic"
    trim: Annotated[Density, Field(description="the density of TIES")] = 0.2


def dropped(delta: Tensor, density: float, seed: tuple[int, ...]) -> Tensor:
    """Delta · m / density with m ~ Bernoulli(density), scalar by scalar; its mean is delta.

    Args:
        delta: any shape.
        density: probability that a scalar stays.
        seed: the same one drops the same scalars, on every device.
    """
    import numpy as np
    import torch

    state = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]) >> 1
    generator = torch.Generator().manual_seed(state)
    stays = torch.rand(delta.shape, generator=generator) < density
    return torch.where(stays.to(delta.device), delta / density, 0.0)


class Dare(ScaledMerge[DareConfig]):
    """Drop and rescale, before task arithmetic or TIES (Yu et al. 2024, arXiv 2311.03099).

    What is dropped is drawn anew for every seed of the suite and every run that is merged; all
    scales of a seed share it.
    """

    name: ClassVar[str] = "dare"
    Config: ClassVar[type[MethodConfig]] = DareConfig

    def derive(self, variant: str, derivation: Derivation) -> Weights:
        """The zero-shot weights and the scaled merged change."""
        from shiftbench.models.task_vectors import TaskVectors, added

        config, seed = self.config, derivation.seed

        class Dropped(TaskVectors):
            """What is left of the differences."""

            def one(self, i: int, name: str) -> Tensor:
                place = (seed, i, self.names.index(name))
                return dropped(super().one(i, name), config.density, place)

        left = Dropped(derivation.zero_shot, config.weights(derivation))
        change = ties(left, config.trim) if config.merge == "ties" else lambda n: left.of(n).sum(0)
        return added(derivation.zero_shot, change, config.points[variant])
