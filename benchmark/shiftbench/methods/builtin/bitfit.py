"""BitFit: only the biases of the image tower train, and the head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from shiftbench.core.errors import RunFailedError
from shiftbench.methods.builtin.full import Full
from shiftbench.methods.config import MethodConfig, TrainingConfig

if TYPE_CHECKING:
    from shiftbench.methods.base import Context
    from shiftbench.models.classifier import ImageClassifier


class BitFitConfig(TrainingConfig):
    """As for full fine-tuning, with a larger step and without decay.

    Few weights have to do all the work, so the rate is ten times that of full fine-tuning; a decay
    would pull pretrained biases to zero.
    """

    lr: Annotated[float, Field(gt=0, description="peak learning rate of AdamW")] = 3e-4
    weight_decay: Annotated[float, Field(ge=0, description="decoupled weight decay")] = 0.0
    train_head: Annotated[bool, Field(description="also train the head, weight and bias")] = True


def is_bias(name: str) -> bool:
    """True for the name of a bias: one that ends in ``bias`` or ``_bias``."""
    last = name.rpartition(".")[2]
    return last == "bias" or last.endswith("_bias")


class BitFit(Full):
    """Bias-only fine-tuning with the task's classifier (Ben Zaken et al. 2021, arXiv 2106.10199).

    The biases of normalisation layers are among them, as in the paper.
    """

    name: ClassVar[str] = "bitfit"
    Config: ClassVar[type[MethodConfig]] = BitFitConfig
    config: BitFitConfig

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Freeze all but the biases."""
        for name, parameter in model.visual.named_parameters():
            parameter.requires_grad_(is_bias(name))
        if not any(parameter.requires_grad for parameter in model.visual.parameters()):
            raise RunFailedError(f"{self.name}: the image tower of this backbone has no biases")
        model.head.requires_grad_(self.config.train_head)
