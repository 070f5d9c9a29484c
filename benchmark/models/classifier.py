"""An image classifier made of a backbone's image tower and a linear head.

The head starts as the zero-shot classifier: class embeddings from the text tower, scaled by the
backbone's temperature (WiSE-FT, arXiv 2109.01903, §2; its ``zeroshot.py``).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812  (its name everywhere)
from torch import Tensor, nn

from benchmark.errors import InputError

if TYPE_CHECKING:
    from benchmark.models.backbones import Backbone


class ImageClassifier(nn.Module):
    """Image tower and linear head; features are L2-normalised, so the head holds the temperature.

    Its state dict has the keys ``visual.…``, ``head.weight`` and ``head.bias``. Under autocast the
    tower runs in the lower precision, the normalisation and the head in fp32: logits of CLIP's
    scale would lose three digits in bf16.

    Attributes:
        visual: image tower, (n, 3, size, size) to (n, width).
        head: linear, width to classes, with bias.
    """

    def __init__(self, visual: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.visual = visual
        self.head = head

    def features(self, images: Tensor) -> Tensor:
        """L2-normalised features, fp32 (n, width), of images (n, 3, size, size)."""
        return F.normalize(self.visual(images).float(), dim=-1)

    def classify(self, features: Tensor) -> Tensor:
        """Logits, fp32 (n, classes), of normalised features (n, width)."""
        with torch.autocast(features.device.type, enabled=False):
            logits: Tensor = self.head(features.float())
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Logits, fp32 (n, classes), of images (n, 3, size, size)."""
        return self.classify(self.features(images))


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
    texts = [text for of_class in unique for text in of_class]
    counts = torch.tensor([len(of_class) for of_class in unique])
    owners = torch.repeat_interleave(torch.arange(len(unique)), counts)
    scale = backbone.clip.logit_scale

    def encode(batch: Sequence[str]) -> Tensor:
        tokens = backbone.tokenizer(batch).to(scale.device)
        encoded: Tensor = backbone.clip.encode_text(tokens, normalize=True)
        return encoded.double().cpu()

    width = encode(texts[:1]).shape[1]
    total = torch.zeros(len(unique), width, dtype=torch.float64)
    for start in range(0, len(texts), batch_size):
        batch = slice(start, start + batch_size)
        total.index_add_(0, owners[batch], encode(texts[batch]))
    embeddings = F.normalize(total / counts[:, None], dim=-1)
    rows = embeddings[[unique[tuple(of_class)] for of_class in prompts]]
    # Made without its random initialisation, which would move the global generator.
    head = nn.Linear(width, len(prompts), device="meta").to_empty(device="cpu")
    head.weight.copy_(rows * scale.double().exp().cpu())
    head.bias.zero_()
    return head


def zero_shot_classifier(
    backbone: Backbone, classes: Sequence[str], templates: Sequence[str]
) -> ImageClassifier:
    """The backbone as a classifier of ``classes``: a copy of its image tower, a zero-shot head.

    Args:
        backbone: left as it is.
        classes: class names.
        templates: prompts with ``{}`` where the class name goes.

    Returns:
        fp32, on the CPU, in eval mode, every parameter trainable.
    """
    from benchmark.data.prompts import prompts

    head = zero_shot_head(backbone, [prompts(templates, name) for name in classes])
    visual: nn.Module = copy.deepcopy(backbone.clip.visual).cpu()
    return ImageClassifier(visual, head).requires_grad_(True).eval()
