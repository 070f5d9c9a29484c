"""The contract of a method: a typed configuration and one of three kinds.

- A ``TrainedMethod`` trains a model: ``loss``, and hooks around the training loop.
- A ``DerivedMethod`` computes weights from those of other runs, of this seed or of others.
- An ``EnsembleMethod`` combines what several models say of each example.

Method modules import torch inside their functions, so that planning a suite stays light.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from shiftbench.methods.config import MethodConfig, TrainingConfig
from shiftbench.methods.members import Parent as Parent

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from shiftbench.data.batches import WorkerPlace
    from shiftbench.methods.members import Labelled, Members
    from shiftbench.methods.search import Search
    from shiftbench.models.classifier import ImageClassifier
    from shiftbench.models.prompted import PromptShape

    Weights = Mapping[str, Tensor]
    Array = npt.NDArray[np.float32]

Inputs: TypeAlias = Literal["images", "features"]


@dataclass(frozen=True)
class Architecture:
    """The parts of a model that the weights of a method cover.

    Attributes:
        text: true if the text tower is among them.
        head: a ``linear`` layer that trains and is kept, or the class embeddings of the ``text``
            tower, which are computed anew from whatever weights are evaluated.
        prompts: learned vectors that both towers have among their tokens, see ``models.prompted``;
            needs ``text``. The model's ``prompts`` are then their texts, one for each class, by
            which classes of other sets are named too.
    """

    text: bool = False
    head: Literal["linear", "text"] = "linear"
    prompts: PromptShape | None = None


class Batch(NamedTuple):
    """Some labelled examples, on the model's device.

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


C = TypeVar("C", bound=MethodConfig, covariant=True)


class Method(ABC, Generic[C]):
    """A way to get from a pretrained to a fine-tuned model; every method is of one of three kinds.

    A method says what it needs as data: the attributes, ``parents``, ``architecture``, ``search``.
    Whoever runs it asks for these and for its kind, never for its name. Weights are state dicts of
    an ``ImageClassifier``, fp32.

    Attributes:
        name: registered name, by which suites refer to it.
        Config: the pydantic model of its settings.
        reference: true for the one that others are compared with: the pretrained model as it is.
        elsewhere: true if its weights were trained elsewhere: rows are marked, and what the weights
            have been trained on is not known.
        kept: true if a run stores weights, or what an ensemble fitted, before it is evaluated.
        seeded: true if the seed can change the outcome; if not, all seeds (and shots) share a run
            unless a parent's run depends on them.
        wraps: registered names of the other methods whose code it runs.
        checked: the settings that ``check`` looks at; ``None`` for any that are its own.
        revision: raised when the same settings come to compute something else, so that results of
            before and after have other ids.
    """

    name: ClassVar[str]
    Config: ClassVar[type[MethodConfig]]
    reference: ClassVar[bool] = False
    elsewhere: ClassVar[bool] = False
    checked: ClassVar[tuple[str, ...] | None] = None
    kept: bool
    seeded: bool = True
    wraps: tuple[str, ...] = ()
    revision: int = 0

    def __init__(self, config: C) -> None:
        self.config = config

    def parents(self) -> tuple[Parent, ...]:
        """The runs that this one starts from, derives its weights from, or combines."""
        return ()

    def architecture(self) -> Architecture:
        """The parts of a model that its weights cover; of a derived method, its parents' count."""
        return Architecture()

    def search(self) -> Search[Method[MethodConfig]] | None:
        """The search that finds its settings, if it has one; candidates are of its own kind."""
        return None

    def check(self, tower: Callable[[], nn.Module]) -> None:
        """Refuse an image tower that the method cannot work with, before anything is spent.

        Args:
            tower: gives the tower without its weights, on PyTorch's meta device; building it takes
                a second, so methods that take any tower do not ask for it.

        Raises:
            RunFailedError: one line that says what the method looks for.
        """

    def selects(self) -> bool:
        """True if it looks at labelled ID validation images before it is evaluated.

        Its run and those that it builds on then never train on them.
        """
        return self.kept

    def variants(self) -> tuple[str, ...]:
        """Names of the models that a run yields; ``""`` is the only one by default."""
        return ("",)

    def fixed_variant(self) -> str:
        """The variant that stands for the method when nothing is selected."""
        return self.variants()[0]


# Trained


@dataclass(frozen=True)
class Context:
    """The data that a trained method may use when it prepares a model.

    Attributes:
        parents: weights of the parents.
        examples: the training set once, in its order, un-augmented, in batches no larger than
            those that a worker holds in the training; what ``inputs`` says, on the model's device.
        steps: optimizer steps of the training.
        seed: of the run.
        place: this worker among those that share the run; every one of them prepares.
    """

    parents: Mapping[Parent, Weights]
    examples: Callable[[], Iterator[Batch]]
    steps: int
    seed: int
    place: WorkerPlace


