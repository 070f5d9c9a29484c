from __future__ import annotations

import copy

import pytest
import torch
from shiftbench.models import compiling
from shiftbench.models.backbones import load_backbone
from shiftbench.models.classifier import zero_shot_classifier
from shiftbench.models.compiling import (
    compile_blocks,
    compiling_pays,
    forward_operations,
    repeated_blocks,
)
from torch import nn


@pytest.fixture(scope="module")
def model():
    return zero_shot_classifier(load_backbone("miniature"), [["a cat."], ["a dog."]], text=True)


def test_the_blocks_are_those_of_both_towers(model):
    blocks = repeated_blocks(model)
    expected = [*model.visual.transformer.resblocks, *model.text.transformer.resblocks]
    assert {id(block) for block in blocks} == {id(block) for block in expected}


def test_plain_layers_in_a_row_are_no_blocks():
    assert repeated_blocks(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))) == []


def test_compiled_blocks_compute_the_same_forward_and_back(model):
    plain, compiled = copy.deepcopy(model), copy.deepcopy(model)
    names = list(plain.state_dict())
    assert compile_blocks(compiled) == len(repeated_blocks(plain)) > 0
    assert list(compiled.state_dict()) == names
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    logits = []
    for each in (plain, compiled):
        out = each(images)
        out.square().sum().backward()
        logits.append(out.detach())
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(compiled.parameters(), plain.parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-3)


def test_compiling_pays_by_the_arithmetic_and_the_kinds_of_blocks(model, monkeypatch):
    monkeypatch.setattr(compiling, "_can_compile", lambda: True)
    image = copy.deepcopy(model)
    image.text = None
    enough = 1.1 * compiling.SECONDS / compiling.SAVED
    assert compiling_pays(image, enough)
    assert not compiling_pays(image, enough / 1.3)
    next(image.visual.transformer.resblocks[0].parameters()).requires_grad_(False)
    assert not compiling_pays(image, enough) and compiling_pays(image, 2 * enough)
    monkeypatch.setattr(compiling, "MOST_KINDS", 1)
    assert not compiling_pays(image, 100 * enough)
    monkeypatch.setattr(compiling, "_can_compile", lambda: False)
    assert not compiling_pays(model, 100 * enough)


def test_operations_of_an_image_are_counted(model):
    linear = sum(
        module.weight.numel() for module in model.visual.modules() if isinstance(module, nn.Linear)
    )
    assert forward_operations(model.visual, 32) > 2 * linear
