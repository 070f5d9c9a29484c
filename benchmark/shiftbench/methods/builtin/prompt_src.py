"""PromptSRC: learned prompts in both towers, held to what the pretrained model says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from shiftbench.methods.base import Architecture, TrainedMethod
from shiftbench.methods.builtin.coop import SPREAD, TEXTS
from shiftbench.methods.builtin.tracer import divergence
from shiftbench.methods.config import MethodConfig
from shiftbench.methods.objective import weighted_sum
from shiftbench.methods.search import LogUniform, Searched
from shiftbench.methods.sgd import SgdConfig, sgd
from shiftbench.methods.teachers import Teacher

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from shiftbench.methods.base import Batch, Context, Weights
    from shiftbench.models.classifier import ImageClassifier


class PromptSrcConfig(SgdConfig):
    """Those of the released code for splits into base and new classes, CLIP ViT-B/16.

    Across data sets, from ImageNet, it has ``depth: 3`` and ``average: [6, 10]``; for few shots of
    ImageNet ``epochs: 50`` and ``average: [30, 30]``.
    """

    lr: Annotated[float, Field(gt=0, description="peak learning rate of SGD")] = 2.5e-3
    weight_decay: Annotated[float, Field(ge=0, description="coupled, of the prompts")] = 5e-4
    epochs: Annotated[float, Field(gt=0, description="passes over the training set")] = 20
    batch_size: Annotated[int, Field(ge=1, description="global batch, over all workers")] = 4
    words: Annotated[
        str,
        Field(
            min_length=1,
            description="what stands before a class; prompts of the text tower begin as they",
        ),
    ] = "a photo of a"
    image_prompts: Annotated[int, Field(ge=1, description="vectors in the image tower")] = 4
    depth: Annotated[int, Field(ge=1, description="blocks with vectors of their own")] = 9
    text_strength: Annotated[
        float,
        Field(ge=0, description="of the mean distance of text embeddings from the zero-shot head"),
        Searched(LogUniform(low=1, high=100)),
    ] = 25.0
    image_strength: Annotated[
        float,
        Field(ge=0, description="of the mean distance of image features from the pretrained ones"),
        Searched(LogUniform(low=1, high=100)),
    ] = 10.0
    average: Annotated[
        tuple[float, Annotated[float, Field(gt=0)]],
        Field(
            description="mean and standard deviation, in epochs, of the Gaussian that weighs the "
            "ends of epochs in the prompts' average"
        ),
    ] = (15.0, 1.0)


def gaussian_shares(epochs: int, mean: float, deviation: float) -> tuple[float, ...]:
    """Share of the prompts after epoch 1, 2, … in the average so far, with Gaussian weights."""
    logs = -0.5 * ((np.arange(1, epochs + 1) - mean) / deviation) ** 2
    return tuple(np.exp(logs - np.logaddexp.accumulate(logs)).tolist())


class PromptSrc(TrainedMethod[PromptSrcConfig]):
    """Self-regulating prompts (Khattak et al. 2023, arXiv 2307.06948).

    Both towers are frozen. To the cross-entropy are added the mean absolute distances of image
    features and of text embeddings from those of the pretrained model, whose texts have all the
    task's templates, and the divergence of logits from the zero-shot ones: a mean over classes
    too, as released. What is evaluated are prompts averaged over the ends of epochs. Classes of
    other sets are named by the learned prompts.
    """

    name: ClassVar[str] = "prompt-src"
    Config: ClassVar[type[MethodConfig]] = PromptSrcConfig
    checked: ClassVar[tuple[str, ...] | None] = ()

    def architecture(self) -> Architecture:
        """Both towers with prompts; the head is kept as they made it."""
        from shiftbench.models.prompted import PromptShape

        settings = self.config
        shape = PromptShape(settings.words, settings.image_prompts, settings.depth)
        return Architecture(text=True, prompts=shape)

    def check(self, tower: Callable[[], nn.Module]) -> None:
        """See that the image tower takes prompts."""
        from shiftbench.models.prompted import attention_blocks

        attention_blocks(tower(), "image tower")

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Keep what the pretrained model says, draw the prompts and have them count."""
        import torch
        from torch.nn.functional import normalize

        from shiftbench.models.prompted import prompts_of, token_embedding

        model.requires_grad_(False)
        self._teacher = Teacher(model)
        self._texts = normalize(model.head.weight.detach(), dim=1)
        self._steps, epochs = context.steps, max(1, round(self.config.epochs))
        self._shares = gaussian_shares(epochs, *self.config.average)
        draw = torch.Generator().manual_seed(context.seed)
        of_image, of_text = prompts_of(model)
        begin, n = of_text.begin, of_text.vectors.shape[1]
        words = self._tokens(model)[0, begin : begin + n]
        with torch.no_grad():
            for prompts in (of_image, of_text):
                drawn = torch.randn(prompts.vectors.shape, generator=draw)
                prompts.vectors.copy_(SPREAD * drawn)
                prompts.share.fill_(1)
            of_text.vectors[0] = token_embedding(model.text_tower).weight[words]
        for vectors in self.parameters(model):
            vectors.requires_grad_(True)
        self._mean = [vectors.detach().clone() for vectors in self.parameters(model)]
        self._epochs = 0

    def loss(self, model: ImageClassifier, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy and the three terms, on images."""
        import torch
        from torch.nn.functional import cross_entropy, l1_loss

        settings, scale = self.config, model.temperature
        features, pretrained = model.features(batch.inputs), self._teacher.features(batch.inputs)
        texts = model.encode_text(self._tokens(model), max(TEXTS, model.chunk or 0))
        with torch.autocast(features.device.type, enabled=False):
            logits, zero_shot = scale * features @ texts.T, scale * pretrained @ self._texts.T
            smoothing = settings.label_smoothing
            terms = {
                "cross_entropy": cross_entropy(logits, batch.labels, label_smoothing=smoothing),
                "texts": l1_loss(texts, self._texts),
                "images": l1_loss(features, pretrained),
                "logits": divergence(zero_shot, logits) / logits.shape[1],
            }
        strengths = (1.0, settings.text_strength, settings.image_strength, 1.0)
        return weighted_sum(dict(zip(terms, strengths, strict=True)), terms)

    def parameters(self, model: ImageClassifier) -> list[nn.Parameter]:
        """The vectors of both towers."""
        from shiftbench.models.prompted import prompts_of

        return [prompts.vectors for prompts in prompts_of(model)]

    def optimizer(self, parameters: Sequence[nn.Parameter]) -> Optimizer:
        """SGD with momentum."""
        return sgd(parameters, self.config)

    def after_step(self, model: ImageClassifier, step: int) -> None:
        """At the end of an epoch, move the average."""
        ended = step * len(self._shares) // self._steps
        for share in self._shares[self._epochs : ended]:
            for mean, vectors in zip(self._mean, self.parameters(model), strict=True):
                mean.lerp_(vectors.detach(), share)
        self._epochs = ended

    def state(self) -> dict[str, Any]:
        """The average, and of how many epochs it is."""
        return {"mean": self._mean, "epochs": self._epochs}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        self._epochs = state["epochs"]
        for mean, kept in zip(self._mean, state["mean"], strict=True):
            mean.copy_(kept)

    def weights(self, model: ImageClassifier) -> Weights:
        """The weights with averaged prompts, if an epoch has ended, and the head they make."""
        import torch

        trained = self.parameters(model)
        own = [vectors.detach().clone() for vectors in trained]
        with torch.no_grad():
            for vectors, mean in zip(trained, self._mean if self._epochs else own, strict=True):
                vectors.copy_(mean)
            rows = model.temperature * model.encode_text(self._tokens(model))
            weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            for vectors, kept in zip(trained, own, strict=True):
                vectors.copy_(kept)
        return {**weights, "head.weight": rows}

    def _tokens(self, model: ImageClassifier) -> Tensor:
        """The one text of each class, (classes, context)."""
        if model.prompts is None:
            raise TypeError("this model has no prompts")
        return model.prompts[0]
