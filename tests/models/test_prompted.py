"""Towers with prompts against a forward pass in float64 that is written out token by token."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from shiftbench.core.errors import RunFailedError
from shiftbench.models.backbones import Backbone, load_backbone
from shiftbench.models.classifier import ImageClassifier, zero_shot_classifier
from shiftbench.models.prompted import (
    PromptShape,
    attention_blocks,
    place_of,
    prompted,
    prompts_of,
)
from shiftbench.models.weights import interpolate
from torch import Tensor

from tests.models.tiny import RESNET, config, save_backbone

NAMES = ["cat", "sea lion", "dog"]
SHAPE = PromptShape("a photo of a", image=3, depth=2)
HEADS = 2


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """Three blocks in either tower, of which two have prompts of their own."""
    document = config()
    document["model_cfg"]["vision_cfg"]["layers"] = 3
    document["model_cfg"]["text_cfg"]["layers"] = 3
    folder = tmp_path_factory.mktemp("tower")
    save_backbone(folder, document)
    return load_backbone(str(folder))


def plain_of(backbone: Backbone) -> ImageClassifier:
    prompts = [[f"a photo of a {name}.", f"a sketch of a {name}."] for name in NAMES]
    return zero_shot_classifier(backbone, prompts, text=True)


def prompted_of(backbone: Backbone, share: float, seed: int = 0) -> ImageClassifier:
    """With random vectors, which count with a share."""
    model = prompted(plain_of(backbone), backbone.tokenizer, SHAPE, NAMES)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for prompts in prompts_of(model):
            prompts.vectors.copy_(torch.randn(prompts.vectors.shape, generator=draw))
            prompts.share.fill_(share)
    return model


def slow_block(block: Any, x: Tensor, share: Tensor, causal: bool) -> Tensor:
    """A block on tokens (length, width); attention to token j is ``share[j]`` times as likely."""
    y = block.ln_1(x)
    attn, width = block.attn, x.shape[1]
    q, k, v = (y @ attn.in_proj_weight.T + attn.in_proj_bias).split(width, dim=1)
    size, found = width // HEADS, []
    for h in range(HEADS):
        part = slice(h * size, (h + 1) * size)
        rows = []
        for i in range(len(x)):
            until = i + 1 if causal else len(x)
            likely = share[:until] * (q[i, part] @ k[:until, part].T / math.sqrt(size)).exp()
            rows.append(likely @ v[:until, part] / likely.sum())
        found.append(torch.stack(rows))
    x = x + attn.out_proj(torch.cat(found, dim=1))
    return x + block.mlp(block.ln_2(x))


def slow_image(visual: Any, vectors: Tensor, share: float, image: Tensor) -> Tensor:
    """The feature (width,) of an image, by a tower without prompts, float64."""
    patches = visual.conv1(image[None])[0].flatten(1).T
    x = torch.cat([visual.class_embedding[None], patches]) + visual.positional_embedding
    n, own = vectors.shape[1], len(x)
    x = visual.ln_pre(torch.cat([x, vectors[0]]))
    shares = torch.cat([torch.ones(own), torch.full((n,), share)]).double()
    for i, block in enumerate(visual.transformer.resblocks):
        if 0 < i < len(vectors):
            x = torch.cat([x[:own], vectors[i]])
        x = slow_block(block, x, shares, causal=False)
    return visual.ln_post(x[:1])[0] @ visual.proj


def slow_text(text: Any, vectors: Tensor, share: float, tokens: Tensor) -> Tensor:
    """The embedding (width,) of a text, by a tower without prompts, float64."""
    x, n = text.token_embedding.weight[tokens], vectors.shape[1]

    def mixed(x: Tensor, i: int) -> Tensor:
        own = (1 - share) * x[1 : 1 + n] + share * vectors[i]
        return torch.cat([x[:1], own, x[1 + n :]])

    x = mixed(x, 0) + text.positional_embedding
    for i, block in enumerate(text.transformer.resblocks):
        if 0 < i < len(vectors):
            x = mixed(x, i)
        x = slow_block(block, x, torch.ones(len(x)).double(), causal=True)
    return text.ln_final(x)[tokens.argmax()] @ text.text_projection


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_both_towers_attend_to_their_prompts(backbone: Backbone, share: float) -> None:
    model, plain = prompted_of(backbone, share), plain_of(backbone).double()
    of_image, of_text = (prompts.vectors.detach().double() for prompts in prompts_of(model))
    assert of_image.shape == (2, 3, 32) and of_text.shape == (2, 4, 16)
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = model.encode_image(images).double()
        expected = [slow_image(plain.visual, of_image, share, image.double()) for image in images]
        torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-5)
        assert model.prompts is not None
        texts = model.text_tower.encode_text(model.prompts[0]).double()  # type: ignore[operator]
        rows = [slow_text(plain.text, of_text, share, tokens) for tokens in model.prompts[0]]
        torch.testing.assert_close(texts, torch.stack(rows), rtol=1e-4, atol=1e-5)


def test_without_a_share_it_is_the_pretrained_model(backbone: Backbone) -> None:
    model, plain = prompted_of(backbone, 0.0), plain_of(backbone)
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(model(images), plain(images), rtol=1e-4, atol=1e-4)
        tokens = backbone.tokenizer([f"a photo of a {name}." for name in NAMES])
        assert torch.equal(model.encode_text(model.prompts[0]), plain.encode_text(tokens))  # type: ignore[index]


def test_weights_between_are_those_of_a_smaller_share(backbone: Backbone) -> None:
    """Weights are interpolated as any others: at 0 the pretrained ones, at 1 all of the prompts."""
    start = prompted(plain_of(backbone), backbone.tokenizer, SHAPE, NAMES).state_dict()
    end = prompted_of(backbone, 1.0)
    between = interpolate(start, end.state_dict(), 0.25)
    expected = prompted_of(backbone, 0.25)
    with torch.no_grad():
        for prompts in prompts_of(expected):
            prompts.vectors.mul_(0.25)
    assert between.keys() == expected.state_dict().keys()
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(between[name], tensor, msg=name)


def test_a_copy_has_prompts_of_its_own(backbone: Backbone) -> None:
    model = prompted_of(backbone, 1.0)
    images, tokens = torch.randn(2, 3, 16, 16), model.prompts[0]  # type: ignore[index]
    with torch.no_grad():
        before = model.features(images), model.encode_text(tokens)
        other = copy.deepcopy(model)
        other.load_state_dict(prompted_of(backbone, 0.5, seed=1).state_dict())
        assert torch.equal(model.features(images), before[0])
        assert torch.equal(model.encode_text(tokens), before[1])
        for prompts in prompts_of(model):
            prompts.share.zero_()
        assert not torch.equal(other.features(images), model.features(images))
        assert not torch.equal(other.encode_text(tokens), model.encode_text(tokens))


def test_words_are_found_as_the_tokenizer_has_them(backbone: Backbone) -> None:
    assert place_of(backbone.tokenizer, "a photo of a") == (1, 4)
    assert place_of(backbone.tokenizer, "sea lion") == (1, 2)
    said = {"": [1, 1, 1, 1, 1], "a photo": [5, 6, 1, 1, 1]}  # neither begins nor fills up with 0
    assert place_of(lambda texts: torch.tensor([said[text] for text in texts]), "a photo") == (0, 2)
    for words in ("", " "):
        with pytest.raises(RunFailedError, match="no tokens of their own"):
            prompted(plain_of(backbone), backbone.tokenizer, PromptShape(words, 1, 1), NAMES)


def test_towers_of_other_kinds_are_refused(tmp_path: Path) -> None:
    save_backbone(tmp_path, config(**RESNET))
    visual = load_backbone(str(tmp_path)).clip.visual
    with pytest.raises(RunFailedError, match="the image tower of this backbone takes no prompts"):
        attention_blocks(visual, "image tower")
