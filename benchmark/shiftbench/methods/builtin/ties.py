"""TIES: merge only the large changes, and of these only the ones that agree in sign."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from shiftbench.methods.config import MethodConfig
from shiftbench.methods.merging import ScaledMerge, ScaledMergeConfig
from shiftbench.methods.search import LogUniform, Searched

if TYPE_CHECKING:
    from torch import Tensor

    from shiftbench.methods.base import Derivation, Weights
    from shiftbench.models.task_vectors import TaskVectors

Density = Annotated[float, Field(gt=0, le=1)]


class TiesConfig(ScaledMergeConfig):
    """The runs that are merged, how much of each stays, and the scales λ.

    20 % and λ = 1 are the paper's for when there is no validation set.
    """

    density: Annotated[
        Density,
        Field(description="share of each run's changes that stays: the largest of all weights"),
        Searched(LogUniform(low=0.01, high=1)),
    ] = 0.2


def trim_thresholds(vectors: TaskVectors, density: float) -> list[float]:
    """Of every model the smallest magnitude of a change that stays.

    All its scalars are ranked together, not those of each tensor. As in the released code that
    magnitude is the (k + 1)-th largest of N, k = ⌊density · N⌋, and what equals it stays too.
    """
    from shiftbench.models.sparse import kth_largest, selected_count

    rank = min(selected_count(density, vectors.size) + 1, vectors.size)
    return [
        kth_largest([vectors.one(i, name).abs() for name in vectors.names], rank)
        for i in range(len(vectors))
    ]


def trimmed(deltas: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Deltas (n, …) of n models, zero where they are smaller than a model's threshold."""
    import torch

    kept = [torch.where(d.abs() >= t, d, 0.0) for d, t in zip(deltas, thresholds, strict=True)]
    return torch.stack(kept)


def elected_mean(kept: Tensor, otherwise: Callable[[], float]) -> Tensor:
    """Mean, scalar by scalar, over the models whose change has the sign that was elected.

    Elected is the sign of the models' sum: of their votes, weighed by magnitude (algorithm 1).

    Args:
        kept: trimmed deltas (n, …).
        otherwise: gives the sign where changes cancel each other; negative if it is itself 0.
    """
    sign = kept.sum(0).sign()
    cancelled = (sign == 0) & kept.any(0)
    if cancelled.any():
        sign[cancelled] = otherwise()
    chosen = kept * ((kept > 0) == (sign > 0))
    mean: Tensor = chosen.sum(0) / (chosen != 0).sum(0).clamp(min=1)
    return mean


def ties(vectors: TaskVectors, density: float) -> Callable[[str], Tensor]:
    """The merged change of the tensor of a name, as a function of the name.

    Where kept changes cancel each other, elected is the sign that most scalars of all tensors have.
    Only then are the weights looked through for it.
    """
    thresholds = trim_thresholds(vectors, density)

    def kept(name: str) -> Tensor:
        return trimmed(vectors.of(name), thresholds)

    @functools.cache
    def majority() -> float:
        votes = sum(float(kept(name).sum(0).sign().sum()) for name in vectors.names)
        return float((votes > 0) - (votes < 0))

    return lambda name: elected_mean(kept(name), majority)


class Ties(ScaledMerge[TiesConfig]):
    """Trim, elect sign, merge: θ0 + λ · τ (Yadav et al. 2023, arXiv 2306.01708, algorithm 1).

    Of one run it is WiSE-FT with the small changes left out: a control for sparse fine-tuning.
    """

    name: ClassVar[str] = "ties"
    Config: ClassVar[type[MethodConfig]] = TiesConfig
    seeded: bool = False

    def derive(self, variant: str, derivation: Derivation) -> Weights:
        """The zero-shot weights and the scaled merged change."""
        from shiftbench.models.task_vectors import TaskVectors, added

        vectors = TaskVectors(derivation.zero_shot, self.config.weights(derivation))
        change = ties(vectors, self.config.density)
        return added(derivation.zero_shot, change, self.config.points[variant])
