from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from shiftbench.core.errors import InputError
from shiftbench.models.backbones import Backbone, load_backbone
from shiftbench.models.classifier import (
    ImageClassifier,
    text_head,
    zero_shot_classifier,
    zero_shot_head,
)
from torch import nn

from tests.models.tiny import RESNET, config, save_backbone

PROMPTS = [
    ["a photo of a cat.", "a sketch of a cat."],
    ["a photo of a dog."],
    ["a car", "the car", "an old car", "a photo of a car."],
]


@pytest.fixture(scope="module", params=["vit", "resnet"])
def backbone(request, tmp_path_factory) -> Backbone:
    directory = tmp_path_factory.mktemp(request.param)
    save_backbone(directory, config(**(RESNET if request.param == "resnet" else {})))
    return load_backbone(str(directory))


def slow_head(backbone: Backbone, prompts: list[list[str]]) -> np.ndarray:
    """The zero-shot weights by the reference's loops, in float64."""
    rows = []
    for texts in prompts:
        total = 0
        for text in texts:
            with torch.no_grad():
                embedding = backbone.clip.encode_text(backbone.tokenizer([text]))[0]
            vector = embedding.double().numpy()
            total = total + vector / math.sqrt((vector**2).sum())
        mean = total / len(texts)
        rows.append(mean / math.sqrt((mean**2).sum()))
    return np.array(rows) * math.exp(backbone.clip.logit_scale.item())


@pytest.mark.parametrize("batch_size", [1, 2, 3, 256])
def test_zero_shot_head_equals_float64_loops(backbone, batch_size):
    head = zero_shot_head(backbone, PROMPTS, batch_size=batch_size)
    assert head.weight.dtype == torch.float32 and head.weight.shape == (3, 24)
    np.testing.assert_allclose(
        head.weight.detach(), slow_head(backbone, PROMPTS), rtol=2e-5, atol=2e-5
    )
    assert torch.equal(head.bias, torch.zeros(3))
    assert head.weight.requires_grad and head.bias.requires_grad and head.weight.is_leaf


def test_at_most_a_batch_of_prompts_is_encoded_at_once(backbone, monkeypatch):
    sizes = []
    encode_text = backbone.clip.encode_text

    def watched(tokens, normalize):
        sizes.append(len(tokens))
        return encode_text(tokens, normalize=normalize)

    monkeypatch.setattr(backbone.clip, "encode_text", watched)
    prompts = [[f"a photo of a {i} {j}" for j in range(7)] for i in range(5)]
    zero_shot_head(backbone, prompts, batch_size=4)
    assert max(sizes) == 4
    assert sum(sizes) == 35


def test_classes_of_one_name_tie_exactly(backbone):
    prompts = [[f"a {name}", f"the {name}"] for name in ("paca", "cat", "paca", "dog")]
    head = zero_shot_head(backbone, prompts, batch_size=3)
    assert torch.equal(head.weight[0], head.weight[2])
    assert not torch.equal(head.weight[0], head.weight[1])


def test_zero_shot_head_moves_no_generator_and_no_weight(backbone):
    before = {k: v.clone() for k, v in backbone.clip.state_dict().items()}
    generator = torch.get_rng_state()
    zero_shot_head(backbone, PROMPTS)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(v, before[k]) for k, v in backbone.clip.state_dict().items())


def test_classifier_gives_clips_own_zero_shot_logits(backbone):
    classes, templates = ("cat", "dog", "sports car"), ("a photo of a {}.",)
    model = zero_shot_classifier(backbone, [[templates[0].format(name)] for name in classes])
    size = backbone.preprocessing.size
    images = torch.randn(4, 3, size, size)
    tokens = backbone.tokenizer([templates[0].format(name) for name in classes])
    with torch.no_grad():
        expected, _ = backbone.clip.get_logits(images, tokens)
        assert torch.allclose(model(images), expected, rtol=1e-4, atol=1e-4)
        norms = model.features(images).norm(dim=-1)
    assert torch.allclose(norms, torch.ones(4), atol=1e-6)


def test_classifier_is_a_copy_all_of_it_trainable(backbone):
    model = zero_shot_classifier(backbone, [["a"], ["b"]])
    before = {k: v.clone() for k, v in backbone.clip.state_dict().items()}
    size = backbone.preprocessing.size
    model.train()
    loss = model(torch.randn(4, 3, size, size)).square().mean()
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert all(p.grad is not None for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in backbone.clip.state_dict().items())


