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


def adapted_layers(tower: nn.Module, targets: Sequence[str]) -> list[str]:
    """Names of the layers of ``tower`` that adapters go to.

    These are the ``nn.MultiheadAttention`` and ``nn.Linear`` that are called, or lie in a module
    that is called, by a target: a part of the dotted name, or several. The output projection of an
    attention belongs to it and is no layer of its own.

    Raises:
        RunFailedError: a target names no such layer.
    """
    from torch import nn

    found: dict[str, list[str]] = {target: [] for target in targets}
    attention = ""
    for name, module in tower.named_modules():
        if attention and name.startswith(attention + "."):
            continue
        if isinstance(module, nn.MultiheadAttention):
            attention = name
        elif not isinstance(module, nn.Linear):
            continue
        for target in targets:
            if f".{target}." in f".{name}.":
                found[target].append(name)
    if missing := [target for target, names in found.items() if not names]:
        raise RunFailedError(
            f"lora: no attention or linear layer is called {missing[0]!r}, or lies in a module "
            f"called so, in the image tower of this backbone; its targets can be {_known(tower)}"
        )
    return list(dict.fromkeys(name for names in found.values() for name in names))


def _known(tower: nn.Module) -> str:
    """Names of the attention and linear layers of a tower, each once, with the module around it."""
    from torch import nn

    names = [
        ".".join([part for part in name.split(".") if not part.isdigit()][-2:])
        for name, module in tower.named_modules()
        if isinstance(module, nn.MultiheadAttention | nn.Linear)
    ]
    return ", ".join(dict.fromkeys(names)) or "none: it has no such layers"


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
        from shiftbench.models.towers import called_modules

        built = tower()
        layers = adapted_layers(built, self.config.targets)
        called = called_modules(built)
        if unused := [layer for layer in layers if layer not in called]:
            raise RunFailedError(
                f"lora: the image tower of this backbone reads the weights of {unused[0]!r} and "
                f"never calls it, so it takes no adapter; its targets can be {_known(built)}, "
                "without such layers"
            )

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Put adapters in and freeze the rest of the tower."""
        layers = adapted_layers(model.visual, self.config.targets)
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
