"""CLIPood: a margin that knows which classes are alike, and a mean of all weights on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from shiftbench.methods.builtin.ema import Averaging
from shiftbench.methods.config import MethodConfig, TrainingConfig
from shiftbench.methods.search import LogUniform, Searched, Uniform

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from shiftbench.methods.base import Batch, Context
    from shiftbench.models.classifier import ImageClassifier

Beta = Annotated[float, Field(gt=0, le=1), Searched(LogUniform(low=0.05, high=1))]


class ClipoodConfig(TrainingConfig):
    """Settings of the released code; its epochs have 500 steps each, whatever the data."""

    lr: Annotated[float, Field(gt=0, description="peak learning rate of AdamW")] = 5e-6
    batch_size: Annotated[int, Field(ge=1, description="global batch, over all workers")] = 36
    warmup_steps: Annotated[int, Field(ge=0, description="linear warm-up, in steps")] = 0
    max_grad_norm: Annotated[
        float | None, Field(gt=0, description="global gradient norm; null: off")
    ] = None
    train_head: Annotated[
        Literal[False], Field(description="the head stays the zero-shot one, of which margins are")
    ] = False
    margin: Annotated[
        float,
        Field(ge=0, description="λ of the part of its own class's text that a feature loses"),
        Searched(Uniform(low=0, high=1)),
    ] = 0.3
    beta: Annotated[
        Beta,
        Field(
            description="of the weights Beta(β, β) of the mean: the smaller, the more its ends "
            "count; 1: a plain mean. Released: 0.5 under domain shift, 0.1 for open classes"
        ),
    ] = 0.5


def beta_shares(steps: int, beta: float) -> npt.NDArray[np.float64]:
    """Shares of the newest weights θ_t in a mean of θ_0, …, θ_T, for t = 0, …, T = ``steps``.

    The density of Beta(β, β) at (t + ½) / (T + 1) is the weight w_t of θ_t, so the mean moves by
    w_t / (w_0 + … + w_t) of the way to θ_t. At t = 0 that is all of it.
    """
    at = (np.arange(steps + 1) + 0.5) / (steps + 1)
    weights = (at * (1 - at)) ** (beta - 1)  # up to a constant, which shares do not have
    shares: npt.NDArray[np.float64] = weights / weights.cumsum()
    return shares


class Clipood(Averaging):
    """Margin metric softmax and Beta moving average (Shu et al. 2023, arXiv 2302.00864).

    Of an image's feature f a part λ of the embedding t_y of its own class is subtracted, so that
    logits are τ · (f - λ t_y) · t: the true class loses most, and others as far as they resemble
    it. The mean over all weights from the pretrained to the last is what is evaluated. The released
    code has one template, where the head has the task's, and rounds weights to fp16 at every step.
    """

    name: ClassVar[str] = "clipood"
    Config: ClassVar[type[MethodConfig]] = ClipoodConfig
    config: ClipoodConfig

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Freeze the head, take its directions for margins, and begin the mean."""
        from torch.nn.functional import normalize

        model.head.requires_grad_(False)
        self._texts = normalize(model.head.weight.detach(), dim=-1)
        self._shares = beta_shares(context.steps, self.config.beta)
        super().prepare(model, context)

    def share(self, step: int) -> float:
        """As ``beta_shares``."""
        return float(self._shares[step])

    def loss(self, model: ImageClassifier, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the logits of f - λ t_y."""
        from torch.nn.functional import cross_entropy

        own = self._texts[batch.labels]
        logits = model.classify(model.features(batch.inputs) - self.config.margin * own)
        smoothing = self.config.label_smoothing
        return {"loss": cross_entropy(logits, batch.labels, label_smoothing=smoothing)}
