"""CLIPood against loops in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import beta as beta_distribution
from shiftbench.methods.builtin.clipood import Clipood, ClipoodConfig, beta_shares
from shiftbench.models.classifier import ImageClassifier
from shiftbench.testing.toys import make_batch, make_context, make_model


def prepared(steps: int = 7, **settings: object) -> tuple[Clipood, ImageClassifier]:
    method, model = Clipood(ClipoodConfig(**settings)), make_model()  # type: ignore[arg-type]
    torch.nn.init.zeros_(model.head.bias)
    method.prepare(model, make_context(method, model, steps=steps))
    return method, model


@pytest.mark.parametrize("margin", [0.0, 0.3, 1.0])
def test_the_loss_subtracts_the_text_of_the_own_class(margin: float) -> None:
    method, model = prepared(margin=margin)
    batch = make_batch()
    features = model.features(batch.inputs).detach().double().numpy()
    rows = (
        model.head.weight.detach().double().numpy()
    )  # τ · t of each class, of its own length here
    total = 0.0
    for feature, label in zip(features, batch.labels.tolist(), strict=True):
        own = rows[label] / math.sqrt(sum(x * x for x in rows[label]))
        moved = [f - margin * t for f, t in zip(feature, own, strict=True)]
        logits = [sum(x * w for x, w in zip(moved, row, strict=True)) for row in rows]
        total += math.log(sum(math.exp(z) for z in logits)) - logits[label]
    loss = method.loss(model, batch)["loss"]
    assert loss.item() == pytest.approx(total / len(features), rel=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 50])
@pytest.mark.parametrize("beta", [0.1, 0.5, 1.0])
def test_shares_are_those_of_the_density_of_beta(beta: float, steps: int) -> None:
    weights = [beta_distribution(beta, beta).pdf((t + 0.5) / (steps + 1)) for t in range(steps + 1)]
    expected = [weights[t] / sum(weights[: t + 1]) for t in range(steps + 1)]
    np.testing.assert_allclose(beta_shares(steps, beta), expected, rtol=1e-12)


@pytest.mark.parametrize("beta", [0.1, 0.5, 1.0])
def test_what_it_yields_is_the_weighted_mean_of_all_weights(beta: float) -> None:
    method, model = prepared(beta=beta)
    path = [{name: t.double().numpy().copy() for name, t in model.state_dict().items()}]
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 8):
        for tensor in model.visual.state_dict().values():
            tensor.add_(torch.randn(tensor.shape, generator=generator))
        method.after_step(model, step)
        path.append({name: t.double().numpy().copy() for name, t in model.state_dict().items()})
    weights = beta_distribution(beta, beta).pdf((np.arange(8) + 0.5) / 8)
    for name, found in method.weights(model).items():
        mean = sum(w * theta[name] for w, theta in zip(weights, path, strict=True)) / weights.sum()
        np.testing.assert_allclose(found, mean, rtol=1e-5, atol=1e-5, err_msg=name)


def test_only_the_image_tower_trains() -> None:
    method, model = prepared()
    method.loss(model, make_batch())["loss"].backward()  # type: ignore[no-untyped-call]
    assert {p.requires_grad for p in model.head.parameters()} == {False}
    assert all(p.grad is not None for p in model.visual.parameters())


def test_published_settings() -> None:
    config = ClipoodConfig()
    assert (config.lr, config.weight_decay, config.warmup_steps) == (5e-6, 0.1, 0)
    assert (config.margin, config.beta, config.max_grad_norm) == (0.3, 0.5, None)
