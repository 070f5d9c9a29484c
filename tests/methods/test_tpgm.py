"""TPGM against projections by hand and gradients by differences, in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from shiftbench.core.errors import RunFailedError
from shiftbench.methods.base import Derivation, DerivedMethod, Parent
from shiftbench.methods.builtin.tpgm import norms_of, projected
from shiftbench.testing.toys import make_derivation, make_model
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from tests.methods.settings import make_any


def derived(**settings: Any) -> tuple[dict[str, Tensor], Derivation]:
    """The weights, and what they are derived from: a run that has moved all but its bias."""
    start = make_model().state_dict()
    theta = {k: v + 0.3 * make_model(seed=5).state_dict()[k] for k, v in start.items()}
    theta["head.bias"] = start["head.bias"]
    derivation = make_derivation(start, {Parent("full"): theta})
    method = make_any("tpgm", **settings)
    assert isinstance(method, DerivedMethod)
    return dict(method.derive("", derivation)), derivation


def slow_radii(derivation: Derivation, iterations: int, lr: float) -> dict[str, float]:
    """Adam on one radius for each tensor, with gradients by central differences."""
    (theta,) = derivation.parents.values()
    ends = [{k: v.double() for k, v in w.items()} for w in (derivation.zero_shot, theta)]
    norms = {k: float((ends[1][k] - v).norm()) for k, v in ends[0].items()}
    norms = {k: norm for k, norm in norms.items() if norm}
    radii = {k: norm / 2 for k, norm in norms.items()}
    model = make_model().double().eval()
    moments = dict.fromkeys(radii, (0.0, 0.0))

    @torch.no_grad()
    def loss(at: dict[str, float], images: Tensor, labels: Tensor) -> float:
        weights = {
            k: v + (at[k] / norms[k] if k in at else 0) * (ends[1][k] - v)
            for k, v in ends[0].items()
        }
        features = functional_call(model.visual, of_tower(weights), (images.double(),))
        features = torch.nn.functional.normalize(features, dim=-1)
        logits = features @ weights["head.weight"].T + weights["head.bias"]
        return float(cross_entropy(logits, labels))

    step, epoch = 0, derivation.seed
    while step < iterations:
        for batch in derivation.id_val_batches(12, epoch):
            if step == iterations:
                break
            step += 1
            radii = {k: min(max(r, 1e-8), norms[k]) for k, r in radii.items()}
            at, h = dict(radii), 1e-6
            for k in radii:
                upper = loss({**at, k: at[k] + h}, batch.inputs, batch.labels)
                lower = loss({**at, k: at[k] - h}, batch.inputs, batch.labels)
                gradient = (upper - lower) / (2 * h)
                first, second = moments[k]
                first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
                moments[k] = first, second
                corrected = first / (1 - 0.9**step), second / (1 - 0.999**step)
                radii[k] -= lr * corrected[0] / (math.sqrt(corrected[1]) + 1e-8)
        epoch += 1
    return {k: min(max(r, 1e-8), norms[k]) / norms[k] for k, r in radii.items()}


def of_tower(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix("visual."): v for k, v in weights.items() if k.startswith("visual.")}


def test_radii_are_learned_on_id_validation() -> None:
    """Seven batches of 12 of the 30 examples: three passes, in three orders."""
    found, derivation = derived(iterations=7, batch_size=12, lr=0.05)
    shares = slow_radii(derivation, 7, 0.05)
    (theta,) = derivation.parents.values()
    assert "head.bias" not in shares
    assert max(abs(share - 0.5) for share in shares.values()) > 0.1
    for name, theta0 in derivation.zero_shot.items():
        expected = theta0 + shares.get(name, 0) * (theta[name] - theta0)
        torch.testing.assert_close(found[name], expected, rtol=1e-3, atol=1e-4, msg=name)


def test_no_radius_goes_beyond_what_has_changed() -> None:
    found, derivation = derived(iterations=3, lr=1e3)
    (theta,) = derivation.parents.values()
    for name, theta0 in derivation.zero_shot.items():
        ends = (found[name] - theta0).norm(), (theta[name] - theta0).norm()
        assert ends[0] <= 1.0001 * ends[1] + 1e-6


def test_a_projection_shortens_rows_and_lengthens_none() -> None:
    delta = torch.tensor([[3.0, -1.0], [0.5, 0.5]])
    norms = norms_of(delta, "mars")
    assert norms.tolist() == [[4], [1]]
    moved = projected(torch.ones(2, 2), delta, torch.tensor(2.0), norms)
    np.testing.assert_allclose(moved, [[2.5, 0.5], [1.5, 1.5]], rtol=1e-6)
    assert norms_of(delta, "l2").item() == pytest.approx(math.sqrt(10.5))
    assert norms_of(delta[0], "mars").item() == 4


def test_rows_have_norms_of_their_own() -> None:
    found, derivation = derived(norm="mars", iterations=2)
    (theta,) = derivation.parents.values()
    theta0 = derivation.zero_shot["visual.proj.weight"]
    delta = theta["visual.proj.weight"] - theta0
    shares = (found["visual.proj.weight"] - theta0).norm(dim=1) / delta.norm(dim=1)
    assert shares.max() < 1 + 1e-5
    assert shares.unique().numel() > 1


def test_a_head_made_of_the_text_tower_is_refused() -> None:
    _, derivation = derived(iterations=1)
    without = {k: v for k, v in derivation.zero_shot.items() if not k.startswith("head.")}
    method = make_any("tpgm")
    assert isinstance(method, DerivedMethod)
    with pytest.raises(RunFailedError, match="needs a linear head"):
        method.derive("", make_derivation(without, {Parent("full"): without}))
