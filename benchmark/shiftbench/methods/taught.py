"""FLYP with a teacher: what CaRot, TRACER and static self-distillation have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from shiftbench.methods.base import Architecture, TrainedMethod
from shiftbench.methods.contrastive import ContrastiveConfig, contrastive_loss, gathered_pairs
from shiftbench.methods.objective import weighted_sum
from shiftbench.methods.projections import (
    cross_norm,
    image_projection,
    orthogonality,
    text_projection,
)
from shiftbench.methods.teachers import Teacher

if TYPE_CHECKING:
    from torch import Tensor, nn

    from shiftbench.methods.base import Batch, Context
    from shiftbench.methods.contrastive import Pairs
    from shiftbench.models.classifier import ImageClassifier


class TaughtConfig(ContrastiveConfig):
    """Settings of a training on captions, and the weights of what is added to its loss."""

    distillation: Annotated[
        float, Field(ge=0, description="λ of the terms that compare with the teacher")
    ] = 1.0
    orthogonality: Annotated[
        float, Field(ge=0, description="λ of ‖PᵀP - I‖ of the image tower's projection")
    ] = 0.0
    cross_norm: Annotated[
        float, Field(ge=0, description="λ of the norm of the product of both towers' projections")
    ] = 0.05


class Taught(TrainedMethod[TaughtConfig]):
    """CLIP's loss on captions, terms of both projections, and terms that compare with a teacher.

    The teacher begins as the pretrained model and stays that.
    """

    checked: ClassVar[tuple[str, ...] | None] = ()
    captions: bool = True
    whole_batch: bool = True

    @abstractmethod
    def compared(self, student: Pairs, teacher: Pairs) -> dict[str, tuple[float, Tensor]]:
        """The terms that compare two models' views of a batch, each with its share, by name."""

    def architecture(self) -> Architecture:
        """Both towers; the head follows from the text tower."""
        return Architecture(text=True, head="text")

    def check(self, tower: Callable[[], nn.Module]) -> None:
        """See that the image tower ends with a projection."""
        image_projection(tower(), self.name)

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Make the teacher, and see that both towers end with a projection."""
        image_projection(model.visual, self.name)
        text_projection(model.text_tower, self.name)
        self._teacher = Teacher(model, text=True)

    def loss(self, model: ImageClassifier, batch: Batch) -> dict[str, Tensor]:
        """CLIP's loss of the global batch and the other terms.

        At step 0, when the teacher is the student, its terms have no weight; they are computed, so
        that a step which is tried for its memory holds what all others do.
        """
        settings = self.config
        pairs, seen = gathered_pairs(model, batch), gathered_pairs(self._teacher, batch)
        of_image = image_projection(model.visual, self.name)
        of_text = text_projection(model.text_tower, self.name)
        found = {
            "contrastive": (1.0, contrastive_loss(*pairs)),
            "cross_norm": (settings.cross_norm, cross_norm(of_image, of_text)),
        }
        if settings.orthogonality > 0:
            found["orthogonality"] = settings.orthogonality, orthogonality(of_image)
        taught = settings.distillation if batch.step > 0 else 0.0
        for name, (share, term) in self.compared(pairs, seen).items():
            found[name] = taught * share, term
        weights = {name: weight for name, (weight, _) in found.items()}
        terms = {name: term for name, (_, term) in found.items()}
        return weighted_sum(weights, terms) | {"temperature": pairs.scale.detach()}


class TaughtByItsPast(Taught):
    """The same with a teacher that moves towards the student."""

    @abstractmethod
    def share(self, step: int) -> float:
        """By how much of its way to the student the teacher moves after ``step`` steps."""

    def after_step(self, model: ImageClassifier, step: int) -> None:
        """Move the teacher."""
        if share := self.share(step):
            self._teacher.move(model, share)

    def state(self) -> dict[str, Any]:
        """The teacher."""
        return {"teacher": self._teacher.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back the teacher."""
        self._teacher.restore(state["teacher"])
