"""Image towers without their weights, for checks before anything is loaded or spent.

They are built on PyTorch's meta device, where tensors have shapes and no values, so that even the
largest takes a second and no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from shiftbench.core.errors import InputError, first_line


def build_tower(width: int, vision: Mapping[str, Any], quick_gelu: bool) -> nn.Module:
    """An image tower on the meta device, in eval mode.

    Args:
        width: of the embedding.
        vision: open_clip's ``vision_cfg``.
        quick_gelu: whether it has OpenAI's approximation of GELU.

    Raises:
        InputError: the configuration makes no tower.
    """
    from open_clip.model import _build_vision_tower

    config = dict(vision)
    if "timm_model_name" in config:
        config["timm_model_pretrained"] = False
    try:
        with torch.device("meta"):
            tower: nn.Module = _build_vision_tower(width, config, quick_gelu)
    # A configuration that is wrong in its values fails wherever open_clip first uses them.
    except Exception as error:
        reason = first_line(error)
        raise InputError(f"its image tower cannot be built: {reason}") from error
    return tower.eval()


def check_image_size(tower: nn.Module) -> None:
    """See that a tower of ``build_tower`` takes images of the size that it is made for.

    Raises:
        InputError: it does not.
    """
    try:
        _forward(tower)
    # Every tower refuses in its own way.
    except Exception as error:
        reason = first_line(error)
        height, width = _size(tower)
        raise InputError(
            f"its image tower does not take images of {height}×{width}, the image_size of its "
            f"vision_cfg: {reason}"
        ) from error


def called_modules(tower: nn.Module) -> set[str]:
    """Names of the modules that a tower calls; of others it reads the weights, if anything.

    Args:
        tower: on the meta device, as ``build_tower`` gives it.
    """
    called: set[str] = set()

    def note(name: str) -> Callable[..., None]:
        return lambda *_: called.add(name)

    hooks = [module.register_forward_hook(note(name)) for name, module in tower.named_modules()]
    try:
        _forward(tower)
    finally:
        for hook in hooks:
            hook.remove()
    return called


def image_side(tower: nn.Module) -> int:
    """Pixels of the shorter side of the images that a tower is made for."""
    return min(_size(tower))


def _size(tower: nn.Module) -> tuple[int, int]:
    """Height and width of the images that a tower is made for."""
    size: Any = tower.image_size
    return (size, size) if isinstance(size, int) else (size[0], size[1])


@torch.no_grad()
def _forward(tower: nn.Module) -> None:
    tower(torch.empty(1, 3, *_size(tower), device="meta"))
