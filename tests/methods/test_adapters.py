"""R-Adapter and CLIP-LoRA against float64, and what their adapted towers and merges compute."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from shiftbench.core.errors import RunFailedError
from shiftbench.methods.base import Batch
from shiftbench.methods.builtin.clip_lora import ClipLora, ClipLoraConfig
from shiftbench.methods.builtin.r_adapter import RAdapter, RAdapterConfig, mpm_nce
from shiftbench.models.adapters import LoraAttention, OutputAdapter, adapters
from shiftbench.models.classifier import ImageClassifier, _text_tower
from shiftbench.models.gpu import suit_gpu
from shiftbench.testing import methods
from shiftbench.testing.methods import Subject
from shiftbench.testing.toys import ToyTower, make_context, make_model
from torch import Tensor, nn

from tests.models.tiny import CONFIG

Method = ClipLora | RAdapter
LABELS = torch.tensor([0, 1, 0, 2, 1, 0])


@cache
def _clip() -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = open_clip.CLIP(**copy.deepcopy(CONFIG["model_cfg"]))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # which open_clip begins at zero
            nn.init.normal_(parameter, std=0.1)
    return model


def make() -> ImageClassifier:
    """Towers of open_clip, small, with two prompts of each of three classes."""
    clip = copy.deepcopy(_clip())
    tokens = torch.randint(1, 49000, (2, 3, 16), generator=torch.Generator().manual_seed(1))
    tokens[..., 9] = 49407  # the end
    text = _text_tower(type("Backbone", (), {"clip": clip}))  # type: ignore[arg-type]
    head = nn.Linear(24, 3, device="meta").to_empty(device="cpu")
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    model = ImageClassifier(clip.visual, head, text, tokens).requires_grad_(True)  # type: ignore[arg-type]
    model.head.requires_grad_(False)
    return model.eval()


def batch(model: ImageClassifier) -> Batch:
    images = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    assert model.prompts is not None
    return Batch(images, LABELS, model.prompts[torch.arange(6) % 2, LABELS], step=1)


def clip_lora(**settings: Any) -> ClipLora:
    return ClipLora(ClipLoraConfig(**{"lr": 0.05, "rank": 2, "alpha": 3, **settings}))


def r_adapter(**settings: Any) -> RAdapter:
    return RAdapter(RAdapterConfig(**{"lr": 0.01, "decay": 0.0, "alpha": 1.0, **settings}))


MAKES: list[Callable[..., Method]] = [clip_lora, r_adapter, lambda **s: r_adapter(rank=2, **s)]


def prepared(method: Method) -> ImageClassifier:
    model = make()
    method.prepare(model, make_context(method, model))  # type: ignore[arg-type]
    return model


def train(method: Method, model: ImageClassifier, steps: int = 3) -> ImageClassifier:
    optimizer = method.optimizer(method.parameters(model))
    model.train()
    for step in range(1, steps + 1):
        method.loss(model, batch(model))["loss"].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(model, step)
    return model.eval()


def outputs(model: ImageClassifier) -> Tensor:
    seen = batch(model)
    return torch.cat([model.features(seen.inputs), model.encode_text(seen.captions)])  # type: ignore[arg-type]


@pytest.mark.parametrize("method", [make() for make in MAKES])
def test_at_the_start_nothing_has_changed(method: Method) -> None:
    model, plain = prepared(method), make()
    torch.testing.assert_close(outputs(model), outputs(plain), rtol=0, atol=1e-6)
    weights = method.weights(model)
    assert weights.keys() == plain.state_dict().keys()
    assert all(torch.equal(weights[k], v) for k, v in plain.state_dict().items())


@pytest.mark.parametrize("method", [make() for make in MAKES])
def test_the_merged_model_computes_what_the_adapted_one_does(method: Method) -> None:
    model, plain = train(method, prepared(method)), make()
    before = outputs(plain)
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights = method.weights(model)
    changed = {k for k, v in plain.state_dict().items() if not torch.equal(weights[k], v)}
    if isinstance(method, ClipLora):
        assert len(changed) == 3
        assert all(name.endswith(".attn.in_proj_weight") for name in changed)
    else:
        assert len(changed) == 3 * 2 * 2  # of three blocks two layers, weights and biases
        assert all(".attn.out_proj." in k or ".mlp.c_proj." in k for k in changed)
    plain.load_state_dict(dict(weights))
    assert (outputs(plain) - before).abs().max() > 0.02
    torch.testing.assert_close(outputs(model), outputs(plain), rtol=0, atol=2e-6)
    with torch.no_grad():  # where attention has another code path
        torch.testing.assert_close(outputs(model), outputs(plain), rtol=0, atol=2e-6)
    for name in changed:
        weights[name].zero_()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in kept.items())


@pytest.mark.parametrize("method", [clip_lora(dropout=0), r_adapter(drop=0)])
def test_layers_as_gpus_have_them_and_bf16(method: Method) -> None:
    found = []
    for packed in (False, True):
        model = make()
        if packed:
            suit_gpu(model)
        method.prepare(model, make_context(method, model))  # type: ignore[arg-type]
        found.append(outputs(train(method, model)))
        with torch.autocast("cpu", torch.bfloat16):
            lower = method.loss(model, batch(model))["loss"]
        assert lower.dtype == torch.float32
        assert lower.item() == pytest.approx(
            method.loss(model, batch(model))["loss"].item(), rel=0.1
        )
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", [make() for make in MAKES])
def test_only_what_is_new_trains(method: Method) -> None:
    model = prepared(method)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all(".lora_" in name or ".factors." in name for name in trained)
    method.loss(model.train(), batch(model))["loss"].backward()  # type: ignore[no-untyped-call]
    assert {name for name, p in model.named_parameters() if p.grad is not None} == trained


@pytest.mark.parametrize("method", [clip_lora(), r_adapter(rank=2)])
def test_the_seed_alone_decides_the_start(method: Method) -> None:
    starts = []
    for noise in (0, 1):
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        starts.append(prepared(method).state_dict())
        assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(starts[0][k], starts[1][k]) for k in starts[0])


@pytest.mark.parametrize(
    "subject",
    [
        Subject(ClipLora, ClipLoraConfig(**methods.TRAINING, dropout=0.4)),
        Subject(
            RAdapter,
            RAdapterConfig(**methods.TRAINING, targets=("attn",), text_targets=("attn",), drop=0.4),
        ),
    ],
    ids=["clip-lora", "r-adapter"],
)
def test_what_is_dropped_at_random_is_the_same_after_an_interruption(subject: Subject) -> None:
    methods.resumes_bit_for_bit(subject)
    none = {"dropout": 0.0} if subject.kind is ClipLora else {"drop": 0.0}
    still = Subject(subject.kind, subject.config.model_copy(update=none))
    assert methods.fit(subject)[1].losses != methods.fit(still)[1].losses


# CLIP-LoRA


def test_updates_of_query_key_and_value_in_float64() -> None:
    method = clip_lora()
    model, pretrained = train(method, prepared(method)), make().state_dict()
    weights = method.weights(model)
    for name, layer in adapters(model).items():
        assert isinstance(layer, LoraAttention)
        a, b = (p.detach().double().numpy() for p in (layer.lora_a, layer.lora_b))
        expected = pretrained[f"{name}.in_proj_weight"].double().numpy().copy()
        width = expected.shape[1]
        for i in range(3):
            expected[i * width : (i + 1) * width] += 3 / math.sqrt(2) * b[i] @ a[i]
        found = weights[f"{name}.in_proj_weight"]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_cross_entropy_with_the_embeddings_of_one_template_of_each_step() -> None:
    method = clip_lora(text_chunk=2)
    model = train(method, prepared(method))
    seen = batch(model)
    assert model.prompts is not None
    images = model.features(seen.inputs).detach().double().numpy()
    scale = math.exp(float(model.text_tower.logit_scale))  # type: ignore[arg-type]
    for step in (0, 1, 2):
        texts = model.encode_text(model.prompts[step % 2]).detach().double().numpy()
        total = 0.0
        for image, label in zip(images, LABELS.tolist(), strict=True):
            logits = [scale * sum(x * y for x, y in zip(image, t, strict=True)) for t in texts]
            total += math.log(sum(math.exp(z) for z in logits)) - logits[label]
        loss = method.loss(model, seen._replace(step=step))["loss"]
        assert loss.item() == pytest.approx(total / len(images), rel=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_dropout_is_of_the_updates_inputs_alone(masked: bool) -> None:
    torch.manual_seed(0)
    base = nn.MultiheadAttention(8, 2, batch_first=True)
    nn.init.normal_(base.in_proj_bias)
    layer = LoraAttention(base, rank=3, alpha=2.0, dropout=0.5)
    nn.init.normal_(layer.lora_b)
    x = torch.randn(2, 5, 8)
    mask = torch.full((5, 5), -torch.inf).triu(1) if masked else None
    torch.manual_seed(1)
    found, weights = layer.train()(x, x, x, need_weights=False, attn_mask=mask)
    assert weights is None
    torch.manual_seed(1)
    parts = []
    for i in range(3):
        dropped = nn.functional.dropout(x, 0.5)
        w, b = base.in_proj_weight[8 * i : 8 * i + 8], base.in_proj_bias[8 * i : 8 * i + 8]
        update = 2 / math.sqrt(3) * (dropped @ (layer.lora_b[i] @ layer.lora_a[i]).T)
        parts.append((x @ w.T + b + update).double().detach().numpy())
    expected = np.zeros((2, 5, 8))
    for n in range(2):
        for head in range(2):
            q, k, v = (part[n][:, 4 * head : 4 * head + 4] for part in parts)
            for row in range(5):
                last = row + 1 if masked else 5
                powers = [math.exp(q[row] @ k[j] / 2) for j in range(last)]
                mixed = sum(p / sum(powers) * v[j] for j, p in enumerate(powers))
                expected[n, row, 4 * head : 4 * head + 4] = mixed
    weight, bias = (p.detach().double().numpy() for p in base.out_proj.parameters())
    np.testing.assert_allclose(found.detach(), expected @ weight.T + bias, rtol=1e-4, atol=1e-5)
    if masked:  # booleans say the same
        layer.eval()
        where = torch.ones(5, 5, dtype=torch.bool).triu(1)
        assert torch.equal(layer(x, x, x, attn_mask=where)[0], layer(x, x, x, attn_mask=mask)[0])


def test_towers_without_attention_are_refused() -> None:
    tower = ToyTower()
    tower.block = nn.Identity()  # type: ignore[assignment]
    with pytest.raises(RunFailedError, match=r"clip-lora: the image tower .* has no attention"):
        clip_lora().check(lambda: tower)
    model = make_model(architecture=clip_lora().architecture())
    model.text_tower.block = nn.Identity()
    with pytest.raises(RunFailedError, match=r"clip-lora: the text tower .* has no attention"):
        clip_lora().prepare(model, make_context(clip_lora(), model))  # type: ignore[arg-type]
    with pytest.raises(RunFailedError, match=r"r-adapter: .* 'attn', .* in the text tower"):
        r_adapter(targets=["attn"]).prepare(model, make_context(r_adapter(), model))  # type: ignore[arg-type]


def test_published_settings_of_clip_lora() -> None:
    config = ClipLoraConfig()
    assert (config.lr, config.weight_decay, config.batch_size, config.epochs) == (
        2e-4,
        0.01,
        32,
        16,
    )
    assert (config.rank, config.alpha, config.dropout, config.warmup_steps) == (2, 1, 0.25, 0)


# R-Adapter


def slow_mpm_nce(
    images: np.ndarray, texts: np.ndarray, tau: float, delta: float, epsilon: float
) -> float:
    labels, n, total = LABELS.tolist(), len(images), 0.0
    for one, other in ((images, texts), (texts, images)):
        for i in range(n):
            same = [labels[j] == labels[i] for j in range(n)]
            cosines = [sum(x * y for x, y in zip(one[i], b, strict=True)) for b in other]
            z = [(c + (0 if s else delta)) / tau for c, s in zip(cosines, same, strict=True)]
            log_sum = math.log(sum(math.exp(value) for value in z))
            for j in range(n):
                target = (1 - epsilon) / sum(same) if same[j] else epsilon / (n - sum(same))
                total -= target * (z[j] - log_sum) / n / 2
    return total


@pytest.mark.parametrize(
    ("tau", "delta", "epsilon"), [(0.1, 0.0, 0.0), (0.1, 0.2, 0.0), (0.05, 0.05, 0.1)]
)
def test_the_multi_positive_margin_loss(tau: float, delta: float, epsilon: float) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    images, texts = nn.functional.normalize(rows, dim=-1)
    found = mpm_nce(images, texts, LABELS, tau, delta, epsilon)
    expected = slow_mpm_nce(images.numpy(), texts.numpy(), tau, delta, epsilon)
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_a_batch_of_one_class_has_no_negatives() -> None:
    rows = torch.eye(4, dtype=torch.float64)
    found = mpm_nce(rows, rows, torch.zeros(4, dtype=torch.int64), 1.0, 0.3, 0.0)
    assert found.item() == pytest.approx(math.log(math.e + 3) - 1 / 4, rel=1e-12)


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("debias", [False, True])
def test_alpha_of_the_average_is_merged(debias: bool, rank: int | None) -> None:
    method = r_adapter(decay=0.7, debias=debias, alpha=0.4, rank=rank)
    model, pretrained = prepared(method), make().state_dict()
    found = adapters(model)
    assert len(found) == 6
    means = {
        name: [(0 if debias else 1) * f.detach().double().numpy() for f in layer.factors]  # type: ignore[union-attr]
        for name, layer in found.items()
    }
    generator = torch.Generator().manual_seed(5)
    for step in range(1, 5):
        for name, layer in found.items():
            for mean, factor in zip(means[name], layer.factors, strict=True):  # type: ignore[arg-type, union-attr]
                with torch.no_grad():
                    factor.copy_(torch.randn(factor.shape, generator=generator))
                mean *= 0.7
                mean += 0.3 * factor.detach().double().numpy()
        method.after_step(model, step)
    weights = method.weights(model)
    for name, factors in means.items():
        scaled = [f / (1 - 0.7**4) if debias else f for f in factors]
        w = scaled[0] if rank is None else scaled[0] @ scaled[1]
        last = f"{name}.out_proj." if name.endswith("attn") else f"{name}."
        merge = np.eye(len(w)) + 0.4 * w
        theta = {part: pretrained[last + part].double().numpy() for part in ("weight", "bias")}
        np.testing.assert_allclose(
            weights[f"{last}weight"], (theta["weight"].T @ merge).T, rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(
            weights[f"{last}bias"], theta["bias"] @ merge, rtol=1e-4, atol=1e-5
        )


def test_whole_examples_pass_by_an_adapter_and_others_count_more() -> None:
    layer = OutputAdapter(nn.Linear(3, 4), None, drop=0.25)
    nn.init.normal_(layer.factors[0])
    x = torch.randn(400, 2, 3)
    with torch.no_grad():
        plain = layer.base_layer(x)
        update = plain @ layer.factors[0]
        moved = layer.train()(x) - plain
        passed = moved.abs().amax(dim=(1, 2)) > 0
        assert 0.65 < passed.float().mean() < 0.85
        torch.testing.assert_close(moved[passed], update[passed] / 0.75)
        torch.testing.assert_close(layer.eval()(x), plain + update)


def test_published_settings_of_r_adapter() -> None:
    config = RAdapterConfig()
    assert (config.lr, config.weight_decay, config.epochs, config.warmup_steps) == (
        5e-4,
        0,
        10,
        500,
    )
    assert (config.drop, config.decay, config.alpha) == (0.2, 0.999, 0.5)
    assert (config.temperature, config.margin, config.debias) == (0.01, 0.05, False)


def test_it_trains_as_many_weights_as_published() -> None:
    """20.5 million of ViT-B/16: two in every block of both towers, as wide as the block."""
    trained = sum(
        sum(f.numel() for f in layer.factors)  # type: ignore[union-attr, misc]
        for layer in adapters(prepared(r_adapter())).values()
    )
    assert trained == 2 * (2 * 32**2) + 1 * (2 * 16**2)
    assert pytest.approx(20.5e6, rel=0.01) == 12 * (2 * 768**2) + 12 * (2 * 512**2)


def test_an_average_of_factors_begins_where_they_do() -> None:
    """From zero, both factors would lack (1 - 0.999^t), and their product that squared."""
    method = r_adapter(decay=0.999, alpha=1.0, rank=2)
    model, pretrained = prepared(method), make().state_dict()
    assert method.revision == 1 and r_adapter().revision == 0
    for layer in adapters(model).values():
        with torch.no_grad():
            layer.factors[1].fill_(0.5)  # type: ignore[union-attr]
    for step in range(1, 21):
        method.after_step(model, step)
    weights, grown = method.weights(model), 1 - 0.999**20
    for name, layer in adapters(model).items():
        u, v = (factor.detach().double() for factor in layer.factors)  # type: ignore[union-attr]
        last = f"{name}.out_proj.weight" if name.endswith("attn") else f"{name}.weight"
        theta = pretrained[last].double()
        torch.testing.assert_close(
            weights[last].double() - theta, (grown * u @ v).T @ theta, rtol=1e-2, atol=1e-5
        )
