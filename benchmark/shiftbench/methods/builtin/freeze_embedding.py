"""Freeze-embed: fine-tuning by SGD with the embedding layer frozen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from shiftbench.core.errors import RunFailedError
from shiftbench.methods.builtin.full import Full
from shiftbench.methods.config import MethodConfig, TrainingConfig

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from shiftbench.methods.base import Context
    from shiftbench.models.classifier import ImageClassifier

EMBEDDINGS = (
    # open_clip's vision transformer
    "conv1",
    "class_embedding",
    "positional_embedding",
    "ln_pre",
    # the stem of CLIP's ResNet, whose first convolution is named as above
    "bn1",
    "conv2",
    "bn2",
    "conv3",
    "bn3",
    # timm towers: transformers, ConvNeXt, ResNet, EfficientNet and MobileNet
    "trunk.patch_embed",
    "trunk.cls_token",
    "trunk.reg_token",
    "trunk.pos_embed",
    "trunk.norm_pre",
    "trunk.stem",
    "trunk.conv1",
    "trunk.conv_stem",
    "trunk.bn1",
)
"""Names of the modules and parameters before the first block of open_clip's image towers."""


class FreezeEmbeddingConfig(TrainingConfig):
    """As for full fine-tuning, with SGD's settings.

    The paper searches the rate for every task. 3e-4 is the middle of {1e-4, 3e-4, 1e-3}, which the
    code of LP-FT (arXiv 2202.10054) searches when it fine-tunes CLIP on ImageNet by SGD.
    """

    lr: Annotated[float, Field(gt=0, description="peak learning rate of SGD")] = 3e-4
    weight_decay: Annotated[
        float, Field(ge=0, description="coupled: added to the gradient, times the weight")
    ] = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1, description="without dampening")] = 0.9
    embedding: Annotated[
        tuple[str, ...] | None,
        Field(
            min_length=1,
            description="frozen modules or parameters of the image tower, by name; "
            "null: what is known of open_clip's towers",
        ),
    ] = None


def is_under(name: str, prefix: str) -> bool:
    """True if ``name`` is ``prefix`` or lies in the module of that name."""
    return name == prefix or name.startswith(prefix + ".")


def frozen_names(names: Iterable[str], prefixes: Sequence[str]) -> list[str]:
    """The ``names`` that are, or lie in, any of ``prefixes``."""
    return [name for name in names if any(is_under(name, prefix) for prefix in prefixes)]


def first_convolution(tower: nn.Module) -> str:
    """Name of the first convolution of a tower, through which images enter; "" if there is none."""
    from torch import nn

    return next((name for name, m in tower.named_modules() if isinstance(m, nn.Conv2d)), "")


class FreezeEmbedding(Full):
    """SGD with momentum above a frozen embedding layer (Kumar et al. 2022, arXiv 2211.09359).

    Only parameters are frozen: with ``batch_norm: train`` the running statistics of a stem's batch
    norms follow the training images, as in full fine-tuning.
    """

    name: ClassVar[str] = "freeze-embedding"
    Config: ClassVar[type[MethodConfig]] = FreezeEmbeddingConfig
    config: FreezeEmbeddingConfig

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Freeze the embedding layer."""
        parameters = dict(model.visual.named_parameters())
        for name in self._embedding(model.visual):
            parameters[name].requires_grad_(False)

    def _embedding(self, tower: nn.Module) -> list[str]:
        """Names of the parameters of the embedding layer, the first convolution among them.

        Raises:
            RunFailedError: the settings name what is not there, or nothing and the tower's first
                convolution is not known as a part of an embedding.
        """
        names = [name for name, _ in tower.named_parameters()]
        wanted = self.config.embedding
        for prefix in wanted or ():
            if not frozen_names(names, [prefix]):
                raise RunFailedError(f"{self.name}: the image tower has no parameter {prefix!r}")
        frozen = frozen_names(names, EMBEDDINGS if wanted is None else wanted)
        first = first_convolution(tower)
        if wanted is None and (not frozen or (first and not frozen_names(frozen, [first]))):
            kind = type(getattr(tower, "trunk", tower)).__name__
            begins = f", which begins with {first!r}" if first else ""
            raise RunFailedError(
                f"{self.name}: no known embedding layer in the image tower {kind}{begins}; "
                "name it by `embedding`"
            )
        return frozen

    def optimizer(self, parameters: Sequence[nn.Parameter]) -> Optimizer:
        """SGD with momentum."""
        from torch.optim import SGD

        settings = self.config
        on_gpu = parameters[0].is_cuda
        return SGD(
            parameters,
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            fused=on_gpu,
            foreach=not on_gpu,
        )
