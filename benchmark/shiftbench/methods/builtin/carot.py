"""CaRot: FLYP with projections held nearly orthogonal and a moving teacher's similarities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from shiftbench.methods.base import Architecture, TrainedMethod
from shiftbench.methods.config import MethodConfig
from shiftbench.methods.contrastive import ContrastiveConfig, contrastive_loss, gathered_pairs
from shiftbench.methods.objective import weighted_sum
from shiftbench.methods.projections import (
    cross_norm,
    image_projection,
    orthogonality,
    text_projection,
)
from shiftbench.methods.search import LogUniform, Searched, Uniform
from shiftbench.methods.teachers import Teacher

if TYPE_CHECKING:
    from torch import Tensor, nn

    from shiftbench.methods.base import Batch, Context
    from shiftbench.models.classifier import ImageClassifier

Momentum = Annotated[float, Field(ge=0, le=1)]


class CarotConfig(ContrastiveConfig):
    """Settings of the released script for ImageNet and ViT-B/16."""

    distillation: Annotated[
        float,
        Field(ge=0, description="λ of the cross-entropy to the teacher's similarities"),
        Searched(LogUniform(low=0.1, high=10)),
    ] = 1.5
    orthogonality: Annotated[
        float,
        Field(ge=0, description="λ of ‖PᵀP - I‖ of the image tower's projection"),
        Searched(Uniform(low=0, high=1)),
    ] = 0.2
    cross_norm: Annotated[
        float, Field(ge=0, description="λ of the norm of the product of both towers' projections")
    ] = 0.05
    teacher_every: Annotated[
        int, Field(ge=1, description="steps from one move of the teacher to the next")
    ] = 500
    momentum: Annotated[
        tuple[Momentum, Momentum],
        Field(description="what a move leaves of the teacher, at first and after the rise"),
    ] = (0.05, 0.9)
    momentum_rise: Annotated[
        float, Field(ge=0, le=1, description="part of the training in which momentum rises")
    ] = 0.2


def momentum_at(step: int, steps: int, ends: tuple[float, float], rise: float) -> float:
    """The m of the move after ``step`` (from 0) of ``steps``, a line between the ends.

    The line ends after ``rise`` of the steps; from there on it is the second end.
    """
    first, last = ends
    return first + (last - first) * step / (steps * rise) if step < steps * rise else last


def soft_cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """-Σ_j softmax(z'_ij) log softmax(z_ij), the mean over rows i, of logits z and z' (n, k)."""
    return -(teacher.softmax(dim=1) * student.log_softmax(dim=1)).sum(dim=1).mean()


def distillation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """``soft_cross_entropy`` over rows plus that over columns, as released: no mean of the two."""
    return soft_cross_entropy(student, teacher) + soft_cross_entropy(student.T, teacher.T)


class Carot(TrainedMethod[CarotConfig]):
    """Calibrated robust fine-tuning (Oh et al. 2024, arXiv 2311.01723).

    To CLIP's loss on captions are added the norm of the product of both projections into the common
    space, that of PᵀP - I of the image tower's, and a cross-entropy to the similarities that a
    teacher sees in the batch. The teacher begins as the pretrained model and moves to the student
    at step 0 and every ``teacher_every`` steps, by 1 - m. With the published m = 0.05 at step 0 it
    follows the student rather than the pretrained model. The student is what is evaluated.
    """

    name: ClassVar[str] = "carot"
    Config: ClassVar[type[MethodConfig]] = CarotConfig
    checked: ClassVar[tuple[str, ...] | None] = ()
    captions: bool = True
    whole_batch: bool = True

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
        self._steps = context.steps
        self._teacher = Teacher(model, text=True)

    def loss(self, model: ImageClassifier, batch: Batch) -> dict[str, Tensor]:
        """CLIP's loss of the global batch and the three terms.

        At step 0, when the teacher is the student, its term has no weight; it is computed, so that
        a step which is tried for its memory holds what all others do.
        """
        settings = self.config
        pairs, seen = gathered_pairs(model, batch), gathered_pairs(self._teacher, batch)
        of_image = image_projection(model.visual, self.name)
        of_text = text_projection(model.text_tower, self.name)
        terms = {
            "contrastive": contrastive_loss(*pairs),
            "cross_norm": cross_norm(of_image, of_text),
            "orthogonality": orthogonality(of_image),
            "distillation": distillation_loss(pairs.logits(), seen.logits()),
        }
        weights = {
            "contrastive": 1.0,
            "cross_norm": settings.cross_norm,
            "orthogonality": settings.orthogonality,
            "distillation": settings.distillation if batch.step > 0 else 0.0,
        }
        return weighted_sum(weights, terms) | {"temperature": pairs.scale.detach()}

    def after_step(self, model: ImageClassifier, step: int) -> None:
        """Move the teacher, where that is due."""
        done = step - 1  # the step just taken, counted from 0
        if done % self.config.teacher_every == 0:
            ends, rise = self.config.momentum, self.config.momentum_rise
            self._teacher.move(model, 1 - momentum_at(done, self._steps, ends, rise))

    def state(self) -> dict[str, Any]:
        """The teacher."""
        return {"teacher": self._teacher.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back the teacher."""
        self._teacher.restore(state["teacher"])
