"""LoRA: what trains, what is merged, and what stays bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from shiftbench.core.errors import RunFailedError
from shiftbench.methods.builtin.lora import Lora, LoraConfig
from shiftbench.models.adapters import adapted_layers
from shiftbench.models.classifier import ImageClassifier
from shiftbench.testing.toys import ToyTower, make_batch, make_context, make_examples, make_model
from torch import Tensor, nn

ATTENTION = {"visual.block.attn.in_proj_weight", "visual.block.attn.out_proj.weight"}


class OpenClipTower(nn.Module):
    """open_clip's own vision transformer, small: biases, batch first, an MLP."""

    def __init__(self) -> None:
        super().__init__()
        from open_clip.transformer import VisionTransformer

        self.tower = VisionTransformer(4, 2, 16, 2, 2, 2.0, output_dim=8)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.tower(images)
        return features


class TimmTower(nn.Module):
    """A tower whose attention is made of linear layers, as timm's."""

    def __init__(self) -> None:
        super().__init__()
        from timm.layers import Attention

        self.embed = nn.Conv2d(3, 16, 2, 2)
        self.attn = Attention(16, num_heads=2)
        self.proj = nn.Linear(16, 8)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.embed(images).flatten(2).transpose(1, 2)
        features: Tensor = self.proj(self.attn(patches).mean(1))
        return features


TOWERS: list[Callable[[], nn.Module]] = [ToyTower, OpenClipTower, TimmTower]


def make_lora(**settings: object) -> Lora:
    return Lora(LoraConfig(**{"lr": 0.05, "rank": 2, "alpha": 3, **settings}))  # type: ignore[arg-type]


def make(tower: Callable[[], nn.Module] = ToyTower) -> ImageClassifier:
    torch.manual_seed(0)
    return ImageClassifier(tower(), nn.Linear(8, 3))


def train(method: Lora, model: ImageClassifier, steps: int = 3) -> None:
    """Some steps with whatever the method leaves trainable."""
    optimizer = method.optimizer(method.parameters(model))
    model.train()
    for _ in range(steps):
        method.loss(model, make_batch())["loss"].backward()  # type: ignore[no-untyped-call]
        method.before_step(model)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def trained(method: Lora, model: ImageClassifier) -> ImageClassifier:
    method.prepare(model, make_context(method, model))
    train(method, model)
    return model


def logits(model: ImageClassifier) -> Tensor:
    with torch.no_grad():
        return model(make_examples()[0])  # type: ignore[no-any-return]


@pytest.mark.parametrize("tower", TOWERS)
def test_at_the_start_nothing_has_changed(tower: Callable[[], nn.Module]) -> None:
    model, plain, method = make(tower), make(tower), make_lora()
    method.prepare(model, make_context(method, model))
    torch.testing.assert_close(logits(model.eval()), logits(plain.eval()), rtol=0, atol=1e-6)
    weights = method.weights(model)
    assert list(weights) == list(plain.state_dict())
    assert all(torch.equal(weights[k], v) for k, v in plain.state_dict().items())


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("tower", TOWERS)
def test_the_merged_model_computes_what_the_adapted_one_does(
    tower: Callable[[], nn.Module], grad: bool
) -> None:
    method, plain = make_lora(targets=["attn", "proj"][: 1 + (tower is TimmTower)]), make(tower)
    before = logits(plain.eval())
    model = trained(method, make(tower))
    plain.load_state_dict(dict(method.weights(model)))
    assert (logits(plain) - before).abs().max() > 0.1
    with torch.set_grad_enabled(grad):  # attention has another code path without
        images = make_examples()[0]
        torch.testing.assert_close(model(images), plain(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("tower", TOWERS)
def test_merging_leaves_the_rest_and_the_training_model_bit_for_bit(
    tower: Callable[[], nn.Module],
) -> None:
    method, pretrained = make_lora(), make(tower).state_dict()
    model = trained(method, make(tower))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights = method.weights(model)
    changed = {k for k in pretrained if not torch.equal(weights[k], pretrained[k])}
    adapted = {k for k in pretrained if ".attn." in k and k.endswith("weight")}
    assert changed == adapted | {"head.weight", "head.bias"}
    for tensor in (weights[name] for name in adapted):
        tensor.zero_()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())
    for name, tensor in state.items():
        if ".lora_" not in name and not name.startswith("head."):
            assert torch.equal(tensor, pretrained[name.replace(".base_layer", "")]), name


def test_the_merge_against_a_product_in_float64() -> None:
    method, pretrained = make_lora(), make().state_dict()
    model = trained(method, make())
    state = {k: v.double().numpy() for k, v in model.state_dict().items() if ".lora_" in k}
    assert len(state) == 4
    adapters = dict(
        zip(
            ["visual.block.attn.in_proj_weight", "visual.block.attn.out_proj.weight"],
            ["visual.block.attn", "visual.block.attn.base_layer.out_proj"],
            strict=True,
        )
    )
    weights = method.weights(model)
    for name, layer in adapters.items():
        a, b = (state[f"{layer}.lora_{x}.default.weight"] for x in "AB")
        assert a.shape[0] == b.shape[1] == 2
        expected = pretrained[name].double().numpy() + 3 / 2 * b @ a
        np.testing.assert_allclose(weights[name], expected, rtol=1e-5, atol=1e-6)


def test_the_gradient_against_finite_differences_in_float64() -> None:
    method = make_lora()
    model = trained(method, make()).double()
    images, labels = make_examples()

    def loss() -> Tensor:
        features = nn.functional.normalize(model.visual(images.double()), dim=-1)
        return nn.functional.cross_entropy(model.head(features), labels)

    loss().backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.visual.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None
            flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
            where = int(gradient.abs().argmax())
            with torch.no_grad():
                flat[where] += 1e-6
                above = loss()
                flat[where] -= 2e-6
                below = loss()
                flat[where] += 1e-6
            assert gradient[where].item() == pytest.approx(
                (above - below).item() / 2e-6, rel=1e-4
            ), name


@pytest.mark.parametrize("head", [False, True])
def test_only_adapters_and_the_head_train(head: bool) -> None:
    model, method = make(), make_lora(train_head=head)
    method.prepare(model, make_context(method, model))
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in names if ".lora_" in name} == {
        f"visual.block.attn.{inner}lora_{x}.default.weight"
        for inner in ("", "base_layer.out_proj.")
        for x in "AB"
    }
    assert {n for n in names if ".lora_" not in n} == (
        {"head.weight", "head.bias"} if head else set()
    )


