"""Linear probe: only the head trains, on features of the frozen image tower."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from shiftbench.methods.base import Inputs, TrainedMethod
from shiftbench.methods.config import MethodConfig, TrainingConfig

if TYPE_CHECKING:
    from torch import Tensor

    from shiftbench.methods.base import Batch, Context
    from shiftbench.models.classifier import ImageClassifier


class LinearProbeConfig(TrainingConfig):
    """As for every training; a head alone takes a larger step.

    WiSE-FT searches the rate (10^-u, u uniform in [0, 6], App. D.3); 1e-3 lies in the middle.
    """

    lr: Annotated[float, Field(gt=0, description="peak learning rate of AdamW")] = 1e-3
    train_head: Annotated[
        Literal[True], Field(exclude_if=lambda value: value, description="nothing else trains")
    ] = True


class LinearProbe(TrainedMethod[LinearProbeConfig]):
    """The zero-shot head, trained alone on cached un-augmented features (WiSE-FT, App. D.3)."""

    name: ClassVar[str] = "linear-probe"
    Config: ClassVar[type[MethodConfig]] = LinearProbeConfig
    inputs: Inputs = "features"

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Freeze the image tower."""
        model.visual.requires_grad_(False)

    def loss(self, model: ImageClassifier, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the head on features (n, width)."""
        from torch.nn.functional import cross_entropy

        smoothing = self.config.label_smoothing
        logits = model.classify(batch.inputs)
        return {"loss": cross_entropy(logits, batch.labels, label_smoothing=smoothing)}
