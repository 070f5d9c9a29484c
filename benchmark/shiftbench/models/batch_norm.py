"""Layers with running statistics, above all batch norm: frozen, or trained over all workers.

Normalised by the statistics of whatever examples happen to lie in its batch, such a layer makes the
outcome depend on how a batch is cut up: over workers, into micro-batches, by recomputing
activations. So a training either keeps the pretrained statistics, which makes the layer an affine
map of each example, or uses those of the global batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812  (its name everywhere)
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def with_statistics(model: nn.Module) -> Iterator[nn.Module]:
    """The modules that have running statistics of their own."""
    for module in model.modules():
        if any(name.startswith("running_") for name, _ in module.named_buffers(recurse=False)):
            yield module


class GlobalBatchNorm(TorchFunctionMode):
    """While entered, batch norm in training mode uses the statistics of all workers' examples.

    The same as ``nn.SyncBatchNorm``, which runs on GPUs alone and replaces modules; this acts on
    every module that calls ``torch.nn.functional.batch_norm``, on any device. Gradients pass
    through the statistics to the examples of all workers. Every worker has equally many.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace ``batch_norm``; every other function is called as it is."""
        if func is F.batch_norm:
            return _global_batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _global_batch_norm(
    inputs: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``functional.batch_norm`` of (n, channels, …) with moments over the examples of all workers.

    As there, the running variance follows the unbiased estimate.
    """
    if not training:
        return F.batch_norm(
            inputs, running_mean, running_var, weight, bias, training, momentum, eps
        )
    size = dist.get_world_size()
    others = [0, *range(2, inputs.ndim)]
    count = size * inputs.numel() // inputs.shape[1]
    with torch.autocast(inputs.device.type, enabled=False):
        x = inputs.float()
        mean = _sum_over_workers(x.sum(others)) / count
        centred = x - _per_channel(mean, x)
        variance = _sum_over_workers(centred.square().sum(others)) / count
        outputs = centred * _per_channel((variance + eps).rsqrt(), x)
        if weight is not None:
            outputs = outputs * _per_channel(weight.float(), x)
        if bias is not None:
            outputs = outputs + _per_channel(bias.float(), x)
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean.to(running_mean), momentum)
        if running_var is not None:
            unbiased = variance * (count / max(count - 1, 1))
            running_var.lerp_(unbiased.to(running_var), momentum)
    return outputs.to(inputs.dtype)


def _sum_over_workers(local: Tensor) -> Tensor:
    """The sum of a tensor over all workers, with gradient to those of all of them."""
    from torch.distributed.nn.functional import all_reduce

    total: Tensor = all_reduce(local)  # type: ignore[no-untyped-call]
    return total


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    """(channels,) in a shape that broadcasts over (n, channels, …)."""
    return values.view(1, -1, *[1] * (like.ndim - 2))
