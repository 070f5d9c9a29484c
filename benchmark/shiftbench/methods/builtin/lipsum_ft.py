"""Lipsum-FT: fine-tuning that keeps how well images go with random texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from shiftbench.core.errors import RunFailedError
from shiftbench.methods.base import Architecture
from shiftbench.methods.builtin.full import Full
from shiftbench.methods.config import MethodConfig, TrainingConfig
from shiftbench.methods.objective import cross_entropy
from shiftbench.methods.search import LogUniform, Searched
from shiftbench.methods.teachers import Teacher

if TYPE_CHECKING:
    from torch import Tensor

    from shiftbench.methods.base import Batch, Context, Weights
    from shiftbench.models.classifier import ImageClassifier


class LipsumFtConfig(TrainingConfig):
    """The settings of the released code (its length and batch are a suite's), and the strength."""

    lr: Annotated[float, Field(gt=0, description="peak learning rate of AdamW")] = 1e-5
    weight_decay: Annotated[float, Field(ge=0, description="decoupled weight decay")] = 0.0
    max_grad_norm: Annotated[
        float | None, Field(gt=0, description="global gradient norm; null: off")
    ] = None
    strength: Annotated[
        float,
        Field(ge=0, description="λ of λ · mean ½ (z - z0)², over images and random texts"),
        Searched(LogUniform(low=0.01, high=100)),
    ] = 1.0
    texts: Annotated[int, Field(ge=1, description="random texts at every step")] = 80
    length: Annotated[int, Field(ge=1, description="random tokens of a text")] = 8


def special_tokens(prompts: Tensor) -> tuple[int | None, int]:
    """The token with which all texts begin, if there is one, and the one with which they end.

    Args:
        prompts: token ids of texts, (…, context), of a tokenizer whose end is its largest id.

    Raises:
        RunFailedError: texts have no end in common.
    """
    begins, ends = (
        sorted({*ids.flatten().tolist()}) for ids in (prompts[..., 0], prompts.amax(-1))
    )
    if len(ends) > 1:
        raise RunFailedError(
            "lipsum-ft: this backbone's tokenizer does not end texts with its largest id, as "
            "CLIP's does, so random texts cannot be made of its tokens"
        )
    return (begins[0] if len(begins) == 1 else None), ends[0]


def random_texts(
    begin: int | None, end: int, texts: int, length: int, context: int, seed: list[int]
) -> Tensor:
    """Token ids of random texts, (texts, context) int64: begin, ``length`` draws, end, padding.

    The released code leaves the padding out, which the end of a text does not look at.

    Args:
        begin: the first token, where texts have one.
        end: the last token; draws are uniform over the ids below it, but for ``begin``.
        texts: how many.
        length: random tokens of each.
        context: tokens of a text with its padding.
        seed: the same seed gives the same texts.
    """
    import numpy as np
    import torch

    count = end - (begin is not None)
    drawn = np.random.default_rng(seed).integers(count, size=(texts, length))
    if begin is not None:
        drawn += drawn >= begin
    first = [] if begin is None else [np.full((texts, 1), begin)]
    tokens = np.hstack([*first, drawn, np.full((texts, 1), end)])
    return torch.from_numpy(np.pad(tokens, ((0, 0), (0, context - tokens.shape[1]))))


def guidance(features: Tensor, pretrained: Tensor, texts: Tensor, scale: float) -> Tensor:
    """Mean over n images and m texts of ½ (s · ⟨f, t⟩ - s · ⟨f0, t⟩)²; in fp32 at least.

    Args:
        features: f, normalised (n, width).
        pretrained: f0, normalised (n, width).
        texts: t, normalised (m, width).
        scale: s.
    """
    import torch

    with torch.autocast(features.device.type, enabled=False):
        apart: Tensor = scale * (features @ texts.T - pretrained @ texts.T)
        return apart.square().mean() / 2


class LipsumFt(Full):
    """Random text guidance (Nam et al. 2024, arXiv 2404.00860).

    Texts of random tokens are drawn anew at every step, by the run's seed and the step, and encoded
    by the text tower, which stays as it is. What trains of the head are class vectors that the
    temperature has not been multiplied into, without a bias, as in the released code: AdamW's steps
    move them as many times further as the temperature says.
    """

    name: ClassVar[str] = "lipsum-ft"
    Config: ClassVar[type[MethodConfig]] = LipsumFtConfig
    config: LipsumFtConfig

    def architecture(self) -> Architecture:
        """A linear head, and the text tower for the random texts."""
        return Architecture(text=True)

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Freeze the text tower, copy the image tower, take the temperature out of the head.

        Raises:
            RunFailedError: the tokenizer is not like CLIP's, or its texts are too short.
        """
        import torch

        if model.prompts is None:
            raise TypeError("this model has no prompts")
        self._begin, self._end = special_tokens(model.prompts)
        self._context = model.prompts.shape[-1]
        longest = self._context - 1 - (self._begin is not None)
        if self.config.length > longest:
            raise RunFailedError(
                f"lipsum-ft: length must be at most {longest}: this backbone's texts have "
                f"{self._context} tokens"
            )
        model.text_tower.requires_grad_(False)
        self._seed = context.seed
        self._scale = model.temperature.item()
        self._teacher = Teacher(model)
        self._texts: tuple[int, Tensor] | None = None
        if self.config.train_head:
            model.head.bias.requires_grad_(False)
            with torch.no_grad():
                model.head.weight.div_(self._scale)

    def loss(self, model: ImageClassifier, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy + λ · the guidance of the step's random texts."""
        features = model.features(batch.inputs)
        pretrained = self._teacher.features(batch.inputs)
        texts = self._embeddings(model, batch.step)
        distance = guidance(features, pretrained, texts, self._scale)
        scaled = self._scale * features if self.config.train_head else features
        logits = model.classify(scaled)
        own = cross_entropy(logits, batch.labels, self.config.label_smoothing)
        loss = own + self.config.strength * distance
        return {"loss": loss, "cross_entropy": own, "guidance": distance}

    def weights(self, model: ImageClassifier) -> Weights:
        """The weights with the temperature in the head."""
        weights = model.state_dict()
        if self.config.train_head:
            weights["head.weight"] = weights["head.weight"] * self._scale
        return weights

    def _embeddings(self, model: ImageClassifier, step: int) -> Tensor:
        """The embeddings of a step's random texts, which all of its micro-batches share."""
        import torch

        if self._texts is None or self._texts[0] != step:
            size = self.config.texts, self.config.length, self._context
            tokens = random_texts(self._begin, self._end, *size, [self._seed, step])
            with torch.no_grad():
                self._texts = step, model.encode_text(tokens.to(next(model.parameters()).device))
        return self._texts[1]
