"""The projections into the common space with which CLIP's towers end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from shiftbench.core.errors import RunFailedError

if TYPE_CHECKING:
    from torch import Tensor, nn

IMAGE = ("proj", "head.proj", "attnpool.c_proj")
"""Names of the projection in open_clip's own, timm's and ResNet image towers."""
TEXT = ("text_projection", "text.text_projection", "text.proj")
"""The same in open_clip's text towers, and those of transformers."""


def image_projection(tower: nn.Module, method: str) -> Tensor:
    """P (width, embed) of an image tower, whose features are x P; with gradient.

    Raises:
        RunFailedError: it ends with something else, in the words of ``method``.
    """
    return _projection(tower, IMAGE, method, "image tower")


def text_projection(tower: nn.Module, method: str) -> Tensor:
    """P (width, embed) of a text tower, as ``image_projection``."""
    return _projection(tower, TEXT, method, "text tower")


def cross_norm(of_image: Tensor, of_text: Tensor) -> Tensor:
    """‖P_v P_tᵀ‖, the Frobenius norm, fp32 also under autocast."""
    import torch

    with torch.autocast(of_image.device.type, enabled=False):
        norm: Tensor = torch.linalg.norm(of_image @ of_text.T)
    return norm


def orthogonality(projection: Tensor) -> Tensor:
    """‖PᵀP - I‖, the Frobenius norm, of P (width, embed), fp32 also under autocast."""
    import torch

    with torch.autocast(projection.device.type, enabled=False):
        gram = projection.T @ projection
        identity = torch.eye(len(gram), device=gram.device, dtype=gram.dtype)
        norm: Tensor = torch.linalg.norm(gram - identity)
    return norm


def _projection(tower: nn.Module, names: Sequence[str], method: str, where: str) -> Tensor:
    from torch import nn

    for name in names:
        found: object = tower
        for part in name.split("."):
            found = getattr(found, part, None)
        if isinstance(found, nn.Linear):
            return found.weight.T
        if isinstance(found, nn.Parameter):
            return found
    raise RunFailedError(
        f"{method}: the {where} of this backbone ends with no linear projection; looked for "
        f"{', '.join(names)}"
    )