def test_state_dict_keys_are_the_towers_and_the_heads(backbone):
    state = zero_shot_classifier(backbone, [["a"], ["b"]]).state_dict()
    tower = {f"visual.{name}" for name in backbone.clip.visual.state_dict()}
    assert set(state) == tower | {"head.weight", "head.bias"}
    floating = [tensor for tensor in state.values() if tensor.is_floating_point()]
    assert all(tensor.dtype == torch.float32 for tensor in floating)


def test_under_autocast_only_the_tower_loses_precision():
    torch.manual_seed(0)
    model = ImageClassifier(nn.Sequential(nn.Flatten(), nn.Linear(12, 8)), nn.Linear(8, 5))
    nn.init.normal_(model.head.weight, std=100)
    images = torch.randn(6, 3, 2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.visual(images).dtype == torch.bfloat16
        features, logits = model.features(images), model(images)
        rounded = torch.nn.functional.linear(features, model.head.weight, model.head.bias)
    assert features.dtype == logits.dtype == torch.float32
    assert torch.equal(logits, model.head(features))
    assert not torch.equal(rounded.float(), logits)


def test_features_are_normalised_in_fp32():
    model = ImageClassifier(nn.Flatten(), nn.Linear(12, 2))
    images = torch.randn(3, 3, 2, 2).to(torch.bfloat16)
    expected = images.flatten(1).double()
    expected /= expected.norm(dim=1, keepdim=True)
    assert torch.allclose(model.features(images).double(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("prompts", "words"), [([], "one class"), ([["a"], []], "class 1")])
def test_classes_without_prompts_are_refused(backbone, prompts, words):
    with pytest.raises(InputError, match=words):
        zero_shot_head(backbone, prompts)


def test_the_text_tower_makes_the_zero_shot_head(backbone):
    """What methods train from is what zero-shot evaluates, and its gradient reaches the tower."""
    templates, classes = ["a photo of a {}.", "a {} in the wild."], ["cat", "dog", "tall bird"]
    prompts = [[template.format(name) for template in templates] for name in classes]
    model = zero_shot_classifier(backbone, prompts, text=True)
    assert model.prompts.shape == (2, 3, 16)
    assert torch.allclose(text_head(model).weight, model.head.weight, rtol=1e-5)
    whole = model.class_embeddings(1)
    pieces = model.class_embeddings(1, chunk=2)
    torch.testing.assert_close(pieces, whole)
    pieces.sum().backward()
    assert model.text.token_embedding.weight.grad.abs().sum() > 0
    assert not any(name.startswith("text.visual") for name in model.state_dict())
    assert not any("prompts" in name for name in model.state_dict())
    assert "visual" in dict(backbone.clip.named_children())


def test_classes_may_have_different_numbers_of_prompts(backbone):
    """Each counts once in the head; where a text is drawn, those of the class take turns."""
    prompts = [["a cat.", "the cat.", "one cat."], ["a dog."], ["a tall bird.", "the bird."]]
    model = zero_shot_classifier(backbone, prompts, text=True)
    assert (tuple(model.prompts.shape), model.n_prompts) == ((3, 3, 16), (3, 1, 2))
    assert torch.allclose(text_head(model).weight, model.head.weight, rtol=1e-5)
    slowly = [
        torch.nn.functional.normalize(
            sum(model.encode_text(backbone.tokenizer([text]))[0] for text in of_class), dim=0
        )
        for of_class in prompts
    ]
    expected = torch.stack(slowly) * model.temperature
    assert torch.allclose(model.head.weight, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(model.prompts[:, 1], backbone.tokenizer(["a dog."] * 3))
    bird = backbone.tokenizer(["a tall bird.", "the bird.", "a tall bird."])
    assert torch.equal(model.prompts[:, 2], bird)


def test_chunks_change_memory_and_not_gradients(backbone):
    model = zero_shot_classifier(backbone, [["a cat."], ["a dog."]])
    images = torch.randn(5, 3, *[backbone.preprocessing.size] * 2)
    gradients = []
    for chunk in (None, 2):
        model.chunk = chunk
        model.zero_grad()
        model(images).logsumexp(1).sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
