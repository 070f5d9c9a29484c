"""FLYP: fine-tune like you pretrain, with the contrastive loss on captions that name the class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from shiftbench.methods.base import Architecture, TrainedMethod
from shiftbench.methods.config import MethodConfig
from shiftbench.methods.contrastive import (
    ContrastiveConfig,
    Duplicates,
    batch_contrastive_loss,
)

if TYPE_CHECKING:
    from torch import Tensor

    from shiftbench.methods.base import Batch
    from shiftbench.models.classifier import ImageClassifier


class FlypConfig(ContrastiveConfig):
    """FLYP's settings (its README); its weight decay is 0.2 on iWildCam and FMoW."""

    checkpoint: Annotated[
        Literal["last", "id-val"],
        Field(description="the epoch whose weights are kept: the last, or the best on id-val"),
    ] = "id-val"
    duplicates: Annotated[
        Duplicates,
        Field(
            description="other examples of the same class in a batch: negatives (keep, as "
            "published), left out (mask), or positives of equal weight (soft)"
        ),
    ] = "keep"


class Flyp(TrainedMethod[FlypConfig]):
    """Both towers and the temperature, with CLIP's loss (Goyal et al. 2023, arXiv 2212.00638).

    The temperature trains unclamped. There is no head to train: classes are told by their
    embeddings, which the fine-tuned text tower computes anew. The published ensemble with the
    zero-shot model is the method ``wise-ft`` with this run as its parent.
    """

    name: ClassVar[str] = "flyp"
    Config: ClassVar[type[MethodConfig]] = FlypConfig
    captions: bool = True
    whole_batch: bool = True
    shardable: bool = True

    def architecture(self) -> Architecture:
        """Both towers; the head follows from the text tower."""
        return Architecture(text=True, head="text")

    def loss(self, model: ImageClassifier, batch: Batch) -> dict[str, Tensor]:
        """The contrastive loss of the global batch."""
        features = model.features(batch.inputs)
        loss = batch_contrastive_loss(model, batch, features, self.config.duplicates)
        return {"loss": loss, "temperature": model.temperature.detach()}
