"""LoRA: low-rank updates of the attention of a frozen image tower."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from shiftbench.core.errors import RunFailedError
from shiftbench.methods.builtin.full import Full
from shiftbench.methods.config import MethodConfig, TrainingConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from shiftbench.methods.base import Context, Weights
    from shiftbench.models.classifier import ImageClassifier

ADAPTER = "default"


class LoraConfig(TrainingConfig):
    """As for full fine-tuning, with a larger step; no dropout, which attention does not offer."""

    lr: Annotated[float, Field(gt=0, description="peak learning rate of AdamW")] = 1e-4
    rank: Annotated[int, Field(ge=1, description="of every update")] = 16
    alpha: Annotated[float, Field(gt=0, description="updates are scaled by alpha / rank")] = 16
    targets: Annotated[
        tuple[str, ...],
        Field(
            min_length=1,
            description="names of modules in the image tower: attention, linear layers, or modules "
            "that contain such (`attn`, `mlp`)",
        ),
    ] = ("attn",)
    train_head: Annotated[bool, Field(description="also train the head")] = True


def inject(tower: nn.Module, layers: Sequence[str], rank: int, alpha: float, seed: int) -> None:
    """Put adapters into ``layers`` of ``tower``, in place, and freeze all but the adapters.

    B is zero, so the outputs stay what they are; A is drawn from ``seed`` alone.
    """
    import peft
    import torch
    from torch import nn

    config = peft.LoraConfig(
        r=rank,
        # peft declares an integer and only ever divides it.
        lora_alpha=alpha,
        target_modules="|".join(re.escape(name) for name in layers),
    )
    config._register_custom_module({nn.MultiheadAttention: _attention()})
    # peft draws on the CPU, whatever device the tower is on.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            peft.inject_adapter_in_model(config, tower, ADAPTER)
        except ValueError as error:
            raise RunFailedError(f"lora: {error}") from error
    for name, parameter in tower.named_parameters():
        parameter.requires_grad_(".lora_" in name)


def merge(model: nn.Module) -> dict[str, Tensor]:
    """The weights of the plain model that computes the same: W + scale · B A where adapted.

    Adapted weights are new tensors, the others those of ``model``, which is left as it is.
    """
    weights = {
        _plain(name): tensor for name, tensor in model.state_dict().items() if ".lora_" not in name
    }
    for name, update in _updates(model).items():
        weights[name] = weights[name] + update
    return weights


def _updates(model: nn.Module) -> dict[str, Tensor]:
    """The update, scale · B A, of every adapter, by the name of the weight in the plain model."""
    from peft.tuners.lora.layer import LoraLayer

    weight = {True: "in_proj_weight", False: "weight"}
    return {
        f"{_plain(name)}.{weight[isinstance(module, _attention())]}": _update(module).detach()
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }


def _update(layer: Any) -> Tensor:
    """The update, scale · B A, of one adapter; fp32 also under autocast."""
    import torch

    with torch.autocast(layer.lora_B[ADAPTER].weight.device.type, enabled=False):
        update: Tensor = layer.get_delta_weight(ADAPTER)
    return update


def _plain(name: str) -> str:
    """The name that a module or weight had before adapters were put in."""
    return name.replace(".base_layer", "")


@functools.cache
def _attention() -> type[nn.Module]:
    """An adapted ``nn.MultiheadAttention`` of peft whose forward pass leaves its weights alone.

    peft's own adds the update to the frozen weight and subtracts it again at every pass, so that
    the frozen weight drifts by rounding, and swaps parameter objects meanwhile. Here the sums are
    passed through ``functional_call``. One A serves query, key and value, with a B for all three.
    """
    from peft.tuners.lora.layer import MultiheadAttention
    from torch.func import functional_call

    class AdaptedAttention(MultiheadAttention):  # type: ignore[misc]
        def forward(self, query: Tensor, *args: Any, **kwargs: Any) -> Any:
            attention = self.base_layer
            projection = attention.out_proj
            sums = {
                "in_proj_weight": attention.in_proj_weight + _update(self),
                "out_proj.base_layer.weight": projection.base_layer.weight + _update(projection),
            }
            return functional_call(attention, sums, (query, *args), kwargs)

        def _restore_weights(self) -> None:
            """Nothing to do: the parameters never leave their place."""

    return AdaptedAttention


class Lora(Full):
    """Low-rank adaptation of the image tower (Hu et al. 2021, arXiv 2106.09685).

    The weights it yields are merged: those of a plain model.
    """

    name: ClassVar[str] = "lora"
    Config: ClassVar[type[MethodConfig]] = LoraConfig
    config: LoraConfig

    def check(self, tower: Callable[[], nn.Module]) -> None:
        """See that the targets are layers that the tower calls."""
        from shiftbench.models.adapters import adapted_layers, check_called

        built = tower()
        check_called(built, adapted_layers(built, self.config.targets, self.name), self.name)

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Put adapters in and freeze the rest of the tower."""
        from shiftbench.models.adapters import adapted_layers

        layers = adapted_layers(model.visual, self.config.targets, self.name)
        inject(model.visual, layers, self.config.rank, self.config.alpha, context.seed)
        model.head.requires_grad_(self.config.train_head)

    def before_step(self, model: ImageClassifier) -> None:
        """See that every adapter takes part.

        Some modules read the weights of a linear layer and never call it.
        """
        for name, parameter in model.visual.named_parameters():
            if ".lora_" in name and parameter.grad is None:
                layer = _plain(name).partition(".lora_")[0]
                raise RunFailedError(f"lora: the tower does not run its layer {layer!r}")

    def weights(self, model: ImageClassifier) -> Weights:
        """The weights with adapters merged."""
        return merge(model)
