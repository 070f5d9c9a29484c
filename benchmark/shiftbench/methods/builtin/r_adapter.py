"""R-Adapter: linear adapters that are dropped, averaged and scaled, then merged into the towers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from shiftbench.methods.base import Architecture, TrainedMethod
from shiftbench.methods.builtin.ema import ema_share
from shiftbench.methods.config import MethodConfig
from shiftbench.methods.contrastive import ContrastiveConfig, gather, gathered_pairs
from shiftbench.methods.search import LogUniform, Searched, Uniform

if TYPE_CHECKING:
    from torch import Tensor, nn

    from shiftbench.methods.base import Batch, Context, Weights
    from shiftbench.models.adapters import OutputAdapter
    from shiftbench.models.classifier import ImageClassifier

Targets = Annotated[tuple[str, ...], Field(min_length=1)]
LAYERS = ("attn", "mlp.c_proj")
"""The layers of open_clip's blocks whose outputs are added to the residual stream."""


class RAdapterConfig(ContrastiveConfig):
    """Settings of the paper for ImageNet, but for ``smoothing``, of which it is not known to us."""

    lr: Annotated[float, Field(gt=0, description="peak learning rate of AdamW")] = 5e-4
    weight_decay: Annotated[float, Field(ge=0, description="decoupled weight decay")] = 0.0
    targets: Annotated[
        Targets,
        Field(
            description="names of modules in the image tower whose outputs are adapted: attention, "
            "or linear layers"
        ),
    ] = LAYERS
    text_targets: Annotated[Targets, Field(description="the same in the text tower")] = LAYERS
    rank: Annotated[
        int | None,
        Field(ge=1, description="of every adapter, for few shots; null: of full rank"),
    ] = None
    drop: Annotated[
        float,
        Field(ge=0, lt=1, description="p of an example passing by an adapter while training"),
        Searched(Uniform(low=0, high=0.5)),
    ] = 0.2
    decay: Annotated[
        float, Field(ge=0, lt=1, description="m of the moving average of adapters, of every step")
    ] = 0.999
    debias: Annotated[
        bool,
        Field(
            description="forget where that average began, as if at zero and over 1 - m^t: in short "
            "trainings it else stays near there, at adapters without effect"
        ),
    ] = False
    alpha: Annotated[
        float,
        Field(ge=0, le=1, description="part of the averaged adapters that is merged"),
        Searched(Uniform(low=0, high=1)),
    ] = 0.5
    temperature: Annotated[
        float,
        Field(gt=0, description="τ that cosines are divided by, fixed"),
        Searched(LogUniform(low=0.005, high=0.1)),
    ] = 0.01
    margin: Annotated[
        float,
        Field(ge=0, description="δ that is added to the cosines of negatives"),
        Searched(Uniform(low=0, high=0.2)),
    ] = 0.05
    smoothing: Annotated[
        float,
        Field(ge=0, lt=1, description="ε of the target that all negatives share"),
        Searched(Uniform(low=0, high=0.2)),
    ] = 0.05


def mpm_nce(
    images: Tensor,
    texts: Tensor,
    labels: Tensor,
    temperature: float,
    margin: float,
    smoothing: float,
) -> Tensor:
    """Multi-positive margin NCE, the mean over both directions and all examples; fp32 at least.

    With y_ij = 1 for examples of one class and the P_i = Σ_j y_ij of them, image i has the target
    (1 - ε) y_ij / P_i + ε (1 - y_ij) / (n - P_i) over the logits (I_i · T_j + δ (1 - y_ij)) / τ;
    captions have the same over images.

    Args:
        images: L2-normalised features (n, width).
        texts: L2-normalised embeddings (n, width) of the captions of those images.
        labels: (n,) int64.
        temperature: τ.
        margin: δ.
        smoothing: ε; in a batch of one class it has no negatives to go to.

    Returns:
        Scalar.
    """
    import torch
    from torch.nn.functional import cross_entropy

    with torch.autocast(images.device.type, enabled=False):
        cosines = images @ texts.T
        same = (labels[:, None] == labels[None, :]).to(cosines)
        logits = (cosines + margin * (1 - same)) / temperature
        positives = same.sum(dim=1, keepdim=True)
        negatives = (len(labels) - positives).clamp(min=1)
        target = (1 - smoothing) * same / positives + smoothing * (1 - same) / negatives
        # `same` is symmetric, so captions have the targets that images have.
        return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


