"""Activation checkpointing: the same gradients, bit for bit, and what is computed twice."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F  # noqa: N812
from shiftbench.models.backbones import load_backbone
from shiftbench.models.classifier import ImageClassifier
from shiftbench.models.compiling import repeated_blocks
from shiftbench.models.recomputing import recompute_blocks
from torch import Tensor, nn


def test_gradients_are_the_same_and_activations_are_not_kept() -> None:
    backbone = load_backbone("miniature")
    torch.manual_seed(0)
    width = backbone.clip.text_projection.shape[-1]
    plain = ImageClassifier(copy.deepcopy(backbone.clip.visual), nn.Linear(width, 5)).train()
    checkpointed = copy.deepcopy(plain)
    blocks = repeated_blocks(checkpointed)
    assert recompute_blocks(checkpointed) == recompute_blocks(checkpointed) == len(blocks) > 1
    passes = [0] * len(blocks)
    for i, block in enumerate(blocks):

        def count(module: nn.Module, inputs: object, i: int = i) -> None:
            passes[i] += 1

        next(block.children()).register_forward_pre_hook(count)
    side = backbone.preprocessing.size
    images = torch.randn(6, 3, side, side)
    labels = torch.arange(6) % 5

    def kept_and_gradients(model: ImageClassifier) -> tuple[int, list[Tensor]]:
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            kept[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = F.cross_entropy(model(images), labels)
        held = sum(kept.values())
        loss.backward()
        return held, [p.grad for p in model.parameters() if p.grad is not None]

    more, expected = kept_and_gradients(plain)
    less, found = kept_and_gradients(checkpointed)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert passes == [2] * len(blocks)
    assert less < more / 2
    with torch.inference_mode():
        torch.testing.assert_close(checkpointed(images), plain(images), rtol=0, atol=0)
    assert passes == [3] * len(blocks)
