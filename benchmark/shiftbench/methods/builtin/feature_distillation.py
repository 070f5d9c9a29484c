"""Feature distillation: fine-tuning whose features stay near the pretrained model's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from shiftbench.methods.builtin.full import Full
from shiftbench.methods.config import MethodConfig, TrainingConfig
from shiftbench.methods.objective import cross_entropy
from shiftbench.methods.search import LogUniform, Searched
from shiftbench.methods.teachers import Teacher

if TYPE_CHECKING:
    from torch import Tensor

    from shiftbench.methods.base import Batch, Context
    from shiftbench.models.classifier import ImageClassifier


class FeatureDistillationConfig(TrainingConfig):
    """Settings of full fine-tuning, which are the paper's too, and the strength."""

    strength: Annotated[
        float,
        Field(ge=0, description="λ of λ · mean (f - f0)², over all entries of all features"),
        Searched(LogUniform(low=0.3, high=3000)),
    ] = 30.0


class FeatureDistillation(Full):
    """Cross-entropy plus the mean square distance of features, on the images as they are.

    The baseline FT_FD of Xiao et al. 2023 (arXiv 2303.03052). Features are compared as the image
    tower gives them, before they are normalised.
    """

    name: ClassVar[str] = "feature-distillation"
    Config: ClassVar[type[MethodConfig]] = FeatureDistillationConfig
    config: FeatureDistillationConfig

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Copy the image tower."""
        self._teacher = Teacher(model)

    def loss(self, model: ImageClassifier, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy + λ · mean square distance."""
        from torch.nn.functional import mse_loss, normalize

        features = model.encode_image(batch.inputs)
        distance = mse_loss(features, self._teacher.encode_image(batch.inputs))
        logits = model.classify(normalize(features, dim=-1))
        own = cross_entropy(logits, batch.labels, self.config.label_smoothing)
        loss = own + self.config.strength * distance
        return {"loss": loss, "cross_entropy": own, "feature_distance": distance}
