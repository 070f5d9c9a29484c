"""Task vectors: what fine-tunings have changed of the pretrained weights (arXiv 2212.04089).

Weights are merged a tensor at a time, so of many models only one tensor each is held beside the
result. Weights that were read from a file are pages of that file, which the system drops again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from shiftbench.models.weights import Weights, check_alike


class TaskVectors:
    """The differences dᵢ = θᵢ - θ0 of some fine-tuned weights from the pretrained ones.

    They cover the floating-point tensors, buffers among them, have the tensors' own dtype, and are
    computed anew whenever one is asked for.

    Args:
        theta0: the pretrained weights.
        thetas: fine-tuned ones, one or more, on the same device.

    Attributes:
        names: of the tensors, in the order of ``theta0``.
        size: number of scalars of all these tensors.

    Raises:
        InputError: names, shapes or dtypes differ.
    """

    def __init__(self, theta0: Weights, thetas: Sequence[Weights]) -> None:
        check_alike(theta0, *thetas)
        self._theta0 = theta0
        self._thetas = thetas
        self.names = tuple(name for name, t in theta0.items() if t.is_floating_point())
        self.size = sum(theta0[name].numel() for name in self.names)

    def __len__(self) -> int:
        return len(self._thetas)

    def one(self, i: int, name: str) -> Tensor:
        """The difference of the i-th model in one tensor, in its shape."""
        return self._thetas[i][name] - self._theta0[name]

    def of(self, name: str) -> Tensor:
        """The differences of all n models in one tensor, (n, …)."""
        return torch.stack([self.one(i, name) for i in range(len(self))])


def added(
    theta0: Weights, change: Callable[[str], Tensor], scale: float = 1.0
) -> dict[str, Tensor]:
    """θ0 + scale · change, of floating-point tensors; all others are those of ``theta0``.

    Args:
        theta0: weights to start from; the result is on their device and in their dtypes, computed
            in float64 and rounded once.
        change: gives what is added to the tensor of a name.
        scale: λ.
    """
    return {
        name: torch.add(tensor.double(), change(name).double(), alpha=scale).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor.clone()
        for name, tensor in theta0.items()
    }
