"""CaRot: FLYP with projections held nearly orthogonal and a moving teacher's similarities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from shiftbench.methods.config import MethodConfig
from shiftbench.methods.search import LogUniform, Searched, Uniform
from shiftbench.methods.taught import TaughtByItsPast, TaughtConfig

if TYPE_CHECKING:
    from torch import Tensor

    from shiftbench.methods.base import Context
    from shiftbench.methods.contrastive import Pairs
    from shiftbench.models.classifier import ImageClassifier

Momentum = Annotated[float, Field(ge=0, le=1)]


class CarotConfig(TaughtConfig):
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


class Carot(TaughtByItsPast):
    """Calibrated robust fine-tuning (Oh et al. 2024, arXiv 2311.01723).

    To CLIP's loss on captions are added the norm of the product of both projections into the common
    space, that of PᵀP - I of the image tower's, and a cross-entropy to the similarities that a
    teacher sees in the batch. The teacher begins as the pretrained model and moves to the student
    at step 0 and every ``teacher_every`` steps, by 1 - m. With the published m = 0.05 at step 0 it
    follows the student rather than the pretrained model. The student is what is evaluated.
    """

    name: ClassVar[str] = "carot"
    Config: ClassVar[type[MethodConfig]] = CarotConfig
    config: CarotConfig

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Make the teacher."""
        super().prepare(model, context)
        self._steps = context.steps

    def compared(self, student: Pairs, teacher: Pairs) -> dict[str, tuple[float, Tensor]]:
        """The cross-entropy to the teacher's similarities."""
        loss = distillation_loss(student.logits(), teacher.logits())
        return {"distillation": (1.0, loss)}

    def share(self, step: int) -> float:
        """1 - m where a move is due, else 0."""
        done = step - 1  # the step just taken, counted from 0
        if done % self.config.teacher_every:
            return 0.0
        return 1 - momentum_at(done, self._steps, self.config.momentum, self.config.momentum_rise)
