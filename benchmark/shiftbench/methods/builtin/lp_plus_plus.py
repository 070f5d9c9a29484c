"""LP++: a linear probe beside the zero-shot head, with step sizes that follow from the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from shiftbench.methods.base import Inputs, TrainedMethod
from shiftbench.methods.config import MethodConfig, TrainingConfig
from shiftbench.methods.search import LogUniform, Searched

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from shiftbench.methods.base import Batch, Context, Weights
    from shiftbench.models.classifier import ImageClassifier

EVERY = 10
"""Steps between two of the text weights."""


class LpPlusPlusConfig(TrainingConfig):
    """Those of the released code: full batches, constant steps, momentum."""

    lr: Annotated[
        float, Field(gt=0, description="what the step sizes that follow from the data are times")
    ] = 1.0
    momentum: Annotated[float, Field(ge=0, lt=1, description="without dampening")] = 0.9
    weight_decay: Annotated[float, Field(ge=0, description="coupled")] = 0.0
    epochs: Annotated[float, Field(gt=0, description="full batches, so as many steps")] = 300
    batch_size: Annotated[
        int, Field(ge=1, description="the step sizes are of all shots at once: leave it that large")
    ] = 10_000_000
    warmup_steps: Annotated[int, Field(ge=0, description="no part: step sizes are constant")] = 0
    max_grad_norm: Annotated[float | None, Field(gt=0, description="null: off")] = None
    text_weight: Annotated[
        float,
        Field(ge=0, description="α starts at this times the shots' mean cosine with their class"),
        Searched(LogUniform(low=1, high=1000)),
    ] = 250.0
    train_head: Annotated[
        Literal[True], Field(exclude_if=lambda value: value, description="nothing else trains")
    ] = True


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
        from torch.nn.functional import normalize, one_hot

        batches = [(batch.inputs, batch.labels) for batch in context.examples()]
        features, labels = (torch.cat(part) for part in zip(*batches, strict=True))
        model.requires_grad_(False)
        head, n = model.head.requires_grad_(True), len(labels)
        with torch.no_grad():
            self._texts = normalize(head.weight, dim=1)
            cosines = features.double() @ self._texts.double().T
            members = one_hot(labels, len(head.weight)).double()
            own = (members * cosines).sum(0) / members.sum(0).clamp(min=1)
            start = self.config.text_weight * float(own.mean())
            gram = features.double().T @ features.double()
            self._step_size = 4 * n / float(torch.linalg.eigvalsh(gram)[-1])
            self._text_step_size = n / (4 * float(cosines.square().sum(0).max()))
            head.weight.copy_(members.T @ features.double())
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


def _text_weights(model: ImageClassifier) -> nn.Parameter:
    found: nn.Parameter = model.get_parameter("text_weights")
    return found
