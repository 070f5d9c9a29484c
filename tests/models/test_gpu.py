from __future__ import annotations

import copy

import pytest
import torch
from shiftbench.methods.builtin.lora import inject
from shiftbench.models.adapters import adapted_layers
from shiftbench.models.backbones import load_backbone
from shiftbench.models.gpu import PackedAttention, PatchProjection, suit_gpu
from torch import nn

N, LENGTH, WIDTH = 3, 5, 8


def pair(**settings: bool) -> tuple[nn.MultiheadAttention, nn.MultiheadAttention]:
    """The same attention twice, the second packed."""
    torch.manual_seed(0)
    plain = nn.MultiheadAttention(WIDTH, 2, batch_first=True, **settings)
    for parameter in plain.parameters():
        nn.init.normal_(parameter, std=0.3)
    packed = copy.deepcopy(plain)
    suit_gpu(packed)
    assert type(packed) is PackedAttention
    return plain, packed


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_it_computes_the_same_forward_and_back(bias, masked, training):
    mask = torch.full((LENGTH, LENGTH), float("-inf")).triu(1) if masked else None
    found = []
    for attention in pair(bias=bias):
        attention.train(training)
        x = torch.randn(N, LENGTH, WIDTH, generator=torch.Generator().manual_seed(1))
        x.requires_grad_(True)
        mixed, weights = attention(x, x, x, need_weights=False, attn_mask=mask)
        assert weights is None
        mixed.square().sum().backward()
        found.append([mixed.detach(), x.grad, *(p.grad for p in attention.parameters())])
    for ours, theirs in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_whatever_else_is_asked_for_is_the_base_classs():
    plain, packed = pair()
    x, y = torch.randn(N, LENGTH, WIDTH), torch.randn(N, LENGTH, WIDTH)
    padding = torch.zeros(N, LENGTH, dtype=torch.bool)
    padding[:, -1] = True
    for arguments in [{}, {"key_padding_mask": padding, "need_weights": False}]:
        for mine, theirs in zip(
            packed(x, x, x, **arguments), plain(x, x, x, **arguments), strict=True
        ):
            assert (mine is None and theirs is None) or torch.equal(mine, theirs)
    assert torch.equal(
        packed(x, y, y, need_weights=False)[0], plain(x, y, y, need_weights=False)[0]
    )


def test_only_attention_that_is_packed_already_in_its_weights_is_changed():
    first = {"batch_first": True}
    for settings in [{}, {**first, "kdim": 4}, {**first, "add_bias_kv": True}]:
        attention = nn.MultiheadAttention(WIDTH, 2, **settings)
        suit_gpu(attention)
        assert type(attention) is nn.MultiheadAttention


def test_adapters_train_the_same_on_it():
    outputs = []
    for packed in (False, True):
        tower = load_backbone("miniature").clip.visual
        if packed:
            suit_gpu(tower)
        inject(tower, adapted_layers(tower, ["attn"], "lora"), rank=2, alpha=2, seed=0)
        for name, parameter in tower.named_parameters():
            if ".lora_B" in name:
                nn.init.normal_(parameter, generator=torch.Generator().manual_seed(3))
        images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        features = tower(images)
        features.square().sum().backward()
        grads = [p.grad for n, p in tower.named_parameters() if ".lora_A" in n]
        outputs.append([features.detach(), *grads])
    for ours, theirs in zip(outputs[1], outputs[0], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(8, 12), (9, 12)])  # the second does not divide into patches
def test_patches_are_projected_the_same_forward_and_back(bias, size):
    torch.manual_seed(0)
    plain = nn.Conv2d(3, 7, kernel_size=(4, 3), stride=(4, 3), bias=bias)
    fast = copy.deepcopy(plain)
    suit_gpu(fast)
    assert type(fast) is PatchProjection
    found = []
    for convolution in (plain, fast):
        images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
        images.requires_grad_(True)
        projected = convolution(images)
        projected.square().sum().backward()
        grads = [p.grad for p in convolution.parameters()]
        found.append([projected.detach(), images.grad, *grads])
    for ours, theirs in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"stride": 2},
        {"stride": 4, "padding": 1},
        {"stride": 4, "dilation": 2},
        {"stride": 4, "groups": 2},
    ],
)
def test_other_convolutions_stay(settings):
    convolution = nn.Conv2d(4, 8, kernel_size=4, **settings)
    suit_gpu(convolution)
    assert type(convolution) is nn.Conv2d


def test_both_towers_of_a_backbone_encode_the_same():
    plain = load_backbone("miniature").clip
    packed = copy.deepcopy(plain)
    suit_gpu(packed)
    assert sum(isinstance(module, PackedAttention) for module in packed.modules()) > 2
    assert isinstance(packed.visual.conv1, PatchProjection)
    assert list(packed.state_dict()) == list(plain.state_dict())
    images = torch.randn(4, 3, 32, 32)
    tokens = torch.randint(1, 50, (4, plain.context_length))
    with torch.no_grad():
        torch.testing.assert_close(
            packed.encode_image(images), plain.encode_image(images), rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(
            packed.encode_text(tokens), plain.encode_text(tokens), rtol=1e-4, atol=1e-5
        )
