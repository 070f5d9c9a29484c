"""Losses that hold features near the pretrained model's, against slow references in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from shiftbench.core.errors import RunFailedError
from shiftbench.methods.base import Architecture, Batch, Parent, TrainedMethod
from shiftbench.methods.builtin.ldifs import feature_distance, layers_of
from shiftbench.methods.builtin.lipsum_ft import random_texts, special_tokens
from shiftbench.methods.builtin.mask_fill import MaskFill, MaskFillConfig, filled, patch_size
from shiftbench.methods.config import TrainingConfig
from shiftbench.methods.relevance import patch_relevance
from shiftbench.models.classifier import ImageClassifier
from shiftbench.testing.toys import make_context, make_examples, make_model, make_prompts
from torch import Tensor, nn

from tests.methods.settings import make_method
from tests.methods.test_frozen import open_clip_tower
from tests.methods.test_losses import slow_cross_entropy

TEXT = Architecture(text=True)


def moved(name: str, **changes: object) -> tuple[TrainedMethod[TrainingConfig], ImageClassifier]:
    """A method that is prepared, and a model that has trained a little since."""
    method = make_method(name, **changes)
    model = make_model(architecture=method.architecture())
    method.ready(model, make_context(method, model))
    other = make_model(5, method.architecture())
    with torch.no_grad():
        for name, parameter in model.visual.named_parameters():
            parameter.lerp_(other.visual.get_parameter(name), 0.3)
    return method, model


def features(model: ImageClassifier, normalised: bool = True) -> np.ndarray:
    """Of all examples, float64."""
    with torch.no_grad():
        raw = model.visual(make_examples()[0]).double().numpy()
    return raw / np.linalg.norm(raw, axis=1, keepdims=True) if normalised else raw


def terms(method: TrainedMethod[TrainingConfig], model: ImageClassifier) -> dict[str, float]:
    found = method.loss(model, Batch(*make_examples(), None, step=4))
    return {name: term.item() for name, term in found.items()}


def own(model: ImageClassifier) -> float:
    """The cross-entropy of a model with a plain head."""
    images, labels = make_examples()
    return slow_cross_entropy(model(images).detach().numpy(), labels.numpy(), 0.0)


def probabilities(logits: np.ndarray) -> np.ndarray:
    powers = [math.exp(z - max(logits)) for z in logits]
    return np.array(powers) / sum(powers)


def embedded(tokens: Tensor) -> np.ndarray:
    """Normalised embeddings of texts by the pretrained tower, one after the other."""
    tower = make_model(architecture=TEXT).text_tower
    with torch.no_grad():
        raw = [tower.encode_text(text[None])[0].double().numpy() for text in tokens]  # type: ignore[operator]
    return np.array([row / math.sqrt(sum(row**2)) for row in raw])


def test_car_ft_keeps_the_distribution_over_contexts() -> None:
    method, model = moved("car-ft", strength=3.0)
    rows = []
    for of_template in make_prompts():
        mean = sum(embedded(of_template)) / len(of_template)
        rows.append(mean / math.sqrt(sum(mean**2)))
    scale = math.exp(1.5)
    total = 0.0
    for f, f0 in zip(features(model), features(make_model()), strict=True):
        p, p0 = (probabilities(np.array([scale * (x @ row) for row in rows])) for x in (f, f0))
        total += sum(a * math.log(a / b) for a, b in zip(p0, p, strict=True))
    found = terms(method, model)
    assert total > 0.1
    assert found["context_divergence"] == pytest.approx(total / 30, rel=1e-4)
    assert found["loss"] == pytest.approx(own(model) + 3 * total / 30, rel=1e-4)


@pytest.mark.parametrize("train_head", [True, False])
def test_lipsum_ft_keeps_how_images_go_with_random_texts(train_head: bool) -> None:
    method, model = moved("lipsum-ft", strength=2.0, texts=4, length=2, train_head=train_head)
    texts = embedded(random_texts(None, 7, 4, 2, 3, [3, 4]))
    scale, total = math.exp(1.5), 0.0
    for f, f0 in zip(features(model), features(make_model()), strict=True):
        total += sum((scale * (f @ t) - scale * (f0 @ t)) ** 2 / (2 * len(texts)) for t in texts)
    plain = make_model(architecture=TEXT)
    weights = method.weights(model)
    plain.load_state_dict(dict(weights))
    torch.testing.assert_close(weights["head.weight"], make_model().head.weight)
    found = terms(method, model)
    assert found["guidance"] == pytest.approx(total / 30, rel=1e-4)
    assert found["loss"] == pytest.approx(own(plain) + 2 * total / 30, rel=1e-4)


def test_lipsum_ft_trains_class_vectors_without_the_temperature() -> None:
    """A step moves what the head holds as many times further."""
    heads = []
    for name in ("full", "lipsum-ft"):
        method = make_method(name, weight_decay=0.0)
        model = make_model(architecture=method.architecture())
        method.ready(model, make_context(method, model))
        optimizer = method.optimizer(method.parameters(model))
        method.loss(model, Batch(*make_examples()))["loss"].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        change = method.weights(model)["head.weight"] - make_model().head.weight
        heads.append(change.abs().mean().item())
        assert torch.equal(model.head.bias, make_model().head.bias) == (name == "lipsum-ft")
    assert heads[1] / heads[0] == pytest.approx(math.exp(1.5), rel=1e-3)


def test_random_texts_are_of_ordinary_tokens() -> None:
    texts = random_texts(5, 9, 200, 3, 7, [1])
    assert texts.shape == (200, 7)
    assert texts[:, 0].unique().tolist() == [5]
    assert texts[:, 1:4].unique().tolist() == [0, 1, 2, 3, 4, 6, 7, 8]
    assert texts[:, 4].unique().tolist() == [9]
    assert not texts[:, 5:].any()
    assert torch.equal(texts, random_texts(5, 9, 200, 3, 7, [1]))
    assert not torch.equal(texts, random_texts(5, 9, 200, 3, 7, [2]))
    assert special_tokens(torch.tensor([[5, 1, 9, 0], [5, 2, 3, 9]])) == (5, 9)
    assert special_tokens(make_prompts()) == (None, 7)
    with pytest.raises(RunFailedError, match="does not end texts with its largest id"):
        special_tokens(torch.tensor([[1, 3, 0], [1, 4, 0]]))


def test_clips_text_tower_does_not_see_the_padding_of_random_texts() -> None:
    from shiftbench.models.backbones import load_backbone

    backbone = load_backbone("miniature")
    prompts = backbone.tokenizer(["a photo of a dog", "a cat"])
    begin, end = special_tokens(prompts)
    texts = random_texts(begin, end, 5, 8, prompts.shape[1], [0])
    other = torch.where(((texts == end).cumsum(1) > 0) & (texts != end), 1, texts)
    assert not torch.equal(texts, other)
    encode = backbone.clip.encode_text
    with torch.no_grad():
        torch.testing.assert_close(encode(texts), encode(other))  # type: ignore[operator]


def test_lipsum_ft_refuses_texts_that_are_too_long() -> None:
    model, method = make_model(architecture=TEXT), make_method("lipsum-ft", length=3)
    with pytest.raises(RunFailedError, match="length must be at most 2"):
        method.prepare(model, make_context(method, model))


def test_feature_distillation_keeps_features_before_they_are_normalised() -> None:
    method, model = moved("feature-distillation", strength=30.0)
    difference = features(model, normalised=False) - features(make_model(), normalised=False)
    distance = sum(value**2 for value in difference.flat) / difference.size
    found = terms(method, model)
    assert found["feature_distance"] == pytest.approx(distance, rel=1e-4)
    assert found["loss"] == pytest.approx(own(model) + 30 * distance, rel=1e-4)


def test_ldifs_compares_tokens_at_several_depths() -> None:
    method, model = moved("ldifs", strength=10.0, layers=["block.ln", "block"])
    images = make_examples()[0]
    per_layer = []
    for layer in ("block.ln", "block"):
        sides = []
        for tower in (model.visual, make_model().visual):
            kept: list[Tensor] = []
            hook = tower.get_submodule(layer).register_forward_hook(
                lambda module, given, output, kept=kept: kept.append(output)
            )
            with torch.no_grad():
                tower(images)
            hook.remove()
            sides.append(kept[0].double().numpy())
        examples = []
        for one, other in zip(*sides, strict=True):  # (tokens, width) each
            squares = [
                (a / math.sqrt(sum(one[:, j] ** 2)) - b / math.sqrt(sum(other[:, j] ** 2))) ** 2
                for j in range(one.shape[1])
                for a, b in zip(one[:, j], other[:, j], strict=True)
            ]
            examples.append(sum(squares) / len(squares))
        per_layer.append(np.mean(examples))
    distance = float(np.mean(per_layer))
    found = terms(method, model)
    assert distance > 1e-3
    assert found["feature_distance"] == pytest.approx(distance, rel=1e-4)
    assert found["loss"] == pytest.approx(own(model) + 10 * distance, rel=1e-4)


def test_ldifs_may_start_with_the_head_of_a_linear_probe() -> None:
    method, parent = make_method("ldifs", parent="linear-probe"), make_model(seed=5)
    assert method.parents() == (Parent("linear-probe"),)
    model = make_model()
    parents = {Parent("linear-probe"): parent.state_dict()}
    method.prepare(model, make_context(method, model, parents=parents))
    assert torch.equal(model.head.weight, parent.head.weight)
    assert terms(method, model)["feature_distance"] == 0


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("vit", ["ln_pre", "transformer.resblocks.0"]),
        ("resnet", ["layer1", "layer2", "layer3", "layer4"]),
        ("timm", ["trunk.norm_pre"] + [f"trunk.blocks.{i}" for i in (2, 5, 8, 11)]),
    ],
)
def test_layers_of_open_clip_towers(kind: str, expected: list[str]) -> None:
    assert layers_of(open_clip_tower(kind)) == expected


def test_ldifs_refuses_layers_that_are_not_there() -> None:
    unknown, wrong = make_method("ldifs", layers=None), make_method("ldifs", layers=["blocks"])
    model = make_model()
    with pytest.raises(RunFailedError, match="nothing is known of the layers"):
        unknown.prepare(model, make_context(unknown, model))
    with pytest.raises(RunFailedError, match="no module 'blocks'"):
        wrong.check(lambda: meta_tower())


def meta_tower() -> nn.Module:
    from open_clip.transformer import VisionTransformer

    with torch.device("meta"):
        return VisionTransformer(8, 4, 16, 1, 2, 2.0, output_dim=8)


def test_distances_are_of_channels_where_there_is_no_sequence() -> None:
    one, other = torch.rand(2, 3, 2, 2), torch.rand(2, 3, 2, 2)
    sides = [x.double() / x.double().square().sum(1, keepdim=True).sqrt() for x in (one, other)]
    expected = (sides[0] - sides[1]).square().mean()
    assert feature_distance([one], [other]).item() == pytest.approx(expected.item(), rel=1e-4)


def test_mask_fill_takes_patches_of_one_other_image() -> None:
    method, model = moved("mask-fill", probability=0.4)
    images = make_examples()[0]
    draw = np.random.default_rng([3, 4])
    order, chances = draw.permutation(30), draw.random((30, 2, 2))
    masked = images.clone()
    for i in range(30):
        for row in range(2):
            for column in range(2):
                if chances[i, row, column] < 0.4:
                    y, x = slice(2 * row, 2 * row + 2), slice(2 * column, 2 * column + 2)
                    masked[i, :, y, x] = images[order[i], :, y, x]
    assert not torch.equal(masked, images)
    with torch.no_grad():
        difference = model.visual(masked) - make_model().visual(masked)
    distance = difference.double().square().mean().item()
    found = terms(method, model)
    assert found["feature_distance"] == pytest.approx(distance, rel=1e-4)
    assert found["loss"] == pytest.approx(own(model) + 0.3 * distance, rel=1e-4)


def vit() -> ImageClassifier:
    """A transformer of two blocks on four patches, whose inside is not near zero."""
    from open_clip.transformer import VisionTransformer

    torch.manual_seed(2)
    tower = VisionTransformer(8, 4, 16, 2, 2, 2.0, output_dim=8)
    model = ImageClassifier(tower, nn.Linear(8, 3))
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape))
    return model


def slow_relevance(model: ImageClassifier, image: Tensor, label: int) -> np.ndarray:
    """Attention by hand in float64; the class token's row of the rollout."""
    tower = model.visual.double()
    with torch.no_grad():
        patches = tower.conv1(image[None].double()).flatten(2).transpose(1, 2)  # type: ignore[operator]
        x = torch.cat([tower.class_embedding.view(1, 1, -1), patches], 1)  # type: ignore[operator]
        x = tower.ln_pre(x + tower.positional_embedding)  # type: ignore[operator]
    rolled = np.eye(x.shape[1])
    maps = []
    for block in tower.transformer.resblocks:  # type: ignore[union-attr]
        y = block.ln_1(x)
        query, key, value = (
            y @ w.T + b
            for w, b in zip(
                block.attn.in_proj_weight.chunk(3), block.attn.in_proj_bias.chunk(3), strict=True
            )
        )
        heads = []
        for head in (slice(0, 8), slice(8, 16)):
            scores = query[..., head] @ key[..., head].transpose(1, 2) / math.sqrt(8)
            heads.append(scores.softmax(-1).requires_grad_())
            maps.append(heads[-1])
        outputs = [m @ value[..., s] for m, s in zip(heads, (slice(8), slice(8, 16)), strict=True)]
        x = x + block.attn.out_proj(torch.cat(outputs, -1))
        x = x + block.mlp(block.ln_2(x))
    pooled = tower.ln_post(x)[:, 0] @ tower.proj  # type: ignore[operator]
    logits = nn.functional.linear(
        pooled / pooled.norm(), model.head.weight.double(), model.head.bias.double()
    )
    gradients = torch.autograd.grad(logits[0, label], maps)
    for i in range(0, len(maps), 2):
        pairs = zip(maps[i : i + 2], gradients[i : i + 2], strict=True)
        speaks = [np.maximum(0, (m * g)[0].detach().numpy()) for m, g in pairs]
        rolled = rolled + (speaks[0] + speaks[1]) / 2 @ rolled
    return rolled[0, 1:] / (max(rolled[0, 1:]) + 1e-8)


