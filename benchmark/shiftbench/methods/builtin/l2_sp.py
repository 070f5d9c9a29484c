"""L2-SP: full fine-tuning that is pulled back to the pretrained weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from shiftbench.methods.anchors import Anchors
from shiftbench.methods.builtin.full import Full
from shiftbench.methods.config import MethodConfig, TrainingConfig

if TYPE_CHECKING:
    from torch import Tensor

    from shiftbench.methods.base import Batch, Context
    from shiftbench.models.classifier import ImageClassifier


class L2SpConfig(TrainingConfig):
    """Settings of full fine-tuning, and the strength of the pull."""

    strength: Annotated[
        float, Field(ge=0, description="λ of λ · Σ (θ - θ0)², summed over all weights")
    ] = 0.01
    include_head: Annotated[bool, Field(description="regularise the head too")] = False


def squared_distance(weights: Iterable[Tensor], anchor: Iterable[Tensor]) -> Tensor:
    """Σ (θ - θ0)² over all scalars of all tensors, unscaled."""
    import torch

    pairs = zip(weights, anchor, strict=True)
    return torch.stack([(theta - theta0).square().sum() for theta, theta0 in pairs]).sum()


class L2Sp(Full):
    """Cross-entropy plus a pull to the pretrained weights (Li et al. 2018, arXiv 1802.01483)."""

    name: ClassVar[str] = "l2-sp"
    Config: ClassVar[type[MethodConfig]] = L2SpConfig
    config: L2SpConfig
    shardable: bool = False

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Keep copies of the pretrained weights that train."""
        self._anchors = Anchors(model, head=self.config.include_head)

    def loss(self, model: ImageClassifier, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy + λ · Σ (θ - θ0)²."""
        cross_entropy = super().loss(model, batch)["loss"]
        distance = squared_distance(self._anchors.parameters(model), self._anchors.values.values())
        return {
            "loss": cross_entropy + self.config.strength * distance,
            "cross_entropy": cross_entropy,
            "squared_distance": distance,
        }
