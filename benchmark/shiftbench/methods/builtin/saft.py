"""SAFT: fine-tune only the few weights that have the largest gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from shiftbench.core.errors import RunFailedError
from shiftbench.methods.base import Architecture, Batch, TrainedMethod
from shiftbench.methods.config import MethodConfig, TrainingConfig
from shiftbench.methods.masks import (
    Include,
    Score,
    Towers,
    balanced,
    candidates,
    combined_scores,
    mean_gradient,
    mean_over_examples,
    scaled_cosines,
    trains,
)

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from shiftbench.methods.base import Context
    from shiftbench.models.classifier import ImageClassifier
    from shiftbench.models.sparse import SparseParameters


class SaftConfig(TrainingConfig):
    """Settings of the training, and which weights it may change.

    The paper's text gives the density and the idea; scope, score and what is a candidate are read
    as in arXiv 2407.03036's abstract: one ranking of all weights by the gradient's magnitude. The
    rate has to be tuned for every density. ``weight_decay`` pulls the selected weights to zero,
    not to their pretrained values; 0 turns that off.
    """

    density: Annotated[
        float, Field(gt=0, le=1, description="selected fraction of the candidates")
    ] = 1e-3
    scope: Annotated[
        Literal["global", "per-tensor"],
        Field(description="rank all candidates together, or those of each tensor"),
    ] = "global"
    towers: Annotated[Towers, Field(description="whose weights are candidates")] = "both"
    include: Annotated[
        Include,
        Field(
            description="all; weights: no biases and norms (tensors of less than two dimensions); "
            "no-embeddings: no token, position or class embeddings"
        ),
    ] = "all"
    score: Annotated[Score, Field(description="score by which candidates are ranked")] = (
        "abs-mean-grad"
    )
    score_examples: Annotated[
        int | None,
        Field(ge=1, description="examples scored at most, the same number of each class"),
    ] = None
    refresh_every: Annotated[
        int | None, Field(ge=1, description="steps between selections; null: once, at the start")
    ] = None
    head: Annotated[
        Literal["text", "linear"],
        Field(description="class embeddings of the text tower, or a linear layer, a candidate too"),
    ] = "text"
    text_chunk: Annotated[
        int, Field(ge=1, description="prompts encoded at a time; activations are recomputed")
    ] = 256

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.batch_norm == "train":
            raise ValueError("batch_norm must be frozen: nothing but the selected weights changes")
        if self.head == "linear" and self.towers == "text":
            raise ValueError("with a linear head there is no text tower to train")
        if self.head == "text" and not self.train_head:
            raise ValueError("train_head must be true: the text tower makes the head anew")
        return self


class Saft(TrainedMethod[SaftConfig]):
    """Cross-entropy on the weights with the largest gradients (Nguyen et al., arXiv 2407.03036).

    At the start the candidates are ranked by a score on the un-augmented training set of this run,
    in eval mode and fp32, and the k = ⌊density · N⌋ best (see ``candidates`` for N) become one
    compact parameter; nothing else changes, not by weight decay either, and the gradient is clipped
    to the norm of the selected part. Scores, of a weight w with gradient gᵢ on example i:

    - ``abs-mean-grad``: |mean gᵢ|, the gradient of the whole set;
    - ``mean-abs-grad``: mean |gᵢ|; ``fisher``: mean gᵢ², the empirical Fisher information;
    - ``grad-times-weight``: |w · mean gᵢ| (SNIP, arXiv 1810.02340);
    - ``grad-over-weight``: |mean gᵢ| / (|w| + 1e-8) (GaLLoP, arXiv 2510.19778);
    - ``magnitude``: |w|; ``random``: uniform, by the seed.

    With the ``text`` head, logits are exp(logit_scale), which stays as pretrained, times the
    cosines with the class embeddings; all classes come in one template of the task, and the
    templates take turns by step. Evaluation uses all of them.

    With ``refresh_every``, the weights are ranked again after so many steps and AdamW's moments
    start at zero; weights that are selected no more keep what they have learnt.

    Every worker scores the whole set; all of them take the selection of the first.
    """

    name: ClassVar[str] = "saft"
    Config: ClassVar[type[MethodConfig]] = SaftConfig

    def __init__(self, config: SaftConfig) -> None:
        super().__init__(config)
        self._frozen_text: dict[int, Tensor] | None = None

    def architecture(self) -> Architecture:
        """Both towers, or the image tower with a linear head."""
        return Architecture(text=self.config.head == "text", head=self.config.head)

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Select the weights; freeze the tensors that have none of them.

        Raises:
            RunFailedError: the density selects nothing, or a score is not finite.
        """
        from shiftbench.models.sparse import SparseParameters

        self._context = context
        model.requires_grad_(False)
        self._candidates = {
            name: tensor
            for name, tensor in candidates(model, self.config.towers, self.config.include).items()
            if self.config.train_head or not name.startswith("head.")
        }
        for tensor in self._candidates.values():
            tensor.requires_grad_(True)
        indices = self._select(model, step=0)
        if not sum(len(part) for part in indices):
            raise RunFailedError(
                f"density {self.config.density} of {sum(self._sizes):,} weights selects none"
            )
        self._sparse: SparseParameters = SparseParameters(list(self._candidates.values()), indices)
        self._freeze(model)
        self._model = model

    def loss(self, model: ImageClassifier, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy, with the ``text`` head in template ``batch.step`` mod their number."""
        from torch.nn.functional import cross_entropy

        if self.config.head == "linear":
            logits = model(batch.inputs)
        else:
            embeddings = self._embeddings(model, batch.step)
            temperature = model.temperature.detach()
            logits = scaled_cosines(model.features(batch.inputs), embeddings, temperature)
        smoothing = self.config.label_smoothing
        return {"loss": cross_entropy(logits, batch.labels, label_smoothing=smoothing)}

    def parameters(self, model: ImageClassifier) -> list[nn.Parameter]:
        """The compact parameter of the selected weights."""
        return [self._sparse.values]

    def optimizer(self, parameters: Sequence[nn.Parameter]) -> Optimizer:
        """AdamW, whose moments ``refresh_every`` clears."""
        self._optimizer = super().optimizer(parameters)
        return self._optimizer

    def before_step(self, model: ImageClassifier) -> None:
        """Gather the gradient of the selected weights, which is what is clipped."""
        self._sparse.gather_gradient()

    def after_step(self, model: ImageClassifier, step: int) -> None:
        """Write the selected weights into the model, and select again where that is due."""
        self._sparse.scatter()
        every = self.config.refresh_every
        if every is not None and step % every == 0 and step < self._context.steps:
            self._sparse.select(self._select(model, step))
            self._optimizer.state.clear()

    def state(self) -> dict[str, Any]:
        """The selection: positions in the concatenation of the candidates, (k,) int64."""
        from shiftbench.models.sparse import join_positions

        return {"positions": join_positions(self._sparse.indices, self._sizes)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the selection back, and the values from the model."""
        from shiftbench.models.sparse import split_positions

        self._sparse.select(split_positions(state["positions"], self._sizes))
        self._freeze(self._model)

    def details(self, model: ImageClassifier) -> dict[str, Any]:
        """Numbers of selected weights and of candidates, in all and by tensor [selected, size]."""
        counts = [len(part) for part in self._sparse.indices]
        return {
            "selected": sum(counts),
            "candidates": sum(self._sizes),
            "density": sum(counts) / sum(self._sizes),
            "share": {
                name: [count, size]
                for name, count, size in zip(self._candidates, counts, self._sizes, strict=True)
                if count
            },
        }

    @property
    def _sizes(self) -> list[int]:
        return [tensor.numel() for tensor in self._candidates.values()]

    def _embeddings(self, model: ImageClassifier, step: int) -> Tensor:
        """Class embeddings of a step's template; of a frozen tower they are computed once."""
        import torch

        if model.prompts is None:
            raise TypeError("this model has no prompts")
        template = step % len(model.prompts)
        if self._frozen_text is None:
            return model.class_embeddings(template, self.config.text_chunk)
        if template not in self._frozen_text:
            with torch.no_grad():
                self._frozen_text[template] = model.class_embeddings(template)
        return self._frozen_text[template]

    def _freeze(self, model: ImageClassifier) -> None:
        """Freeze candidates without a selected weight, unless they may be selected later."""
        if self.config.refresh_every is None:
            for tensor, part in zip(self._candidates.values(), self._sparse.indices, strict=True):
                tensor.requires_grad_(len(part) > 0)
        frozen = model.text is not None and not trains(model.text)
        self._frozen_text = {} if frozen else None

    def _select(self, model: ImageClassifier, step: int) -> list[Tensor]:
        """Indices of the selected weights in every candidate, the same on all workers."""
        import torch.distributed as dist

        from shiftbench.models.sparse import join_positions, sampled, select_mask, split_positions

        settings, place = self.config, self._context.place
        if settings.score == "random":
            seed = [self._context.seed, step]
            return sampled(self._sizes, settings.density, settings.scope, seed)
        indices = select_mask(self._scores(model), settings.density, settings.scope)
        if place.size == 1:
            return indices
        positions = join_positions(indices, self._sizes)
        dist.broadcast(positions, src=0)
        return split_positions(positions, self._sizes)

    def _scores(self, model: ImageClassifier) -> list[Tensor]:
        """The score of every candidate, in its shape."""
        import torch

        settings = self.config
        tensors = list(self._candidates.values())
        if settings.score == "magnitude":
            return [tensor.detach().abs() for tensor in tensors]
        examples = self._context.examples()
        if settings.score_examples is not None:
            examples = balanced(examples, model.head.out_features, settings.score_examples)
        mode = model.training
        model.eval()
        with torch.enable_grad():
            if settings.score in ("mean-abs-grad", "fisher"):
                of_gradient = torch.abs if settings.score == "mean-abs-grad" else torch.square
                scores = mean_over_examples(
                    lambda batch: self.loss(model, batch)["loss"], tensors, examples, of_gradient
                )
            else:
                scores = mean_gradient(
                    model,
                    tensors,
                    examples,
                    smoothing=settings.label_smoothing,
                    chunk=settings.text_chunk,
                )
        model.train(mode)
        return combined_scores(settings.score, scores, tensors)
