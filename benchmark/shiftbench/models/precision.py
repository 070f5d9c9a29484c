"""The precision that matrix products and convolutions are computed in: asked for, not a default.

PyTorch's own defaults differ between operations: on NVIDIA GPUs convolutions use TF32 unless they
are told not to, and matrix products do not. Here both do what the setting says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "tf32", "bf16"]
"""``fp32``: IEEE single precision; ``tf32``: its operands rounded to ten bits of mantissa, on GPUs
that can; ``bf16``: autocast, where weights, normalisation, head and loss stay in fp32."""


@contextmanager
def matrix_precision(precision: Precision) -> Iterator[None]:
    """Let products of fp32 operands use TF32, or not, as ``precision`` says, until the end.

    It is a setting of the process, and holds for backward passes too. A CPU, and a GPU without
    TF32, compute in fp32 either way.
    """
    import torch

    # Not the newer fp32_precision: torch.compile reads these, and refuses a mixture of the two.
    matmul, convolution = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolution


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """A context for forward passes: bf16 where that is the precision, else nothing."""
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
