"""CoOp: learned context vectors before the names of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from shiftbench.core.errors import RunFailedError
from shiftbench.methods.base import Architecture, TrainedMethod
from shiftbench.methods.config import MethodConfig
from shiftbench.methods.sgd import SgdConfig, sgd

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from shiftbench.methods.base import Batch, Context, Weights
    from shiftbench.models.classifier import ImageClassifier

TEXTS = 256  # encoded at a time, however few images are
SPREAD = 0.02
"""Standard deviation of context vectors that start at random."""


class CoopConfig(SgdConfig):
    """Those of the released code; it has 200 epochs for 8 shots and more, 50 on ImageNet."""

    lr: Annotated[float, Field(gt=0, description="peak learning rate of SGD")] = 2e-3
    weight_decay: Annotated[float, Field(ge=0, description="coupled, of the context")] = 5e-4
    epochs: Annotated[float, Field(gt=0, description="passes over the training set")] = 50
    batch_size: Annotated[int, Field(ge=1, description="global batch, over all workers")] = 32
    context: Annotated[
        Literal["template"] | Annotated[int, Field(ge=1)],
        Field(
            description="so many vectors, drawn at random; template: they start as the words that "
            "the task's first template has before the class"
        ),
    ] = 16
    by_class: Annotated[bool, Field(description="a context of its own for every class")] = False


class Coop(TrainedMethod[CoopConfig]):
    """Context optimisation: learned vectors, which the class's name follows (arXiv 2109.01134).

    Both towers are frozen; the head is made of the text tower's embeddings of context and class.
    What follows the class in the task's first template stays, and so does the first token, which
    begins a text of CLIP's and is a word of SigLIP's. Evaluation sets with class names of
    their own get a head without the context, as every method's weights are a plain model's.
    """

    name: ClassVar[str] = "coop"
    Config: ClassVar[type[MethodConfig]] = CoopConfig

    def __init__(self, config: CoopConfig) -> None:
        super().__init__(config)
        self._tokens: Tensor

    def architecture(self) -> Architecture:
        """With the text tower."""
        return Architecture(text=True)

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Freeze everything, and put the context where its tokens' embeddings would be.

        Raises:
            RunFailedError: the text tower has no known embedding of tokens, or no room.
        """
        import torch
        from torch import nn

        from shiftbench.models.prompted import token_embedding

        if model.prompts is None:
            raise TypeError("this model has no prompts")
        model.requires_grad_(False)
        embedding, prompts = token_embedding(model.text_tower), model.prompts[0]
        first, words, rest = split_prompts(prompts)
        if self.config.context == "template":
            if not words.shape[1]:
                raise RunFailedError(
                    "coop: the first template begins with the class; give a number"
                )
            start = embedding.weight[words[0]].clone()
        else:
            draw = torch.Generator().manual_seed(context.seed)
            shape = self.config.context, embedding.weight.shape[1]
            start = SPREAD * torch.randn(shape, generator=draw).to(embedding.weight)
        n = len(start)
        if self.config.by_class:
            start = start.repeat(len(prompts), 1, 1)
        places = first.expand(-1, n) if not words.shape[1] else words[:, :1].expand(-1, n)
        tokens = torch.cat([first, places, rest], dim=1)
        self._tokens = fitted(tokens, model.text_tower, padding_of(model.prompts))
        vectors = nn.Parameter(start)
        model.register_parameter("context", vectors)

        def with_context(module: nn.Module, inputs: object, embedded: Tensor) -> Tensor:
            own = vectors.to(embedded.dtype).expand(len(embedded), n, -1)
            return torch.cat([embedded[:, :1], own, embedded[:, 1 + n :]], dim=1)

        embedding.register_forward_hook(with_context)

    def loss(self, model: ImageClassifier, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the head that the context makes, on images."""
        import torch
        from torch.nn.functional import cross_entropy

        with torch.no_grad():
            features = model.features(batch.inputs)
        # A context for each class is made for all classes at once.
        most = len(self._tokens) if self.config.by_class else max(TEXTS, model.chunk or 0)
        texts = model.encode_text(self._tokens, most)
        with torch.autocast(features.device.type, enabled=False):
            logits = model.temperature * features @ texts.T
            smoothing = self.config.label_smoothing
            return {"loss": cross_entropy(logits, batch.labels, label_smoothing=smoothing)}

    def optimizer(self, parameters: Sequence[nn.Parameter]) -> Optimizer:
        """SGD with momentum."""
        return sgd(parameters, self.config)

    def weights(self, model: ImageClassifier) -> Weights:
        """The weights of a plain model, with the head that the context makes."""
        import torch

        with torch.no_grad():
            rows = model.temperature * model.encode_text(self._tokens)
        weights = {**model.state_dict(), "head.weight": rows}
        del weights["context"]
        return weights


def split_prompts(prompts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The first token, other words before the class, and the rest of prompts (classes, context).

    Words before the class are the tokens that the prompts of all classes have in common.
    """
    common = int((prompts == prompts[0]).all(dim=0).long().cumprod(0).sum())
    words = max(1, common)
    return prompts[:, :1], prompts[:, 1:words], prompts[:, words:]


def padding_of(prompts: Tensor) -> int:
    """What short texts are filled up with: the token that recurs longest at the end of any.

    CLIP's tokenizer has 0, SigLIP's first one 1, which also ends a text there.

    Args:
        prompts: (…, context).
    """
    backwards = prompts.flip(-1).reshape(-1, prompts.shape[-1])
    recurs = (backwards == backwards[:, :1]).long().cumprod(dim=1).sum(dim=1)
    return int(backwards[recurs.argmax(), 0])


def fitted(tokens: Tensor, tower: nn.Module, padding: int = 0) -> Tensor:
    """Tokens (classes, n), as many as the tower takes: padding comes or goes.

    Raises:
        RunFailedError: a name is too long for what is left beside the context.
    """
    from torch.nn.functional import pad

    room = getattr(tower, "context_length", None)
    if room is None:
        return tokens
    end = room - 1 if padding else room  # one that is not 0 also ends the text
    if bool((tokens[:, end:] != padding).any()):
        raise RunFailedError(f"coop: context and class have no room in {room} tokens")
    return pad(tokens[:, :room], (0, max(0, room - tokens.shape[1])), value=padding)
