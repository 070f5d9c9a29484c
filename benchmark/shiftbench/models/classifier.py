"""An image classifier made of a backbone's image tower and a linear head.

The head starts as the zero-shot classifier: class embeddings from the text tower, scaled by the
backbone's temperature (WiSE-FT, arXiv 2109.01903, §2; its ``zeroshot.py``).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F  # noqa: N812  (its name everywhere)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from shiftbench.core.errors import InputError
from shiftbench.models.batch_norm import with_statistics

if TYPE_CHECKING:
    from shiftbench.models.backbones import Backbone


class ImageClassifier(nn.Module):
    """Image tower and head, and the text tower for methods that train it.

    Features are L2-normalised, so the head holds the temperature. The state dict has the keys
    ``visual.…``, ``head.weight``, ``head.bias`` and, with a text tower, ``text.…``. Under autocast
    the towers run in the lower precision, the normalisation and the head in fp32: logits of CLIP's
    scale would lose three digits in bf16.

    Attributes:
        visual: image tower, (n, 3, size, size) to (n, width).
        head: linear, width to classes, with bias.
        text: the backbone without its image tower, or ``None``; it has open_clip's ``encode_text``
            and ``logit_scale``.
        prompts: token ids of every class in every template, (templates, classes, context) int64;
            there when the text tower is. Of a class with fewer prompts than another they recur.
        n_prompts: how many each class has; ``None`` where there are no prompts.
        chunk: examples or texts encoded at a time while training, whose activations are then
            computed again in the backward pass; ``None`` for all at once.
        frozen_statistics: layers with running statistics (batch norm) use and keep them also while
            training; see ``models.batch_norm``.
    """

    def __init__(
        self,
        visual: nn.Module,
        head: nn.Linear,
        text: nn.Module | None = None,
        prompts: Tensor | None = None,
        n_prompts: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.visual = visual
        self.head = head
        self.text = text
        self.prompts: Tensor | None
        self.register_buffer("prompts", prompts, persistent=False)
        if prompts is not None and n_prompts is None:
            n_prompts = [len(prompts)] * prompts.shape[1]
        self.n_prompts = None if n_prompts is None else tuple(n_prompts)
        self.chunk: int | None = None
        self.frozen_statistics = True

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all modules; those with frozen statistics stay in eval mode."""
        super().train(mode)
        if self.frozen_statistics:
            for module in with_statistics(self):
                module.training = False
        return self

    def encode_image(self, images: Tensor) -> Tensor:
        """Features as the tower gives them, fp32 (n, width), of images (n, 3, size, size)."""
        visual: Callable[[Tensor], Tensor] = self.visual
        return self._in_chunks(visual, images, self.chunk).float()

    def features(self, images: Tensor) -> Tensor:
        """L2-normalised features, fp32 (n, width), of images (n, 3, size, size)."""
        return F.normalize(self.encode_image(images), dim=-1)

    def classify(self, features: Tensor) -> Tensor:
        """Logits, fp32 (n, classes), of normalised features (n, width)."""
        with torch.autocast(features.device.type, enabled=False):
            logits: Tensor = self.head(features.float())
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Logits, fp32 (n, classes), of images (n, 3, size, size)."""
        return self.classify(self.features(images))

    def encode_text(self, tokens: Tensor, chunk: int | None = None) -> Tensor:
        """L2-normalised embeddings, fp32 (n, width), of texts (n, context), with gradient.

        Args:
            tokens: ids from the backbone's tokenizer.
            chunk: texts encoded at a time, as ``self.chunk``, which is the default.
        """
        encode: Callable[[Tensor], Tensor] = self.text_tower.encode_text  # type: ignore[assignment]
        return F.normalize(self._in_chunks(encode, tokens, chunk or self.chunk).float(), dim=-1)

    def class_embeddings(self, template: int, chunk: int | None = None) -> Tensor:
        """Normalised embeddings (classes, width) of all classes in one template, with gradient."""
        if self.prompts is None:
            raise TypeError("this model has no prompts")
        return self.encode_text(self.prompts[template], chunk)

    @property
    def text_tower(self) -> nn.Module:
        """The text tower, where the method's architecture asks for one."""
        if self.text is None:
            raise TypeError("this model has no text tower: Architecture(text=True) gives it one")
        return self.text

    @property
    def temperature(self) -> Tensor:
        """The scale of the logits, 1/τ = exp(logit_scale): a scalar."""
        scale: Tensor = self.text_tower.logit_scale  # type: ignore[assignment]
        return scale.exp()

    def _in_chunks(
        self, encode: Callable[[Tensor], Tensor], inputs: Tensor, chunk: int | None
    ) -> Tensor:
        if chunk is None or len(inputs) <= chunk or not torch.is_grad_enabled():
            return encode(inputs)
        parts = [
            checkpoint(encode, part, use_reentrant=False) for part in torch.split(inputs, chunk)
        ]
        return torch.cat(parts)


