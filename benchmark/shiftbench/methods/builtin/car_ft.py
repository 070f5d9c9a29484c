"""CAR-FT: fine-tuning that keeps what the pretrained model says of an image's context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from shiftbench.methods.base import Architecture
from shiftbench.methods.builtin.full import Full
from shiftbench.methods.config import MethodConfig, TrainingConfig
from shiftbench.methods.objective import cross_entropy
from shiftbench.methods.search import LogUniform, Searched
from shiftbench.methods.teachers import Teacher

if TYPE_CHECKING:
    from torch import Tensor

    from shiftbench.methods.base import Batch, Context
    from shiftbench.models.classifier import ImageClassifier


class CarFtConfig(TrainingConfig):
    """Settings of full fine-tuning, and the strength; the paper's has not been verified."""

    strength: Annotated[
        float,
        Field(ge=0, description="λ of λ · KL(contexts by θ0 ‖ contexts by θ)"),
        Searched(LogUniform(low=0.1, high=1000)),
    ] = 1.0


def context_embeddings(model: ImageClassifier) -> Tensor:
    """One row for every template, (templates, width): its mean over all classes, normalised."""
    import torch
    from torch.nn.functional import normalize

    if model.prompts is None:
        raise TypeError("this model has no prompts")
    with torch.no_grad():
        rows = [model.class_embeddings(template).mean(0) for template in range(len(model.prompts))]
        return normalize(torch.stack(rows), dim=-1)


def context_divergence(
    features: Tensor, pretrained: Tensor, contexts: Tensor, scale: Tensor | float
) -> Tensor:
    """Mean over examples of KL(softmax(s · f0 Cᵀ) ‖ softmax(s · f Cᵀ)); in fp32 at least.

    Args:
        features: f, normalised (n, width).
        pretrained: f0, normalised (n, width).
        contexts: C, normalised (templates, width).
        scale: s.
    """
    import torch
    from torch.nn.functional import kl_div

    with torch.autocast(features.device.type, enabled=False):
        log_p, log_p0 = (
            (scale * of @ contexts.T).log_softmax(dim=1) for of in (features, pretrained)
        )
        return kl_div(log_p, log_p0, log_target=True, reduction="batchmean")


class CarFt(Full):
    """Context-aware robust fine-tuning (Mao et al. 2022, arXiv 2211.16175).

    An image's context is a distribution over the task's templates: the softmax of its similarity to
    each, averaged over classes, times the pretrained temperature. With few templates there is
    little to keep. The text tower stays as it is. There is no released code; third parties'
    leaves out the temperature, with which the divergence is next to nothing.
    """

    name: ClassVar[str] = "car-ft"
    Config: ClassVar[type[MethodConfig]] = CarFtConfig
    config: CarFtConfig

    def architecture(self) -> Architecture:
        """A linear head, and the text tower for the contexts."""
        return Architecture(text=True)

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Encode the contexts, freeze the text tower and copy the image tower."""
        model.text_tower.requires_grad_(False)
        self._contexts = context_embeddings(model)
        self._scale = model.temperature.detach().clone()
        self._teacher = Teacher(model)

    def loss(self, model: ImageClassifier, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy + λ · the divergence of contexts."""
        features = model.features(batch.inputs)
        pretrained = self._teacher.features(batch.inputs)
        divergence = context_divergence(features, pretrained, self._contexts, self._scale)
        own = cross_entropy(model.classify(features), batch.labels, self.config.label_smoothing)
        loss = own + self.config.strength * divergence
        return {"loss": loss, "cross_entropy": own, "context_divergence": divergence}
