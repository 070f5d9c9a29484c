"""Small trained modules inside a frozen tower, and the plain weights that compute the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (its name everywhere)
from torch import Tensor, nn

from shiftbench.core.errors import RunFailedError

BASE = "base_layer"
"""What an adapted layer calls the layer that it was; peft does so too."""


def adapted_layers(
    tower: nn.Module, targets: Sequence[str], method: str, where: str = "image tower"
) -> list[str]:
    """Names of the layers of ``tower`` that adapters go to.

    These are the ``nn.MultiheadAttention`` and ``nn.Linear`` that are called, or lie in a module
    that is called, by a target: a part of the dotted name, or several. The output projection of an
    attention belongs to it and is no layer of its own.

    Args:
        tower: without adapters.
        targets: what the settings call them.
        method: whose message it is.
        where: what the message calls the tower.

    Raises:
        RunFailedError: a target names no such layer.
    """
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
            f"{method}: no attention or linear layer is called {missing[0]!r}, or lies in a module "
            f"called so, in the {where} of this backbone; its targets can be {adaptable(tower)}"
        )
    return list(dict.fromkeys(name for names in found.values() for name in names))


def adaptable(tower: nn.Module) -> str:
    """Names of the attention and linear layers of a tower, each once, with the module around it."""
    names = [
        ".".join([part for part in name.split(".") if not part.isdigit()][-2:])
        for name, module in tower.named_modules()
        if isinstance(module, nn.MultiheadAttention | nn.Linear)
    ]
    return ", ".join(dict.fromkeys(names)) or "none: it has no such layers"


def check_called(tower: nn.Module, layers: Sequence[str], method: str) -> None:
    """See that an image tower on the meta device calls some layers.

    Raises:
        RunFailedError: it reads the weights of one, whose adapter would then have no effect.
    """
    from shiftbench.models.towers import called_modules

    called = called_modules(tower)
    if unused := [layer for layer in layers if layer not in called]:
        raise RunFailedError(
            f"{method}: the image tower of this backbone reads the weights of {unused[0]!r} and "
            f"never calls it, so it takes no adapter; its targets can be {adaptable(tower)}, "
            "without such layers"
        )


class LoraAttention(nn.Module):
    """A frozen attention whose query, key and value each have a low-rank update of their own.

    ``q = x W_qᵀ + b_q + α / √r · dropout(x) A_qᵀ B_qᵀ``, and so for key and value. A is drawn as
    PyTorch draws linear layers, B begins at zero.

    Args:
        base_layer: with one ``in_proj_weight``, batch first.
        rank: r.
        alpha: α.
        dropout: of the updates' inputs, drawn for each of the three by itself.
    """

    def __init__(self, base_layer: nn.Module, rank: int, alpha: float, dropout: float) -> None:
        super().__init__()
        self.base_layer = _attention(base_layer)
        weight = self.base_layer.in_proj_weight
        width = self.base_layer.embed_dim
        bound = 1 / math.sqrt(width)
        # Drawn on the CPU, so that the device does not matter.
        a = torch.empty(3, rank, width).uniform_(-bound, bound)
        self.lora_a = nn.Parameter(a.to(weight))
        self.lora_b = nn.Parameter(weight.new_zeros(3, width, rank))
        self.scale = alpha / math.sqrt(rank)
        self.dropout = dropout

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """As of ``nn.MultiheadAttention``, without weights.

        Args:
            query: (n, length, width).
            key: (n, another length, width).
            value: as key.
            need_weights: must be false.
            attn_mask: to be added to (query length, key length) of logits, or boolean and true
                where nothing is attended to; of every example, or (n · heads, …).
        """
        if need_weights:
            raise ValueError("the weights of an adapted attention are not computed")
        base = self.base_layer
        heads = (base.num_heads, base.head_dim)
        q, k, v = (
            self._project(x, i).view(*x.shape[:2], *heads).transpose(1, 2)
            for i, x in enumerate((query, key, value))
        )
        attended = F.scaled_dot_product_attention(
            q, k, v, self._mask(attn_mask, q), base.dropout if self.training else 0.0
        )
        return base.out_proj(attended.transpose(1, 2).flatten(2)), None

    def merged(self) -> dict[str, Tensor]:
        """The weights that a plain attention which computes the same has instead, by name."""
        update = torch.bmm(self.lora_b.detach(), self.lora_a.detach()).flatten(0, 1)
        return {"in_proj_weight": self.base_layer.in_proj_weight.detach() + self.scale * update}

    def _project(self, x: Tensor, i: int) -> Tensor:
        """Query (0), key (1) or value (2) of x."""
        base = self.base_layer
        bias = None if base.in_proj_bias is None else base.in_proj_bias.chunk(3)[i]
        low = F.linear(F.dropout(x, self.dropout, self.training), self.lora_a[i])
        update = F.linear(low, self.lora_b[i])
        return F.linear(x, base.in_proj_weight.chunk(3)[i], bias) + self.scale * update

    def _mask(self, mask: Tensor | None, query: Tensor) -> Tensor | None:
        """A mask as ``scaled_dot_product_attention`` has it: booleans mean the opposite there."""
        if mask is None:
            return None
        mask = ~mask if mask.dtype == torch.bool else mask.to(query.dtype)
        return mask if mask.ndim == 2 else mask.view(len(query), -1, *mask.shape[1:])


class OutputAdapter(nn.Module):
    """A frozen layer whose output X becomes ``X + γ / (1 - p) · X W``.

    In training γ is 0 or 1 for each example by itself, 1 with probability 1 - p; else γ = 1 and
    p = 0. W begins at zero: it is a parameter (width, width), or ``U V`` of a lower rank, where U
    is drawn as PyTorch draws linear layers and V begins at zero.

    Args:
        base_layer: attention, of whose output the first part is X, or a linear layer; the first
            dimension of X counts examples.
        rank: of W; ``None`` for one that is not factored.
        drop: p.
    """

    def __init__(self, base_layer: nn.Module, rank: int | None, drop: float) -> None:
        super().__init__()
        self.base_layer = (
            base_layer if isinstance(base_layer, nn.Linear) else _attention(base_layer)
        )
        self.drop = drop
        weight = self._last[1].weight
        width = len(weight)
        if rank is None:
            factors = [weight.new_zeros(width, width)]
        else:
            bound = 1 / math.sqrt(width)
            u = torch.empty(width, rank).uniform_(-bound, bound)  # on the CPU, as above
            factors = [u.to(weight), weight.new_zeros(rank, width)]
        self.factors = nn.ParameterList(factors)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The output of the base layer, adapted."""
        output = self.base_layer(*args, **kwargs)
        if isinstance(output, tuple):
            return self._adapted(output[0]), *output[1:]
        return self._adapted(output)

    def merged(self, factors: Sequence[Tensor], alpha: float) -> dict[str, Tensor]:
        """The weights that a plain layer whose output is ``X (I + α W)`` has instead, by name.

        Args:
            factors: of W, as the parameter has them.
            alpha: α.
        """
        prefix, last = self._last
        update = alpha * (factors[0] if len(factors) == 1 else factors[0] @ factors[1]).detach()
        weights = {f"{prefix}weight": last.weight.detach() + update.T @ last.weight.detach()}
        if last.bias is not None:
            weights[f"{prefix}bias"] = last.bias.detach() + last.bias.detach() @ update
        return weights

    @property
    def _last(self) -> tuple[str, nn.Linear]:
        """The linear layer that X comes from, and what precedes its weights' names."""
        base = self.base_layer
        return ("", base) if isinstance(base, nn.Linear) else ("out_proj.", base.out_proj)

    def _adapted(self, x: Tensor) -> Tensor:
        update = x
        for factor in self.factors:
            update = update @ factor
        if not (self.training and self.drop):
            return x + update
        passed = F.dropout(x.new_ones(len(x), *[1] * (x.ndim - 1)), self.drop)
        return x + passed * update


