"""Teachers: copies of a model that a training compares the model with; fixed, or moved along."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from shiftbench.models.classifier import ImageClassifier


class Teacher:
    """A copy of a model as it is now, which computes without gradients and is no part of it.

    Nothing of it trains or is an optimizer's. It is in eval mode, with the pretrained statistics of
    batch norm until it is moved. One that stays fixed is made anew by ``prepare`` when a training
    is resumed; one that moves has ``state`` and ``restore`` for the method's.

    Args:
        model: in a method's ``prepare``, where it still holds the pretrained weights.
        text: whether to copy the text tower too, if there is one.

    Attributes:
        model: the copy; its ``visual``, ``head`` and ``text`` are to be called without gradients.
    """

    def __init__(self, model: ImageClassifier, *, text: bool = False) -> None:
        from shiftbench.models.classifier import ImageClassifier

        parts = (model.visual, model.head, model.text if text else None)
        visual, head, tower = copy.deepcopy(parts)
        self.model = ImageClassifier(visual, head, tower).requires_grad_(False).eval()

    def encode_image(self, images: Tensor) -> Tensor:
        """Features as the tower gives them, fp32 (n, width), of images (n, 3, size, size)."""
        import torch

        with torch.no_grad():
            return self.model.encode_image(images)

    def features(self, images: Tensor) -> Tensor:
        """L2-normalised features, fp32 (n, width), of images (n, 3, size, size)."""
        import torch

        with torch.no_grad():
            return self.model.features(images)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """L2-normalised embeddings, fp32 (n, width), of texts (n, context)."""
        import torch

        with torch.no_grad():
            return self.model.encode_text(tokens)

    @property
    def temperature(self) -> Tensor:
        """The scale of the copy's logits, exp(logit_scale): a scalar without gradient."""
        return self.model.temperature.detach()

    def move(self, student: ImageClassifier, share: float) -> None:
        """θ' ← θ' + share · (θ - θ'), of all parameters and buffers that the copy has.

        Integers become the student's.
        """
        weights = student.state_dict()
        for name, kept in self.model.state_dict().items():
            if kept.is_floating_point():
                kept.lerp_(weights[name].detach(), share)
            else:
                kept.copy_(weights[name])

    def state(self) -> dict[str, Tensor]:
        """The weights as they are now."""
        return self.model.state_dict()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave, bit for bit."""
        self.model.load_state_dict(dict(state))
