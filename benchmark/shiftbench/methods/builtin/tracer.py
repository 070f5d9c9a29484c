"""TRACER: FLYP that stays near the mean of all weights it has passed through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from shiftbench.methods.builtin.clipood import Beta, beta_shares
from shiftbench.methods.config import MethodConfig
from shiftbench.methods.search import LogUniform, Searched
from shiftbench.methods.taught import Taught, TaughtByItsPast, TaughtConfig

if TYPE_CHECKING:
    from torch import Tensor

    from shiftbench.methods.base import Context
    from shiftbench.methods.contrastive import Pairs
    from shiftbench.models.classifier import ImageClassifier

Part = Annotated[float, Field(ge=0)]


class SelfDistillationConfig(TaughtConfig):
    """Settings of the released script with Beta weights; the paper has a weight decay of 0.01."""

    distillation: Annotated[
        float,
        Field(ge=0, description="λ of the sum of the four terms that compare with the teacher"),
        Searched(LogUniform(low=0.05, high=5)),
    ] = 0.9
    features: Annotated[
        Part, Field(description="share of the mean square of feature differences in that sum")
    ] = 2000.0
    relations: Annotated[
        Part, Field(description="share of the divergence between similarities in that sum")
    ] = 1.0
    interactive: Annotated[
        Part, Field(description="share of the contrast with the teacher's counterparts in that sum")
    ] = 1.0
    crossed: Annotated[
        Part,
        Field(description="share of the divergence of similarities to the teacher's counterparts"),
    ] = 1.0


class TracerConfig(SelfDistillationConfig):
    """Settings of the released script with Beta weights; the paper has a weight decay of 0.01."""

    beta: Annotated[
        Beta, Field(description="of the weights Beta(β, β) of the teacher, see clipood")
    ] = 0.5


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(softmax(z') ‖ softmax(z)), the mean over rows of logits z' and z (n, k)."""
    from torch.nn.functional import kl_div

    return kl_div(
        student.log_softmax(dim=1), teacher.log_softmax(dim=1), reduction="batchmean",
        log_target=True,
    )  # fmt: skip


def compared_terms(student: Pairs, teacher: Pairs) -> dict[str, Tensor]:
    """The four terms, by the names of their shares.

    With features I, T and scale s of the student, primes for the teacher, z = s I Tᵀ, z' likewise:

    - ``features``: the mean squares of the entries of I - I' plus of T - T';
    - ``relations``: KL(z' ‖ z), mean of rows and columns;
    - ``interactive``: cross-entropies of s I T'ᵀ and s T I'ᵀ with the diagonal as targets, halved;
    - ``crossed``: KL(z' ‖ s I T'ᵀ) and KL(z'ᵀ ‖ s T I'ᵀ), halved.
    """
    import torch
    from torch.nn.functional import cross_entropy, mse_loss

    z, taught = student.logits(), teacher.logits()
    to_texts = student.logits(texts=teacher.texts)
    to_images = student._replace(images=student.texts).logits(texts=teacher.images)
    diagonal = torch.arange(len(z), device=z.device)
    return {
        "features": mse_loss(student.images, teacher.images)
        + mse_loss(student.texts, teacher.texts),
        "relations": (divergence(taught, z) + divergence(taught.T, z.T)) / 2,
        "interactive": (cross_entropy(to_texts, diagonal) + cross_entropy(to_images, diagonal)) / 2,
        "crossed": (divergence(taught, to_texts) + divergence(taught.T, to_images)) / 2,
    }


class SelfDistillation(Taught):
    """The four terms that TRACER compares with a teacher by."""

    config: SelfDistillationConfig

    def compared(self, student: Pairs, teacher: Pairs) -> dict[str, tuple[float, Tensor]]:
        """Those of ``compared_terms``."""
        terms = compared_terms(student, teacher)
        return {name: (getattr(self.config, name), term) for name, term in terms.items()}


class Tracer(SelfDistillation, TaughtByItsPast):
    """Trajectory-regularised fine-tuning (Asadollahzadeh et al. 2026, arXiv 2605.29380).

    To CLIP's loss on captions are added the norm of the product of both projections into the common
    space, as in ``carot``, and four terms that compare with a teacher: the mean over all weights
    from the pretrained to the present, with the weights of ``clipood``, which moves at every step.
    The student is what is evaluated.
    """

    name: ClassVar[str] = "tracer"
    Config: ClassVar[type[MethodConfig]] = TracerConfig
    config: TracerConfig

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Make the teacher and the shares by which it moves."""
        super().prepare(model, context)
        self._shares = beta_shares(context.steps, self.config.beta)

    def share(self, step: int) -> float:
        """The share of the present weights in the mean."""
        return float(self._shares[step])