def _attention(layer: nn.Module) -> nn.MultiheadAttention:
    if not (isinstance(layer, nn.MultiheadAttention) and layer.batch_first):
        raise TypeError(f"needs an attention that is batch first, not {layer}")
    return layer


def adapters(model: nn.Module) -> dict[str, LoraAttention | OutputAdapter]:
    """The adapted layers of a model, by the names that these layers had."""
    kinds = (LoraAttention, OutputAdapter)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def inject(
    tower: nn.Module, layers: Sequence[str], adapt: Callable[[nn.Module], nn.Module], seed: int
) -> None:
    """Adapt ``layers`` of ``tower``, in place, and freeze all but what is new.

    Args:
        tower: frozen but for the adapters afterwards.
        layers: names of modules.
        adapt: makes an adapted layer of one, which draws from PyTorch's generator alone.
        seed: of what is drawn.
    """
    tower.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for name in layers:
            tower.set_submodule(name, adapt(tower.get_submodule(name)))


def plain_weights(
    model: nn.Module, merged: Mapping[str, Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """The weights of the model that has no adapters and computes the same.

    Args:
        model: with adapters, which is left as it is.
        merged: by the name of each adapted layer, the weights of that layer that differ, detached.
    """
    own = {
        f"{name}.{parameter}"
        for name, module in adapters(model).items()
        for parameter, _ in module.named_parameters()
        if not parameter.startswith(f"{BASE}.")
    }
    weights = {
        name.replace(f".{BASE}.", "."): tensor
        for name, tensor in model.state_dict().items()
        if name not in own
    }
    for layer, changed in merged.items():
        weights |= {f"{layer}.{name}": tensor for name, tensor in changed.items()}
    return weights