def test_the_seed_alone_decides_the_start() -> None:
    starts = []
    for noise in (0, 1):
        model, method = make(), make_lora()
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        method.prepare(model, make_context(method, model))
        assert torch.equal(torch.get_rng_state(), before)
        starts.append({k: v.clone() for k, v in model.state_dict().items()})
    assert all(torch.equal(starts[0][k], starts[1][k]) for k in starts[0])


def test_a_state_dict_brings_an_adapted_model_back() -> None:
    method = make_lora()
    model = trained(method, make())
    other = make_model(seed=4)
    again = make_lora()
    again.prepare(other, make_context(again, other))
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    assert torch.equal(logits(other.eval()), logits(model))
    weights, expected = again.weights(other), method.weights(model)
    assert all(torch.equal(weights[k], expected[k]) for k in expected)


def test_a_deep_copy_trains_on_its_own() -> None:
    method = make_lora()
    model = trained(method, make())
    twin = copy.deepcopy(model)
    before = logits(model)
    assert torch.equal(logits(twin), before)
    train(method, twin)
    assert torch.equal(logits(model), before)
    assert not torch.equal(logits(twin), before)


def test_recomputed_activations_give_the_same_gradient() -> None:
    method, gradients = make_lora(), []
    for chunk in (None, 8):
        model = trained(method, make())
        model.chunk = chunk
        model.train()
        method.loss(model, make_batch())["loss"].backward()  # type: ignore[no-untyped-call]
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)


def test_updates_are_fp32_under_autocast() -> None:
    method = make_lora()
    model = trained(method, make())
    plain = make().eval()
    plain.load_state_dict(dict(method.weights(model)))
    with torch.autocast("cpu", torch.bfloat16):
        images = make_examples()[0]
        assert torch.equal(model(images), plain(images))


@pytest.mark.parametrize(
    ("tower", "targets", "expected"),
    [
        (ToyTower, ["attn"], ["block.attn"]),
        (ToyTower, ["block", "proj"], ["block.attn", "proj"]),
        (TimmTower, ["attn"], ["attn.qkv", "attn.proj"]),
        (TimmTower, ["attn.qkv"], ["attn.qkv"]),
        (
            OpenClipTower,
            ["mlp"],
            [
                f"tower.transformer.resblocks.{i}.mlp.{x}"
                for i in (0, 1)
                for x in ("c_fc", "c_proj")
            ],
        ),
        (
            OpenClipTower,
            ["attn", "resblocks.1.mlp.c_fc"],
            [f"tower.transformer.resblocks.{x}" for x in ("0.attn", "1.attn", "1.mlp.c_fc")],
        ),
    ],
)
def test_which_layers_a_target_names(
    tower: Callable[[], nn.Module], targets: list[str], expected: list[str]
) -> None:
    assert adapted_layers(tower(), targets, "lora") == expected


@pytest.mark.parametrize("target", ["attention", "out_proj", "conv1", "att", "ln"])
def test_a_target_that_names_no_layer_is_refused(target: str) -> None:
    with pytest.raises(RunFailedError, match=f"is called '{target}'"):
        adapted_layers(ToyTower(), ["attn", target], "lora")


def test_mlp_layers_can_be_adapted_too() -> None:
    method = make_lora(targets=["attn", "mlp"])
    pretrained = make(OpenClipTower)
    model = trained(method, make(OpenClipTower))
    weights = method.weights(model)
    changed = [k for k, v in pretrained.state_dict().items() if not torch.equal(weights[k], v)]
    assert sum(".mlp." in k for k in changed) == 4
    pretrained.load_state_dict(dict(weights))
    torch.testing.assert_close(logits(model), logits(pretrained.eval()), rtol=0, atol=1e-5)


class Bypass(nn.Module):
    """Reads the weight of a linear layer and never calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.Linear(48, 8)

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.linear(images.flatten(1), self.attn.weight, self.attn.bias)


def test_a_layer_that_the_tower_never_calls_is_refused() -> None:
    method, model = make_lora(), make(Bypass)
    method.prepare(model, make_context(method, model))
    with pytest.raises(RunFailedError, match="does not run its layer 'attn'"):
        train(method, model)
