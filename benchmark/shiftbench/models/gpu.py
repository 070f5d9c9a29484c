"""Parts of a vision transformer, computed in the way that costs a GPU least.

The same functions of the same parameters as PyTorch's modules, up to the order of sums. Measured on
an H200, ViT-B/16 in bf16, 512 images forward: attention's copies took 5 of 52 ms, the convolution
that cuts images into patches 4 ms where its matrix product takes 0.2 (``docs/performance.md``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F  # noqa: N812  (its name everywhere)
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


class PackedAttention(nn.MultiheadAttention):
    """``nn.MultiheadAttention`` of a sequence with itself, the batch first, without weights.

    Anything else is computed as by its base class.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Mixed values (n, length, width) of queries (n, length, width), and no weights."""
        alone = query is key and key is value and query.ndim == 3
        if need_weights or key_padding_mask is not None or is_causal or not alone:
            return super().forward(
                query,
                key,
                value,
                key_padding_mask,
                need_weights,
                attn_mask,
                average_attn_weights,
                is_causal,
            )
        n, length, width = query.shape
        packed = F.linear(query, self.in_proj_weight, self.in_proj_bias)
        q, k, v = packed.view(n, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind()
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask, dropout)
        mixed = mixed.transpose(1, 2).reshape(n, length, width)
        return F.linear(mixed, self.out_proj.weight, self.out_proj.bias), None


class PatchProjection(nn.Conv2d):
    """A convolution of patches that touch and do not overlap, as one matrix product."""

    def forward(self, images: Tensor) -> Tensor:
        """Projected patches (n, width, rows, columns) of images (n, channels, height, width)."""
        n, channels, height, width = images.shape
        rows, columns = height // self.kernel_size[0], width // self.kernel_size[1]
        if (height, width) != (rows * self.kernel_size[0], columns * self.kernel_size[1]):
            return super().forward(images)
        cut = images.view(n, channels, rows, self.kernel_size[0], columns, self.kernel_size[1])
        patches = cut.permute(0, 2, 4, 1, 3, 5).reshape(n, rows * columns, -1)
        projected = F.linear(patches, self.weight.flatten(1), self.bias)
        return projected.transpose(1, 2).view(n, -1, rows, columns)


def suit_gpu(model: nn.Module) -> None:
    """Let a model's parts be computed as GPUs like it, in place; weights and names stay."""
    for module in model.modules():
        if type(module) is nn.MultiheadAttention and _is_packed(module):
            module.__class__ = PackedAttention
        elif type(module) is nn.Conv2d and _cuts_patches(module):
            module.__class__ = PatchProjection


def _is_packed(attention: nn.MultiheadAttention) -> bool:
    """The weights of queries, keys and values are one tensor, and nothing is added to them."""
    return (
        attention.batch_first
        and attention.in_proj_weight is not None
        and attention.bias_k is None
        and not attention.add_zero_attn
    )


def _cuts_patches(convolution: nn.Conv2d) -> bool:
    return (
        convolution.stride == convolution.kernel_size != (1, 1)
        and convolution.padding == (0, 0)
        and convolution.dilation == (1, 1)
        and convolution.groups == 1
    )
