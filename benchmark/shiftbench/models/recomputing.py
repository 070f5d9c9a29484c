"""Activation checkpointing: what a block computes is computed again when its gradient is due.

Between the two passes only the inputs of a tower's repeated blocks are kept, so memory grows with
their number instead of with all that is inside them, for about a third more arithmetic (Chen et
al., arXiv 1604.06174). The numbers are the same: the second pass has the random state of the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from shiftbench.models.compiling import repeated_blocks


def recompute_blocks(model: nn.Module) -> int:
    """Checkpoint the repeated blocks of a model in place; how many there are.

    Blocks that are checkpointed already stay so, and compiled ones are compiled again. Without
    gradient, as in evaluation, they compute as before. Layers that follow statistics of what they
    see must not be inside: they would see everything twice.
    """
    blocks = repeated_blocks(model)
    for block in blocks:
        if isinstance(block.forward, _Recomputed):
            continue
        block.forward = _Recomputed(block.forward)
        if block._compiled_call_impl is not None:
            block.compile(dynamic=False)
    return len(blocks)


class _Recomputed:
    """A forward pass whose activations are not kept."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self._forward = forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self._forward(*args, **kwargs)
        return checkpoint(self._forward, *args, use_reentrant=False, **kwargs)
