"""LP++: a linear probe beside the zero-shot head, with step sizes that follow from the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

from pydantic import Field

from shiftbench.methods.base import Inputs, TrainedMethod
from shiftbench.methods.config import MethodConfig
from shiftbench.methods.search import LogUniform, Searched
from shiftbench.methods.sgd import SgdConfig

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from shiftbench.methods.base import Batch, Context, Weights
    from shiftbench.models.classifier import ImageClassifier

EVERY = 10
"""Steps between two of the text weights."""
HELD = 4096
"""Shots whose cosines with all classes are held at a time, in float64."""


class LpPlusPlusConfig(SgdConfig):
    """Those of the released code: full batches, constant steps, momentum."""

    lr: Annotated[
        float, Field(gt=0, description="what the step sizes that follow from the data are times")
    ] = 1.0
    epochs: Annotated[float, Field(gt=0, description="full batches, so as many steps")] = 300
    batch_size: Annotated[
        int, Field(ge=1, description="the step sizes are of all shots at once: leave it that large")
    ] = 10_000_000
    warmup_steps: Annotated[int, Field(ge=0, description="no part: step sizes are constant")] = 0
    text_weight: Annotated[
        float,
        Field(ge=0, description="α starts at this times the shots' mean cosine with their class"),
        Searched(LogUniform(low=1, high=1000)),
    ] = 250.0


class LpPlusPlus(TrainedMethod[LpPlusPlusConfig]):
    """Logits ⟨f, w_c⟩ + b_c + α_c ⟨f, e_c⟩, from class means and text (arXiv 2404.02285).

    W starts as the sum of each class's features; gradient descent on it has the step size
    4 n / λmax(FᵀF). Every ten steps all α_c take one of n / (4 max_c Σ ⟨f, e_c⟩²), along the sum of
    their gradients so far: the released code never clears that. There the best epoch on validation
    is kept (``checkpoint: id-val`` does that) and the bias starts at random; here it starts at 0.
    """

    name: ClassVar[str] = "lp-plus-plus"
    Config: ClassVar[type[MethodConfig]] = LpPlusPlusConfig
    inputs: Inputs = "features"

    def __init__(self, config: LpPlusPlusConfig) -> None:
        super().__init__(config)
        self._texts: Tensor
        self._step_size = self._text_step_size = 0.0
        self._gradient: Tensor

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Class sums as the head, and the text weights, from the shots' features."""
        import torch
        from torch import nn
        from torch.nn.functional import normalize

        model.requires_grad_(False)
        head = model.head.requires_grad_(True)
        with torch.no_grad():
            self._texts = normalize(head.weight, dim=1)
            found = moments(context.examples(), self._texts)
            n = int(found.counts.sum())
            own = found.own / found.counts.clamp(min=1)
            start = self.config.text_weight * float(own.mean())
            self._step_size = 4 * n / float(torch.linalg.eigvalsh(found.gram)[-1])
            self._text_step_size = n / (4 * float(found.squares.max()))
            head.weight.copy_(found.sums)
            head.bias.zero_()
        text_weights = nn.Parameter(head.bias.new_full(head.bias.shape, start))
        model.register_parameter("text_weights", text_weights)
        self._gradient = torch.zeros_like(text_weights)

    def loss(self, model: ImageClassifier, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy on features (n, width)."""
        from torch.nn.functional import cross_entropy

        features = batch.inputs
        logits = model.classify(features) + _text_weights(model) * (features @ self._texts.T)
        smoothing = self.config.label_smoothing
        return {"loss": cross_entropy(logits, batch.labels, label_smoothing=smoothing)}

    def optimizer(self, parameters: Sequence[nn.Parameter]) -> Optimizer:
        """SGD with momentum and a constant step on the head; text weights have steps of their own.

        Of the parameters, the text weights are the last.
        """
        from torch.optim import SGD

        size = self.config.lr * self._step_size

        class ConstantSgd(SGD):
            def step(self, *args: Any, **kwargs: Any) -> Any:
                for group in self.param_groups:
                    group["lr"] = size
                return super().step(*args, **kwargs)

        settings = self.config
        return ConstantSgd(
            parameters[:-1],
            lr=size,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )

    def parameters(self, model: ImageClassifier) -> list[nn.Parameter]:
        """The head's, and the text weights."""
        return [*model.head.parameters(), _text_weights(model)]

    def before_step(self, model: ImageClassifier) -> None:
        """Add the text weights' gradient to those before."""
        gradient = _text_weights(model).grad
        if gradient is not None:
            self._gradient += gradient

    def after_step(self, model: ImageClassifier, step: int) -> None:
        """Every ten steps, one of the text weights."""
        if step % EVERY == 0:
            size = self.config.lr * self._text_step_size
            _text_weights(model).data.sub_(self._gradient, alpha=size)

    def state(self) -> dict[str, Any]:
        """The sum of the text weights' gradients."""
        return {"gradient": self._gradient}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        self._gradient = state["gradient"].to(self._gradient.device)

    def weights(self, model: ImageClassifier) -> Weights:
        """The weights of a plain model: w_c + α_c e_c is one head."""
        weights = dict(model.state_dict())
        text_weights = weights.pop("text_weights")
        weights["head.weight"] = weights["head.weight"] + text_weights[:, None] * self._texts
        return weights


class Moments(NamedTuple):
    """What of all shots counts, float64; none of it grows with their number.

    Attributes:
        gram: Σ f fᵀ (width, width).
        sums: Σ f of each class's shots (classes, width).
        counts: of each class's shots (classes,).
        own: Σ ⟨f, e_c⟩ of each class's shots (classes,).
        squares: Σ ⟨f, e_c⟩² of all shots (classes,).
    """

    gram: Tensor
    sums: Tensor
    counts: Tensor
    own: Tensor
    squares: Tensor


def moments(batches: Iterable[Batch], texts: Tensor) -> Moments:
    """The moments of shots, from their features.

    Args:
        batches: of the shots.
        texts: e, (classes, width).
    """
    import torch
    from torch.nn.functional import one_hot

    texts = texts.double()
    (n, width), zeros = texts.shape, texts.new_zeros
    found = Moments(zeros(width, width), zeros(n, width), zeros(n), zeros(n), zeros(n))
    for batch in batches:
        pieces = zip(torch.split(batch.inputs, HELD), torch.split(batch.labels, HELD), strict=True)
        for features, labels in pieces:
            f, members = features.double(), one_hot(labels, n).double()
            cosines = f @ texts.T
            parts = (f.T @ f, members.T @ f, members.sum(0), (members * cosines).sum(0))
            for total, part in zip(found, (*parts, cosines.square().sum(0)), strict=True):
                total += part
    return found


def _text_weights(model: ImageClassifier) -> nn.Parameter:
    found: nn.Parameter = model.get_parameter("text_weights")
    return found