def test_relevance_of_patches_is_attention_times_its_gradient_rolled_out() -> None:
    model = vit()
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before = model(images)
    found = patch_relevance(model, images, torch.tensor([0, 1, 2]))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(model(images), before)  # attention is as it was
    for i in range(3):
        expected = slow_relevance(vit(), images[i], i)
        np.testing.assert_allclose(found[i].numpy(), expected, rtol=1e-4, atol=1e-5)
    assert found.std() > 0.1


@pytest.mark.parametrize("mask", ["object", "context"])
def test_masks_follow_relevance(mask: str) -> None:
    model, batch = vit(), Batch(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0]), None, step=1)
    method = MaskFill(MaskFillConfig(mask=mask, threshold=0.5))  # type: ignore[arg-type]
    method.check(meta_tower)
    method.prepare(model, make_context(method, model))
    relevant = patch_relevance(model, *batch[:2]) > 0.5
    chosen = relevant if mask == "object" else ~relevant
    order = np.random.default_rng([3, 1]).permutation(4)
    expected = filled(batch.inputs, batch.inputs[order], chosen.view(4, 2, 2))
    model.chunk = 3
    assert torch.equal(method._masked(model, batch), expected)
    loss = method.loss(model, batch)["loss"]
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)


def test_mask_fill_refuses_towers_without_patches_or_attention() -> None:
    method = make_method("mask-fill", mask="object")
    with pytest.raises(RunFailedError, match="does not cut images into patches"):
        method.check(lambda: open_clip_tower("resnet"))
    with pytest.raises(RunFailedError, match="with a class token, which ToyTower is not"):
        method.check(lambda: make_model().visual)
    assert patch_size(make_model().visual) == 2
