"""The values with which a training began, for methods that hold its weights near them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from shiftbench.methods.config import TrainingConfig

if TYPE_CHECKING:
    from torch import nn

    from shiftbench.models.classifier import ImageClassifier


class AnchoredConfig(TrainingConfig):
    """Settings of full fine-tuning without weight decay, which pulls to zero, and what is held."""

    weight_decay: Annotated[
        float, Field(ge=0, description="decoupled, to zero; not the strength of the method")
    ] = 0.0
    include_head: Annotated[bool, Field(description="hold the head too")] = False


class Anchors:
    """Copies of the parameters that train, as they are now.

    They are the method's own: ``prepare`` makes them anew from the pretrained weights when a
    training is resumed, and no optimizer holds or saves them.

    Args:
        model: in a method's ``prepare``.
        head: whether the head is held too; if not, the image tower alone is.
    """

    def __init__(self, model: ImageClassifier, *, head: bool) -> None:
        self.values = {
            name: parameter.detach().clone()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and (head or name.startswith("visual."))
        }

    def parameters(self, model: ImageClassifier) -> list[nn.Parameter]:
        """The parameters of which there are copies, in the order of ``values``."""
        return [model.get_parameter(name) for name in self.values]
