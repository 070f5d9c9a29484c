"""The contract of a method: a typed configuration and a few hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Generic,
    Literal,
    NamedTuple,
    TypeAlias,
    TypeVar,
)

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from shiftbench.data.batches import WorkerPlace
    from shiftbench.methods.search import Search
    from shiftbench.models.classifier import ImageClassifier

    Weights = Mapping[str, Tensor]

Inputs: TypeAlias = Literal["images", "features", "weights"]


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
    max_grad_norm: Annotated[
        float | None, Field(gt=0, description="global gradient norm; null: off")
    ] = 1.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    precision: Annotated[
        Literal["fp32", "bf16"], Field(description="autocast; master weights are always fp32")
    ] = "fp32"
    checkpoint: Annotated[
        Literal["last", "id-val"],
        Field(description="the epoch whose weights are kept: the last, or the best on id-val"),
    ] = "last"


@dataclass(frozen=True)
class Architecture:
    """Which parts of a model the weights of a method cover.

    Attributes:
        text: whether the text tower is among them.
        head: a ``linear`` layer that trains and is kept, or the class embeddings of the ``text``
            tower, which are computed anew from whatever weights are evaluated.
    """

    text: bool = False
    head: Literal["linear", "text"] = "linear"


class Batch(NamedTuple):
    """Some training examples, on the model's device.

    Attributes:
        inputs: images (n, 3, size, size) or features (n, width), fp32.
        labels: (n,) int64.
        captions: for methods that ask for them, token ids (n, context) int64 of a text that names
            the class of each example, made with one of the task's templates drawn at random.
        step: optimizer step that the batch is for, the same on all workers.
    """

    inputs: Tensor
    labels: Tensor
    captions: Tensor | None = None
    step: int = 0


@dataclass(frozen=True)
class Context:
    """What a method may look at when it prepares a model.

    Attributes:
        parents: weights of the parents, by label.
        examples: the training set once, in its order, un-augmented, in batches of any size; what
            ``inputs`` says, on the model's device. Micro-batches are at most ``resources`` allow.
        steps: optimizer steps of the training.
        seed: of the run.
        place: this worker among those that share the run; every one of them prepares.
    """

    parents: Mapping[str, Weights]
    examples: Callable[[], Iterator[Batch]]
    steps: int
    seed: int
    place: WorkerPlace


C = TypeVar("C", bound=MethodConfig, covariant=True)


class Method(Generic[C]):
    """A way to get from pretrained to fine-tuned weights.

    A method says what it needs as data (the attributes, ``parents``, ``architecture``, ``search``);
    the loop asks and never guesses by name. Most methods need ``loss`` and perhaps ``prepare`` and
    ``finish``; the hooks below those are for methods with an optimizer or a state of their own.
    Weights are state dicts of an ``ImageClassifier``, fp32.

    Method modules import torch inside their functions, so that planning a suite stays light.

    Attributes:
        name: what a suite calls it.
        Config: the pydantic model of its settings.
        inputs: what ``loss`` trains on: augmented ``images`` or cached image-tower ``features``;
            ``weights`` for a method that computes its own from those of others by ``combine``;
            ``None`` for one whose weights ``finish`` derives so cheaply that none are kept.
        captions: whether ``loss`` wants captions.
        whole_batch: whether ``loss`` must see all of a worker's examples at once, because it is no
            mean over examples; memory is then bounded by recomputing activations.
        seeded: whether the seed can change the outcome; if not, all seeds (and shots) share a run.
    """

    name: ClassVar[str]
    Config: ClassVar[type[MethodConfig]]
    inputs: Inputs | None = None
    captions: bool = False
    whole_batch: bool = False
    seeded: bool = True

    def __init__(self, config: C) -> None:
        self.config = config

    # What it needs

    def parents(self) -> tuple[str, ...]:
        """Labels (in the suite) of the runs whose weights this one starts from or combines."""
        return ()

    def architecture(self) -> Architecture:
        """What its weights cover. A method that derives weights takes its parents'."""
        return Architecture()

    def search(self) -> Search | None:
        """The search that finds its settings, if it has one."""
        return None

    # What it yields

    def variants(self) -> tuple[str, ...]:
        """Names of the sets of weights a run yields; ``""`` is the only one by default."""
        return ("",)

    def fixed_variant(self) -> str:
        """The variant that stands for the method when nothing is selected."""
        return self.variants()[0]

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

    def mixture(self, variant: str) -> Mapping[str, float] | None:
        """For an ensemble in output space: coefficients of logits, by label of the parent.

        ``"zero-shot"`` stands for the pretrained model. ``None`` where ``finish`` gives weights.
        """
        del variant
        return None

    # How it trains

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Make ``model`` ready to train: load a parent's weights, freeze, attach frozen copies.

        ``model`` is on its device and holds the pretrained towers and the zero-shot head, all
        parameters trainable (but not a head that is computed from the text tower).
        """

    def loss(self, model: ImageClassifier, batch: Batch) -> dict[str, Tensor]:
        """The objective on one batch: scalar ``loss``, and any other scalar terms worth logging."""
        raise TypeError(f"{self.name} does not train")

    def combine(
        self,
        zero_shot: Weights,
        parents: Mapping[str, Weights],
        id_val: Callable[[Weights], float],
    ) -> Weights:
        """For ``inputs = "weights"``: new weights from others.

        Args:
            zero_shot: the pretrained weights.
            parents: weights of the parents, by label.
            id_val: headline score of some weights on the ID validation set.
        """
        raise TypeError(f"{self.name} combines no weights")

    # For methods with an optimizer or a state of their own

    def parameters(self, model: ImageClassifier) -> list[nn.Parameter]:
        """What the optimizer updates and the clipping sees: by default all that is not frozen."""
        return [parameter for parameter in model.parameters() if parameter.requires_grad]

    def optimizer(self, parameters: Sequence[nn.Parameter]) -> Optimizer:
        """The optimizer; the loop sets its learning rate at every step."""
        from torch.optim import AdamW

        settings = self.training
        return AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)

    def before_step(self, model: ImageClassifier) -> None:
        """Called when the gradient of a step is complete, before it is clipped."""

    def after_step(self, model: ImageClassifier, step: int) -> None:
        """Called after the optimizer's step, with the number of steps done."""

    def state(self) -> dict[str, Any]:
        """What a resumed training needs beside model and optimizer: tensors, numbers, texts."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state`` gave; called after ``prepare`` and before the first step."""

    def weights(self, model: ImageClassifier) -> Weights:
        """The weights as they would be if training ended now, with the keys of a plain model."""
        return model.state_dict()

    def details(self, model: ImageClassifier) -> dict[str, Any]:
        """Facts about the training worth recording with the run, as JSON."""
        del model
        return {}

    @property
    def training(self) -> TrainingConfig:
        """The settings of the training loop."""
        if not isinstance(self.config, TrainingConfig):
            raise TypeError(f"{self.name} does not train")
        return self.config
