"""How much each patch of an image speaks for a class, by the attention of a vision transformer.

Attention maps times their gradients, rolled out over the blocks (Chefer et al. 2021, arXiv
2103.15679), as the released code of Mask-Fill (arXiv 2303.03052) has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from shiftbench.core.errors import RunFailedError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from shiftbench.models.classifier import ImageClassifier

PIECE = 32
"""Images at a time: their attention maps are in memory together."""


def check_attention(tower: nn.Module) -> None:
    """Refuse a tower that is not a transformer of open_clip's with a class token.

    Raises:
        RunFailedError: one line that says what is looked for.
    """
    if not hasattr(tower, "class_embedding") or not _attentions(tower):
        kind = type(getattr(tower, "trunk", tower)).__name__
        raise RunFailedError(
            f"the relevance of patches is told by the attention of open_clip's VisionTransformer "
            f"with a class token, which {kind} is not"
        )


def patch_relevance(model: ImageClassifier, images: Tensor, labels: Tensor) -> Tensor:
    """The relevance of every patch for an image's label, (n, patches), at most 1 in each image.

    R = I at first; after each block R ← R + mean over heads of max(0, A ⊙ ∂z_y/∂A) · R, where A is
    its attention and z_y the label's logit. The row of the class token is divided by its maximum.

    Args:
        model: its tower is one of ``check_attention``; gradients of its weights are left alone.
        images: (n, 3, size, size).
        labels: (n,) int64.
    """
    import torch

    piece = min(PIECE, model.chunk or PIECE)
    parts = zip(torch.split(images, piece), torch.split(labels, piece), strict=True)
    relevance = torch.cat([_rolled_out(model, *part) for part in parts])
    return relevance / (relevance.amax(dim=1, keepdim=True) + 1e-8)


def _rolled_out(model: ImageClassifier, images: Tensor, labels: Tensor) -> Tensor:
    """The row of the class token in R, without itself, (n, patches)."""
    import torch

    # Compiled blocks would not do what the attentions are made to do for once.
    with torch.enable_grad(), torch.compiler.set_stance("force_eager"):
        with _shown(model.visual) as maps:
            own = model(images).gather(1, labels[:, None]).sum()
        gradients = torch.autograd.grad(own, list(maps.values()))
    tokens = gradients[0].shape[-1]
    rolled = torch.eye(tokens, device=images.device).repeat(len(images), 1, 1)
    with torch.autocast(images.device.type, enabled=False):
        for attention, gradient in zip(maps.values(), gradients, strict=True):
            speaks = (attention.detach().float() * gradient.float()).clamp(min=0).mean(dim=1)
            rolled = rolled + speaks @ rolled
    return rolled[:, 0, 1:]


def _attentions(tower: nn.Module) -> list[nn.MultiheadAttention]:
    from torch import nn

    return [module for module in tower.modules() if isinstance(module, nn.MultiheadAttention)]


@contextmanager
def _shown(tower: nn.Module) -> Iterator[dict[int, Tensor]]:
    """A dictionary that the attention maps (n, heads, tokens, tokens) come into, block by block."""
    maps: dict[int, Tensor] = {}
    attentions = _attentions(tower)
    for i, module in enumerate(attentions):
        module.forward = partial(_attend, module, i, maps)  # type: ignore[method-assign]
    try:
        yield maps
    finally:
        for module in attentions:
            del module.forward


def _attend(
    module: nn.MultiheadAttention, i: int, maps: dict[int, Tensor], x: Tensor, *_: Any, **__: Any
) -> tuple[Tensor, None]:
    """What self-attention does to (n, tokens, width), and its map."""
    from torch.nn.functional import linear

    n, tokens, width = x.shape
    query, key, value = (
        part.view(n, tokens, module.num_heads, -1).transpose(1, 2)
        for part in linear(x, module.in_proj_weight, module.in_proj_bias).chunk(3, dim=-1)
    )
    scores = query @ key.transpose(-2, -1) / (width // module.num_heads) ** 0.5
    attention = maps.setdefault(i, scores.softmax(dim=-1))  # a recomputed one is the same
    attended = (attention @ value).transpose(1, 2).reshape(n, tokens, width)
    return module.out_proj(attended), None
