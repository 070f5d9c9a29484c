"""Full fine-tuning: every weight of the image tower and the head, with cross-entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from shiftbench.methods.base import TrainedMethod
from shiftbench.methods.config import MethodConfig, TrainingConfig

if TYPE_CHECKING:
    from torch import Tensor

    from shiftbench.methods.base import Batch
    from shiftbench.models.classifier import ImageClassifier


class Full(TrainedMethod[TrainingConfig]):
    """End-to-end cross-entropy from the zero-shot head (WiSE-FT, arXiv 2109.01903, sec. 3)."""

    name: ClassVar[str] = "full"
    Config: ClassVar[type[MethodConfig]] = TrainingConfig
    shardable: bool = True

    def loss(self, model: ImageClassifier, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy, (1 - s) · NLL + s · mean over classes of -log p with smoothing s."""
        from torch.nn.functional import cross_entropy

        smoothing = self.config.label_smoothing
        return {"loss": cross_entropy(model(batch.inputs), batch.labels, label_smoothing=smoothing)}
