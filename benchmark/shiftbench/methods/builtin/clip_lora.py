"""CLIP-LoRA: low-rank updates of query, key and value in all blocks of both towers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from shiftbench.core.errors import RunFailedError
from shiftbench.methods.base import Architecture, TrainedMethod
from shiftbench.methods.config import MethodConfig, TrainingConfig
from shiftbench.methods.contrastive import EveryHead
from shiftbench.methods.masks import scaled_cosines
from shiftbench.methods.search import Searched, Uniform

if TYPE_CHECKING:
    from torch import Tensor, nn

    from shiftbench.methods.base import Batch, Context, Weights
    from shiftbench.models.classifier import ImageClassifier


class ClipLoraConfig(TrainingConfig):
    """Settings of the released code, the same for all tasks and numbers of shots.

    Its 500 · shots steps are 16,000 / classes epochs, 16 of ImageNet's. Its cosine ends at 1e-6,
    not at 0.
    """

    lr: Annotated[float, Field(gt=0, description="peak learning rate of AdamW")] = 2e-4
    weight_decay: Annotated[float, Field(ge=0, description="decoupled weight decay")] = 1e-2
    epochs: Annotated[float, Field(gt=0, description="passes over the training set")] = 16
    batch_size: Annotated[int, Field(ge=1, description="global batch, over all workers")] = 32
    warmup_steps: Annotated[int, Field(ge=0, description="linear warm-up, in steps")] = 0
    max_grad_norm: Annotated[
        float | None, Field(gt=0, description="global gradient norm; null: off")
    ] = None
    train_head: EveryHead = True
    rank: Annotated[int, Field(ge=1, description="of every update")] = 2
    alpha: Annotated[
        float, Field(gt=0, description="updates are scaled by alpha / √rank, as released")
    ] = 1.0
    dropout: Annotated[
        float,
        Field(ge=0, lt=1, description="of the inputs of updates"),
        Searched(Uniform(low=0, high=0.5)),
    ] = 0.25
    text_chunk: Annotated[
        int, Field(ge=1, description="prompts encoded at a time; activations are recomputed")
    ] = 256


def self_attentions(tower: nn.Module) -> list[str]:
    """Names of the attention layers whose query, key and value have one weight."""
    from torch import nn

    return [
        name
        for name, module in tower.named_modules()
        if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None
    ]


class ClipLora(TrainedMethod[ClipLoraConfig]):
    """Few-shot low-rank adaptation of both towers (Zanella and Ben Ayed 2024, arXiv 2405.18541).

    Class embeddings are computed with gradient at every step, as published in one template; where
    the task has several, in each in turn. The temperature stays the backbone's, CLIP's 100. Unlike
    ``lora``, query, key and value have updates of their own, and output projections none. The
    weights it yields are merged: those of a plain model.
    """

    name: ClassVar[str] = "clip-lora"
    Config: ClassVar[type[MethodConfig]] = ClipLoraConfig
    checked: ClassVar[tuple[str, ...] | None] = ()

    def architecture(self) -> Architecture:
        """Both towers; the head follows from the text tower."""
        return Architecture(text=True, head="text")

    def check(self, tower: Callable[[], nn.Module]) -> None:
        """See that the image tower calls attention that can be adapted."""
        from shiftbench.models.adapters import check_called

        built = tower()
        check_called(built, self._layers(built, "image tower"), self.name)

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Put updates into both towers and freeze the rest, the temperature too."""
        from shiftbench.models.adapters import LoraAttention, inject

        settings = self.config
        of_image = self._layers(model.visual, "image tower")
        of_text = self._layers(model.text_tower, "text tower")
        layers = [*(f"visual.{name}" for name in of_image), *(f"text.{name}" for name in of_text)]

        def adapt(layer: nn.Module) -> nn.Module:
            return LoraAttention(layer, settings.rank, settings.alpha, settings.dropout)

        inject(model, layers, adapt, context.seed)

    def loss(self, model: ImageClassifier, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy, with the class embeddings of template ``batch.step`` mod their number."""
        from torch.nn.functional import cross_entropy

        if model.prompts is None:
            raise TypeError("this model has no prompts")
        template = batch.step % len(model.prompts)
        embeddings = model.class_embeddings(template, self.config.text_chunk)
        logits = scaled_cosines(model.features(batch.inputs), embeddings, model.temperature)
        smoothing = self.config.label_smoothing
        return {"loss": cross_entropy(logits, batch.labels, label_smoothing=smoothing)}

    def weights(self, model: ImageClassifier) -> Weights:
        """The weights with updates merged."""
        from shiftbench.models.adapters import LoraAttention, adapters, plain_weights

        found = adapters(model).items()
        merged = {name: layer.merged() for name, layer in found if isinstance(layer, LoraAttention)}
        return plain_weights(model, merged)

    def _layers(self, tower: nn.Module, where: str) -> list[str]:
        layers = self_attentions(tower)
        if not layers:
            raise RunFailedError(
                f"{self.name}: the {where} of this backbone has no attention layer with one weight "
                "for query, key and value"
            )
        return layers
