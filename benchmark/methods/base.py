"""The contract of a method: a typed configuration and up to three hooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import Tensor

    from benchmark.models.classifier import ImageClassifier

    Weights = Mapping[str, Tensor]


class MethodConfig(BaseModel):
    """Settings of a method. Every field is part of a run's identity; unknown keys are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True
    )


class TrainingConfig(MethodConfig):
    """Settings of the training loop; defaults are WiSE-FT's (arXiv 2109.01903, App. D.2)."""

    lr: Annotated[float, Field(gt=0, description="peak learning rate of AdamW")] = 3e-5
    weight_decay: Annotated[float, Field(ge=0, description="decoupled weight decay")] = 0.1
    epochs: Annotated[float, Field(gt=0, description="passes over the training set")] = 10
    batch_size: Annotated[int, Field(ge=1, description="global batch, over all workers")] = 512
    warmup_steps: Annotated[int, Field(ge=0, description="linear warm-up, in steps")] = 500
    clip: Annotated[float | None, Field(gt=0, description="global gradient norm; null: off")] = 1.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    precision: Annotated[
        Literal["fp32", "bf16"], Field(description="autocast; master weights are always fp32")
    ] = "fp32"


C = TypeVar("C", bound=MethodConfig, covariant=True)


class Method(Generic[C]):
    """A way to get from pretrained to fine-tuned weights.

    A method says what it needs as data (the class attributes and ``parents``); the loop asks and
    never guesses by name. Weights are state dicts of an ``ImageClassifier``, fp32.

    Method modules import torch inside their functions, so that planning a suite stays light.

    Attributes:
        name: what a suite calls it.
        Config: the pydantic model of its settings.
        inputs: what ``loss`` trains on: augmented ``images``, cached image-tower ``features``, or
            ``None`` for a method that only derives weights from others.
        seeded: whether the seed can change the outcome; if not, all seeds (and shots) share a run.
    """

    name: ClassVar[str]
    Config: ClassVar[type[MethodConfig]]
    inputs: ClassVar[Literal["images", "features"] | None] = None
    seeded: ClassVar[bool] = True

    def __init__(self, config: C) -> None:
        self.config = config

    def parents(self) -> tuple[str, ...]:
        """Labels (in the suite) of the runs whose weights this one starts from or combines."""
        return ()

    def variants(self) -> tuple[str, ...]:
        """Names of the sets of weights a run yields; ``""`` is the only one by default."""
        return ("",)

    def fixed_variant(self) -> str:
        """The variant that stands for the method when nothing is selected."""
        return self.variants()[0]

    def prepare(self, model: ImageClassifier, parents: Mapping[str, Weights]) -> None:
        """Make ``model`` ready to train: load a parent's weights, freeze, attach frozen copies.

        ``model`` holds the pretrained image tower and the zero-shot head, all parameters trainable.
        """

    def loss(self, model: ImageClassifier, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The objective on one batch: scalar ``loss``, and any other scalar terms worth logging.

        Args:
            inputs: images (n, 3, size, size) or features (n, width), fp32.
            labels: (n,) int64.
        """
        raise TypeError(f"{self.name} does not train")

    def finish(
        self,
        variant: str,
        zero_shot: Weights,
        parents: Mapping[str, Weights],
        trained: Weights | None,
    ) -> Weights:
        """The weights of one of ``variants()``: by default those that training ended with."""
        if trained is None:
            raise ValueError(f"{self.name} trains, so its trained weights are needed")
        return trained
