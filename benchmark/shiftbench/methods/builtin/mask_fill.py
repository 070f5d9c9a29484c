"""Mask-Fill: features of images with patches of others are kept near the pretrained model's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from shiftbench.core.errors import RunFailedError
from shiftbench.methods.builtin.feature_distillation import (
    FeatureDistillation,
    FeatureDistillationConfig,
)
from shiftbench.methods.config import MethodConfig
from shiftbench.methods.contrastive import gather
from shiftbench.methods.objective import cross_entropy
from shiftbench.methods.relevance import check_attention, patch_relevance

if TYPE_CHECKING:
    from torch import Tensor, nn

    from shiftbench.methods.base import Batch, Context
    from shiftbench.models.classifier import ImageClassifier


class MaskFillConfig(FeatureDistillationConfig):
    """Settings of feature distillation, and which patches another image fills."""

    mask: Annotated[
        Literal["object", "context", "random"],
        Field(
            description="patches that speak for the label by the attention of the model as it "
            "trains, the others, or some at random"
        ),
    ] = "object"
    threshold: Annotated[
        float,
        Field(ge=0, lt=1, description="share of an image's greatest relevance (object, context)"),
    ] = 0.3
    probability: Annotated[
        float, Field(ge=0, le=1, description="of a patch to be filled (random)")
    ] = 0.5


def patch_size(tower: nn.Module) -> int:
    """Pixels a side of the patches of a vision transformer.

    Raises:
        RunFailedError: the tower does not begin with patches.
    """
    from torch import nn

    first = next((m for m in tower.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None or first.kernel_size != first.stride or len({*first.stride}) > 1:
        kind = type(getattr(tower, "trunk", tower)).__name__
        raise RunFailedError(f"mask-fill: the image tower {kind} does not cut images into patches")
    return int(first.stride[0])


def filled(images: Tensor, donors: Tensor, mask: Tensor) -> Tensor:
    """Images whose patches are those of their donors where the mask is true.

    Args:
        images: (n, 3, size, size).
        donors: the same shape.
        mask: (n, rows, columns) bool, of patches.
    """
    import torch
    from torch.nn.functional import interpolate

    pixels = interpolate(mask[:, None].to(images.dtype), images.shape[2:], mode="nearest")
    return torch.where(pixels > 0, donors, images)


class MaskFill(FeatureDistillation):
    """Feature distillation on masked images (Xiao et al. 2023, arXiv 2303.03052), single-fill.

    Every image of the global batch gives its place to another's patches, by a permutation drawn
    from the run's seed and the step. Cross-entropy is of the images as they are.
    """

    name: ClassVar[str] = "mask-fill"
    Config: ClassVar[type[MethodConfig]] = MaskFillConfig
    checked: ClassVar[tuple[str, ...] | None] = ("mask",)
    config: MaskFillConfig
    shardable: bool = False
    whole_batch: bool = True

    def check(self, tower: Callable[[], nn.Module]) -> None:
        """See that the tower has patches, and attention where that tells which are filled."""
        built = tower()
        patch_size(built)
        if self.config.mask != "random":
            check_attention(built)

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Copy the image tower."""
        super().prepare(model, context)
        self._patch = patch_size(model.visual)
        self._seed, self._place = context.seed, context.place

    def loss(self, model: ImageClassifier, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy + λ · mean square distance of masked images' features."""
        from torch.nn.functional import mse_loss

        images = self._masked(model, batch)
        distance = mse_loss(model.encode_image(images), self._teacher.encode_image(images))
        own = cross_entropy(model(batch.inputs), batch.labels, self.config.label_smoothing)
        loss = own + self.config.strength * distance
        return {"loss": loss, "cross_entropy": own, "feature_distance": distance}

    def _masked(self, model: ImageClassifier, batch: Batch) -> Tensor:
        """This worker's images, each with patches of another of the global batch."""
        import numpy as np
        import torch

        images = batch.inputs
        n, rows, columns = len(images), *(side // self._patch for side in images.shape[2:])
        everyone = gather(images)
        mine = slice(self._place.rank * n, (self._place.rank + 1) * n)
        draw = np.random.default_rng([self._seed, batch.step])
        donors = torch.from_numpy(draw.permutation(len(everyone))[mine]).to(images.device)
        if self.config.mask == "random":
            chances = draw.random((len(everyone), rows, columns))[mine]
            mask = torch.from_numpy(chances < self.config.probability).to(images.device)
        else:
            relevance = patch_relevance(model, images, batch.labels)
            mask = (relevance > self.config.threshold).view(n, rows, columns)
            mask = ~mask if self.config.mask == "context" else mask
        return filled(images, everyone[donors], mask)
