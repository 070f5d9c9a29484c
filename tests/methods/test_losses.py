"""Each method's objective against a slow reference in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from shiftbench.methods.base import Batch, Parent
from shiftbench.methods.builtin.l2_sp import squared_distance
from shiftbench.methods.builtin.wise_ft import CurveConfig, WiseFt
from shiftbench.testing.toys import make_context, make_derivation, make_examples, make_model

from tests.methods.settings import SETTINGS, make_method


def slow_cross_entropy(logits: np.ndarray, labels: np.ndarray, smoothing: float) -> float:
    total = 0.0
    for row, label in zip(logits.astype(np.float64), labels, strict=True):
        log_p = row - max(row) - math.log(sum(math.exp(z - max(row)) for z in row))
        total += (1 - smoothing) * -log_p[label] + smoothing * np.mean(-log_p)
    return total / len(labels)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", ["full", "lp-ft"])
def test_cross_entropy(name: str, smoothing: float) -> None:
    model, (images, labels) = make_model(), make_examples()
    method = make_method(name, label_smoothing=smoothing)
    logits = model(images).detach().numpy()
    expected = slow_cross_entropy(logits, labels.numpy(), smoothing)
    assert method.loss(model, Batch(images, labels))["loss"].item() == pytest.approx(
        expected, rel=1e-6
    )


def test_linear_probe_trains_the_head_alone() -> None:
    model, (images, labels) = make_model(), make_examples()
    method = make_method("linear-probe")
    method.prepare(model, make_context(method, model))
    features = model.features(images).detach()
    loss = method.loss(model, Batch(features, labels))["loss"]
    expected = slow_cross_entropy(model(images).detach().numpy(), labels.numpy(), 0.0)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is not None] == [
        "head.weight",
        "head.bias",
    ]


@pytest.mark.parametrize("include_head", [False, True])
def test_l2_sp_pulls_to_where_training_began(include_head: bool) -> None:
    model, (images, labels) = make_model(), make_examples()
    method = make_method("l2-sp", strength=0.5, include_head=include_head)
    method.prepare(model, make_context(method, model))
    before = {name: p.detach().double().numpy().copy() for name, p in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.arange(parameter.numel()).view(parameter.shape))
    pulled = [name for name in before if include_head or not name.startswith("head.")]
    distance = sum(
        float(((p.detach().double().numpy() - before[name]) ** 2).sum())
        for name, p in model.named_parameters()
        if name in pulled
    )
    terms = method.loss(model, Batch(images, labels))
    assert terms["squared_distance"].item() == pytest.approx(distance, rel=1e-5)
    expected = terms["cross_entropy"].item() + 0.5 * distance
    assert terms["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_squared_distance_refuses_lists_of_different_length() -> None:
    with pytest.raises(ValueError, match="zip"):
        squared_distance([torch.ones(2)], [])


def test_lp_ft_starts_from_its_parent() -> None:
    model, parent, method = make_model(), make_model(seed=5), make_method("lp-ft")
    parents = {Parent("linear-probe"): parent.state_dict()}
    method.prepare(model, make_context(method, model, parents=parents))
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), parent.parameters(), strict=True)
    )


def test_wise_ft_interpolates_every_tensor() -> None:
    zero_shot, tuned = make_model(), make_model(seed=5)
    method = WiseFt(CurveConfig(**SETTINGS["wise-ft"]))
    parents = {Parent("full"): tuned.state_dict()}
    weights = method.derive("alpha=0.3", make_derivation(zero_shot.state_dict(), parents))
    for name, tensor in zero_shot.state_dict().items():
        expected = 0.7 * tensor.double() + 0.3 * tuned.state_dict()[name].double()
        torch.testing.assert_close(weights[name].double(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alphas": [0, 0.5, 0.5], "alpha": 0.5}, "must differ"),
        ({"alphas": [0, 1], "alpha": 0.5}, "must be one of alphas"),
        ({"alphas": [0, 1.5], "alpha": 0}, "less than or equal to 1"),
        ({"alphas": []}, "at least 1"),
    ],
)
def test_wise_ft_refuses_impossible_alphas(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CurveConfig(**settings)  # type: ignore[arg-type]