class TrainedMethod(Method[C]):
    """A method that trains: ``loss``, perhaps ``prepare``, and hooks for an optimizer or a state.

    Its run yields one set of weights, the one variant ``""``.

    Attributes:
        inputs: kind of training inputs: augmented ``images``, or cached ``features`` of the
            pretrained image tower, un-augmented; the method then leaves that tower as it is.
        captions: true if ``loss`` needs captions.
        whole_batch: true if ``loss`` must see all of a worker's examples at once, because it is no
            mean over examples; memory is then bounded by recomputing activations.
        shardable: true if it can be trained while each worker holds a part of the weights
            (``resources.sharding: fsdp2``): once ``prepare`` has been called, nothing of it looks
            at the model's tensors but ``loss``, by the model's own functions, and ``weights``,
            which gets a whole model. A subclass that looks at more sets it to false.
    """

    kept: bool = True
    inputs: Inputs = "images"
    captions: bool = False
    whole_batch: bool = False
    shardable: bool = False

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Make ``model`` ready to train: load a parent's weights, freeze, attach frozen copies.

        ``model`` is on its device and holds the pretrained towers and the zero-shot head, all
        parameters trainable (but not a head that is computed from the text tower).
        """

    def ready(self, model: ImageClassifier, context: Context) -> None:
        """``prepare``, before and after which the head is frozen if the settings say so."""
        frozen = not self.training.train_head
        if frozen:
            model.head.requires_grad_(False)
        self.prepare(model, context)
        if frozen:
            model.head.requires_grad_(False)

    @abstractmethod
    def loss(self, model: ImageClassifier, batch: Batch) -> dict[str, Tensor]:
        """The objective on one batch: scalar ``loss``, and other scalar terms to be recorded.

        Every term is recorded as its mean over the global batch, step by step. At any one step all
        workers and micro-batches must return the same terms. Before the first step it is called
        once with two examples: parameters that have no part in that loss are frozen, and named in
        the row's details.
        """

    def parameters(self, model: ImageClassifier) -> list[nn.Parameter]:
        """The parameters that are updated and clipped: by default all that are not frozen."""
        return [parameter for parameter in model.parameters() if parameter.requires_grad]

    def optimizer(self, parameters: Sequence[nn.Parameter]) -> Optimizer:
        """The optimizer; the loop sets its learning rate at every step."""
        from torch.optim import AdamW

        settings = self.training
        return AdamW(
            parameters,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            fused=parameters[0].is_cuda,
        )

    def search(self) -> Search[TrainedMethod[TrainingConfig]] | None:
        """The search that finds its settings, if it has one: trials train for some steps."""
        return None

    def before_step(self, model: ImageClassifier) -> None:
        """Called when the gradient of a step is complete, before it is clipped."""

    def after_step(self, model: ImageClassifier, step: int) -> None:
        """Called after the optimizer's step, with the number of steps done."""

    def state(self) -> dict[str, Any]:
        """The method's own part of a checkpoint: tensors, numbers and texts to resume from."""
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

    def selects(self) -> bool:
        """True if it keeps the epoch that is best on ID validation."""
        return self.training.checkpoint == "id-val"

    @property
    def training(self) -> TrainingConfig:
        """The settings of the training loop."""
        if not isinstance(self.config, TrainingConfig):
            raise TypeError(f"{self.name}: its Config must be a TrainingConfig")
        return self.config


# Derived


@dataclass(frozen=True)
class Derivation:
    """The data that a derived method may use.

    Attributes:
        zero_shot: the pretrained weights; on the CPU for ``kept`` methods, and where models are
            evaluated for others, as are those of the parents.
        parents: weights of the parents; of each, the variant that stands for it.
        id_val: headline score of some weights on the ID validation set, negated where less is
            better, so that more is always better.
        model: a model with some weights, in eval mode on its device, every parameter of them
            trainable. A head of the ``text`` architecture is computed from its text tower, without
            a gradient to it.
        id_val_batches: the labelled ID validation set once, un-augmented images on the device of
            ``model``, from a batch size and the seed of their order; the last batch may be smaller.
        seed: of the run.
        classes: names of the task's classes, in the order of the head's rows.
    """

    zero_shot: Weights
    parents: Mapping[Parent, Weights]
    id_val: Callable[[Weights], float]
    model: Callable[[Weights], ImageClassifier]
    id_val_batches: Callable[[int, int], Iterator[Batch]]
    seed: int
    classes: tuple[str, ...]


class DerivedMethod(Method[C]):
    """A method that computes weights from the pretrained ones and those of other runs.

    Attributes:
        kept: ``True`` for weights that are made once and stored, and then the method has one
            variant; ``False`` for weights so cheap that they are made whenever they are needed.
    """

    kept: bool = False

    @abstractmethod
    def derive(self, variant: str, derivation: Derivation) -> Weights:
        """The weights of one of ``variants()``."""

    def search(self) -> Search[DerivedMethod[MethodConfig]] | None:
        """The search that finds its settings, if it has one: trials derive, and train nothing."""
        return None


# Ensembles


class EnsembleMethod(Method[C]):
    """A method that combines the outputs of several models, example by example.

    Attributes:
        kept: ``True`` where ``fit`` finds something, which is stored with the run.
        projected: ``False`` if members' logits are those of the task's classes, and the combined
            ones are projected to the classes of an evaluation set; ``True`` if members' logits are
            projected first, as is published for ensembles of probabilities.
        transductive: ``True`` if what it says of an example depends on which other unlabelled
            examples of the set are there. It is then given them all at once, and its rows say so.
        any_classes: ``False`` if it combines logits of the task's classes alone, say with those of
            labelled examples. Where an evaluation set has class names of its own, the zero-shot
            model then answers by itself, as it does for trained heads.
    """

    kept: bool = False
    projected: bool = False
    transductive: bool = False
    any_classes: bool = True

    def fit(
        self, id_val: Callable[[], Labelled], train: Callable[[], Labelled]
    ) -> Mapping[str, Array]:
        """Arrays fitted on labelled data, such as temperatures; for ``kept`` methods.

        Args:
            id_val: outputs on the ID validation set.
            train: outputs on the training set, un-augmented.
        """
        del id_val, train
        return {}

    @abstractmethod
    def combine(self, variant: str, members: Members, fitted: Mapping[str, Array]) -> Array:
        """Logits (n, classes) fp32 of one of ``variants()``; softmax of them is its confidence.

        Args:
            variant: one of ``variants()``.
            members: outputs on some examples of an evaluation set, each to be combined on its own:
                large sets come in parts, unless the method is ``transductive``.
            fitted: what ``fit`` returned; empty unless the method is ``kept``.
        """