@torch.no_grad()
def zero_shot_head(
    backbone: Backbone, prompts: Sequence[Sequence[str]], *, batch_size: int = 256
) -> nn.Linear:
    """The zero-shot classifier of classes described by ``prompts``, as a trainable linear layer.

    Each prompt's embedding is L2-normalised, their mean for a class again, and the result times
    ``exp(logit_scale)`` is that class's row, fp32; the bias is zero. Prompts are encoded
    ``batch_size`` at a time on the device the backbone is on; the head is on the CPU.

    Args:
        backbone: its text tower and tokenizer are used, and left as they are.
        prompts: one or more texts for each class, in the order of the classes.
        batch_size: texts encoded at once.

    Raises:
        InputError: no classes, or a class without prompts.
    """
    if not prompts:
        raise InputError("a classifier needs at least one class")
    if empty := [i for i, texts in enumerate(prompts) if not texts]:
        raise InputError(f"class {empty[0]} has no prompts")
    # Classes of one name share a row bit for bit, so that their logits tie.
    unique = {of_class: i for i, of_class in enumerate(dict.fromkeys(map(tuple, prompts)))}
    rows = [unique[tuple(of_class)] for of_class in prompts]
    return _head_of(backbone.clip, tokenized(backbone, [*unique]), batch_size, rows)


@torch.no_grad()
def _head_of(
    tower: nn.Module, groups: Sequence[Tensor], batch_size: int, rows: Sequence[int] | None = None
) -> nn.Linear:
    """The head whose rows are the mean embeddings of groups of texts.

    Args:
        tower: has ``encode_text`` and ``logit_scale``.
        groups: token ids (texts, context) of each group.
        batch_size: texts encoded at once.
        rows: the group of every class; ``None`` where each class has its own.
    """
    tokens = torch.cat(list(groups))
    counts = torch.tensor([len(group) for group in groups])
    owners = torch.repeat_interleave(torch.arange(len(groups)), counts)
    scale: Tensor = tower.logit_scale  # type: ignore[assignment]
    encode_text: Callable[..., Tensor] = tower.encode_text  # type: ignore[assignment]

    def encode(batch: Tensor) -> Tensor:
        return encode_text(batch.to(scale.device), normalize=True).double().cpu()

    total: Tensor | None = None
    for batch, owner in zip(
        torch.split(tokens, batch_size), torch.split(owners, batch_size), strict=True
    ):
        encoded = encode(batch)
        if total is None:
            total = torch.zeros(len(groups), encoded.shape[1], dtype=torch.float64)
        total.index_add_(0, owner, encoded)
    if total is None:
        raise InputError("a classifier needs at least one class")
    embeddings = F.normalize(total / counts[:, None], dim=-1)
    if rows is not None:
        embeddings = embeddings[list(rows)]
    return _linear(embeddings * scale.double().exp().cpu())


@torch.no_grad()
def _linear(rows: Tensor) -> nn.Linear:
    """A linear layer of some weights, its bias zero, fp32 on the CPU."""
    # Made without its random initialisation, which would move the global generator.
    head = nn.Linear(rows.shape[1], len(rows), device="meta").to_empty(device="cpu")
    head.weight.copy_(rows)
    head.bias.zero_()
    return head


def zero_shot_classifier(
    backbone: Backbone,
    prompts: Sequence[Sequence[str]],
    *,
    text: bool = False,
    rows: Tensor | None = None,
) -> ImageClassifier:
    """The backbone as a classifier: a copy of its image tower, a zero-shot head.

    Args:
        backbone: left as it is.
        prompts: one or more texts for each class, in the order of the classes.
        text: whether to add a copy of the text tower, and the prompts.
        rows: weights (classes, width) of the zero-shot head, where they are known already.

    Returns:
        fp32, on the CPU, in eval mode, every parameter trainable.
    """
    head = zero_shot_head(backbone, prompts) if rows is None else _linear(rows)
    visual: nn.Module = copy.deepcopy(backbone.clip.visual).cpu()
    if not text:
        return ImageClassifier(visual, head).requires_grad_(True).eval()
    groups = tokenized(backbone, prompts)
    most = max(map(len, groups))
    tokens = torch.stack([group[torch.arange(most) % len(group)] for group in groups], dim=1)
    counts = [len(group) for group in groups]
    tower = _text_tower(backbone)
    return ImageClassifier(visual, head, tower, tokens, counts).requires_grad_(True).eval()


def tokenized(backbone: Backbone, prompts: Sequence[Sequence[str]]) -> list[Tensor]:
    """Token ids (its prompts, context) of every class."""
    tokens = backbone.tokenizer([text for of_class in prompts for text in of_class])
    return list(torch.split(tokens, [len(of_class) for of_class in prompts]))


def text_head(
    model: ImageClassifier, groups: Sequence[Tensor] | None = None, *, batch_size: int = 256
) -> nn.Linear:
    """The head that the model's present text tower makes of its prompts, on the CPU.

    The same as ``zero_shot_head``, for weights that have been trained.

    Args:
        model: with a text tower.
        groups: of ``tokenized``, for other classes than the model's own.
        batch_size: texts encoded at once.
    """
    if groups is None:
        if model.prompts is None or model.n_prompts is None:
            raise TypeError("this model has no prompts")
        of_classes = zip(model.prompts.unbind(1), model.n_prompts, strict=True)
        groups = [tokens[:count] for tokens, count in of_classes]
    return _head_of(model.text_tower, groups, batch_size)


def _text_tower(backbone: Backbone) -> nn.Module:
    """A copy of a backbone without its image tower."""
    shell = copy.copy(backbone.clip)
    shell._modules = {name: m for name, m in shell._modules.items() if name != "visual"}
    tower: nn.Module = copy.deepcopy(shell).cpu()
    return tower