class RAdapter(TrainedMethod[RAdapterConfig]):
    """Robust adapters in both towers (Kim et al. 2024, arXiv 2408.05749).

    The outputs X of attention and MLP of every block become X (I + W), before they are added to the
    residual stream; all else is frozen. What is evaluated is a plain model with I + α W̃ merged into
    the output projections, biases too, where W̃ is the moving average of W (of its two factors, if
    it has a rank), beginning where W does. So α is WiSE-FT's between pretrained and averaged
    weights: the curve over it is the method ``wise-ft`` with a run of α = 1 as its parent.
    """

    name: ClassVar[str] = "r-adapter"
    Config: ClassVar[type[MethodConfig]] = RAdapterConfig
    checked: ClassVar[tuple[str, ...] | None] = ("targets",)
    captions: bool = True
    whole_batch: bool = True

    def __init__(self, config: RAdapterConfig) -> None:
        super().__init__(config)
        self.revision = 0 if config.rank is None else 1

    def architecture(self) -> Architecture:
        """Both towers; the head follows from the text tower."""
        return Architecture(text=True, head="text")

    def check(self, tower: Callable[[], nn.Module]) -> None:
        """See that the targets are layers that the image tower calls."""
        from shiftbench.models.adapters import adapted_layers, check_called

        built = tower()
        check_called(built, adapted_layers(built, self.config.targets, self.name), self.name)

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Put adapters in, freeze the rest, and begin the average at what they are."""
        from shiftbench.models.adapters import OutputAdapter, adapted_layers, inject

        settings = self.config
        of_image = adapted_layers(model.visual, settings.targets, self.name)
        of_text = adapted_layers(model.text_tower, settings.text_targets, self.name, "text tower")
        layers = [*(f"visual.{name}" for name in of_image), *(f"text.{name}" for name in of_text)]

        def adapt(layer: nn.Module) -> nn.Module:
            return OutputAdapter(layer, settings.rank, settings.drop)

        inject(model, layers, adapt, context.seed)
        self._mean = {
            name: [factor.detach().clone() for factor in adapter.factors]
            for name, adapter in self._adapters(model).items()
        }

    def loss(self, model: ImageClassifier, batch: Batch) -> dict[str, Tensor]:
        """The multi-positive margin loss of the global batch."""
        settings = self.config
        images, texts, _ = gathered_pairs(model, batch)
        loss = mpm_nce(
            images,
            texts,
            gather(batch.labels),
            settings.temperature,
            settings.margin,
            settings.smoothing,
        )
        return {"loss": loss}

    def after_step(self, model: ImageClassifier, step: int) -> None:
        """Move the average."""
        share = ema_share(step, self.config.decay, self.config.debias)
        for name, adapter in self._adapters(model).items():
            for mean, factor in zip(self._mean[name], adapter.factors, strict=True):
                mean.lerp_(factor.detach(), share)

    def state(self) -> dict[str, Any]:
        """The average, by the name of the adapted layer."""
        return {"mean": self._mean}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back the average."""
        for name, factors in self._mean.items():
            for factor, kept in zip(factors, state["mean"][name], strict=True):
                factor.copy_(kept)

    def weights(self, model: ImageClassifier) -> Weights:
        """The weights with α of the average merged."""
        from shiftbench.models.adapters import plain_weights

        merged = {
            name: adapter.merged(self._mean[name], self.config.alpha)
            for name, adapter in self._adapters(model).items()
        }
        return plain_weights(model, merged)

    def _adapters(self, model: nn.Module) -> dict[str, OutputAdapter]:
        """The adapted layers, by the names that they had."""
        from shiftbench.models.adapters import OutputAdapter, adapters

        found = adapters(model).items()
        return {name: layer for name, layer in found if isinstance(layer, OutputAdapter)}
