"""Merges of weights against slow references in float64."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from shiftbench.core.errors import RunFailedError
from shiftbench.methods.base import Derivation, DerivedMethod, Parent
from shiftbench.methods.builtin.dare import dropped
from shiftbench.methods.builtin.lines import depths, layer_scales
from shiftbench.methods.builtin.model_stock import pulled_mean
from shiftbench.methods.builtin.ties import trim_thresholds
from shiftbench.methods.config import MethodConfig
from shiftbench.models.task_vectors import TaskVectors
from shiftbench.testing.toys import make_derivation
from torch import Tensor

from tests.methods.settings import make_any

Arrays = Mapping[str, np.ndarray]

BLOCKS = 3
SHAPES = {
    "visual.conv1.weight": (4, 3, 2, 2),
    **{
        f"visual.transformer.resblocks.{i}.{name}": shape
        for i in range(BLOCKS)
        for name, shape in (("attn.in_proj_weight", (6, 4)), ("ln_1.bias", (4,)))
    },
    "visual.proj": (4, 5),
    "head.weight": (3, 5),
    "head.bias": (3,),
}


def make_weights(seed: int, scale: float = 1.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights = {k: scale * torch.randn(s, generator=generator) for k, s in SHAPES.items()}
    return {**weights, "visual.count": torch.tensor(7)}


def make_fine_tuned(n: int) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """Pretrained weights, and n others that have moved partly together, but not in a bias."""
    start, together = make_weights(0), make_weights(1, 0.1)
    thetas = []
    for i in range(n):
        alone = make_weights(2 + i, 0.1)
        thetas.append({k: start[k] + together[k] + alone[k] for k in SHAPES})
        thetas[i] |= {"head.bias": start["head.bias"], "visual.count": start["visual.count"]}
    return start, thetas


def given(n: int) -> tuple[Derivation, Arrays, list[Arrays]]:
    """What a method may use of n seeds of ``full``; the same in float64."""
    start, thetas = make_fine_tuned(n)
    parents = {Parent("full", i): theta for i, theta in enumerate(thetas)}
    arrays = [{k: w[k].double().numpy() for k in SHAPES} for w in (start, *thetas)]
    return make_derivation(start, parents), arrays[0], arrays[1:]


def make(name: str, n: int, **settings: Any) -> DerivedMethod[MethodConfig]:
    """A merge of n seeds of ``full``."""
    method = make_any(name, parents=("full",), over_seeds=tuple(range(n)), **settings)
    assert isinstance(method, DerivedMethod)
    assert method.parents() == tuple(Parent("full", i) for i in range(n))
    return method


def assert_weights(found: Mapping[str, Tensor], expected: Arrays) -> None:
    for name, array in expected.items():
        assert found[name].dtype == torch.float32
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6, err_msg=name)
    assert found["visual.count"].item() == 7


# Model Stock


def slow_stock(start: np.ndarray, thetas: Sequence[np.ndarray]) -> np.ndarray:
    """The formula for one vector of weights."""
    deltas, n = [(theta - start).ravel() for theta in thetas], len(thetas)
    cosines = []
    for i in range(n):
        for j in range(i):
            lengths = math.sqrt(deltas[i] @ deltas[i]) * math.sqrt(deltas[j] @ deltas[j])
            cosines.append(deltas[i] @ deltas[j] / lengths if lengths else 0.0)
    cosine = max(sum(cosines) / len(cosines), 0)
    t = n * cosine / (1 + (n - 1) * cosine)
    return t * sum(thetas) / n + (1 - t) * start


@pytest.mark.parametrize("n", [2, 4])
def test_model_stock_of_whole_tensors(n: int) -> None:
    derivation, start, thetas = given(n)
    merged = make("model-stock", n).derive("", derivation)
    assert_weights(merged, {k: slow_stock(start[k], [t[k] for t in thetas]) for k in SHAPES})
    assert torch.equal(merged["head.bias"], derivation.zero_shot["head.bias"])


def test_model_stock_of_rows() -> None:
    derivation, start, thetas = given(3)
    merged = make("model-stock", 3, angle="row").derive("", derivation)
    expected = {}
    for name, theta0 in start.items():
        rows = range(len(theta0)) if theta0.ndim > 1 else [slice(None)]
        parts = [slow_stock(theta0[r], [t[name][r] for t in thetas]) for r in rows]
        expected[name] = np.stack(parts).reshape(theta0.shape)
    assert_weights(merged, expected)


def test_two_models_are_the_papers_case() -> None:
    angle = 1.1
    deltas = torch.tensor([[1.0, 0.0], [2 * math.cos(angle), 2 * math.sin(angle)]]).double()
    ratio = 2 * math.cos(angle) / (1 + math.cos(angle))
    torch.testing.assert_close(pulled_mean(deltas), ratio * deltas.mean(0), rtol=1e-6, atol=0)


@pytest.mark.parametrize("other", [[-1.0, 0.1], [-1.0, 0.0], [0.0, 0.0]])
def test_models_that_disagree_give_the_pretrained_weights(other: list[float]) -> None:
    deltas = torch.tensor([[1.0, 0.0], other])
    assert torch.equal(pulled_mean(deltas), torch.zeros(2).double())


def test_equal_models_are_not_pulled() -> None:
    deltas = torch.tensor([[1.0, 3.0]] * 3)
    torch.testing.assert_close(pulled_mean(deltas), deltas[0].double())


# Task arithmetic


@pytest.mark.parametrize("n", [1, 3])
def test_task_arithmetic_adds_what_has_changed(n: int) -> None:
    derivation, start, thetas = given(n)
    method = make("task-arithmetic", n, scales=(0.25, 1.0), scale=0.25)
    assert method.variants() == ("scale=0.25", "scale=1.0")
    assert method.fixed_variant() == "scale=0.25"
    for scale in (0.25, 1.0):
        expected = {k: start[k] + scale * sum(t[k] - start[k] for t in thetas) for k in SHAPES}
        assert_weights(method.derive(f"scale={scale}", derivation), expected)


# TIES and DARE


def slow_ties(deltas: Sequence[np.ndarray], density: float) -> np.ndarray:
    """Algorithm 1 on flat vectors, one scalar after the other."""
    size = len(deltas[0])
    kept = []
    for delta in deltas:
        smallest = sorted(abs(delta), reverse=True)[min(int(density * size), size - 1)]
        kept.append([d if abs(d) >= smallest else 0.0 for d in delta])
    signs = [np.sign(sum(model[j] for model in kept)) for j in range(size)]
    merged = []
    for j in range(size):
        sign = signs[j] or np.sign(sum(signs))
        agree = [model[j] for model in kept if (model[j] > 0 if sign > 0 else model[j] < 0)]
        merged.append(sum(agree) / max(len(agree), 1))
    return np.array(merged)


def flat(weights: Mapping[str, Any]) -> np.ndarray:
    return np.concatenate([np.asarray(weights[name], np.float64).ravel() for name in SHAPES])


@pytest.mark.parametrize(("n", "density"), [(1, 0.2), (2, 0.2), (3, 0.5), (3, 1.0)])
def test_ties_trims_elects_and_merges(n: int, density: float) -> None:
    derivation, start, thetas = given(n)
    method = make("ties", n, density=density, scales=(0.5, 1.0))
    deltas = [flat(theta) - flat(start) for theta in thetas]
    for scale in (0.5, 1.0):
        expected = flat(start) + scale * slow_ties(deltas, density)
        found = method.derive(f"scale={scale}", derivation)
        np.testing.assert_allclose(flat(found), expected, rtol=1e-5, atol=1e-6)
        assert found["visual.count"].item() == 7


def test_a_sign_that_no_vote_decides_is_that_of_the_majority() -> None:
    for majority in (1.0, -1.0):
        start = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
        start["visual.count"] = torch.tensor(7)
        one, other = dict(start), dict(start)
        one["head.bias"], other["head.bias"] = torch.tensor([0.5, 0, 1]), torch.tensor([-0.5, 0, 1])
        one["head.bias"][2] *= majority
        other["head.bias"][2] *= majority
        derivation = make_derivation(start, {Parent("full", 0): one, Parent("full", 1): other})
        found = make("ties", 2, density=1.0).derive("scale=1.0", derivation)
        assert found["head.bias"].tolist() == [0.5 * majority, 0, majority]


def test_changes_are_ranked_over_all_tensors_and_ties_stay() -> None:
    start = {"a": torch.zeros(4), "b": torch.zeros(6)}
    theta = {"a": torch.tensor([5.0, 4, 4, 4]), "b": torch.tensor([-4.0, 1, 1, 1, 1, 1])}
    assert trim_thresholds(TaskVectors(start, [theta]), 0.2) == [4.0]
    assert trim_thresholds(TaskVectors(start, [theta]), 0.5) == [1.0]
    assert trim_thresholds(TaskVectors(start, [theta]), 1.0) == [1.0]


@pytest.mark.parametrize("merge", ["task-arithmetic", "ties"])
def test_dare_merges_what_is_left(merge: str) -> None:
    derivation, start, _ = given(2)
    method = make("dare", 2, density=0.4, merge=merge, trim=0.3, scales=(0.5,), scale=0.5)
    found = method.derive("scale=0.5", derivation)
    names = [name for name, t in derivation.zero_shot.items() if t.is_floating_point()]
    left = []
    for i, theta in enumerate(derivation.parents.values()):
        deltas = {k: theta[k] - derivation.zero_shot[k] for k in names}
        kept = {k: dropped(d, 0.4, (3, i, names.index(k))) for k, d in deltas.items()}
        left.append(flat(kept))
    change = slow_ties(left, 0.3) if merge == "ties" else left[0] + left[1]
    np.testing.assert_allclose(flat(found), flat(start) + 0.5 * change, rtol=1e-5, atol=1e-6)


def test_what_is_dropped_is_drawn_by_the_seed_and_rescaled() -> None:
    delta = torch.linspace(-1, 1, 40_001)
    left = dropped(delta, 0.1, (0, 0, 0))
    stays = left != 0
    assert torch.allclose(left[stays], delta[stays] / 0.1)
    assert float(stays.double().mean()) == pytest.approx(0.1, abs=5 * math.sqrt(0.09 / 40_001))
    assert torch.equal(left, dropped(delta, 0.1, (0, 0, 0)))
    others = [dropped(delta, 0.1, seed) for seed in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert not any(torch.equal(left, other) for other in others)
    assert torch.equal(dropped(delta, 1.0, (0, 0, 0)), delta)


# LiNeS


def test_lines_scales_by_depth() -> None:
    start, (theta,) = make_fine_tuned(1)
    method = make_any("lines", alphas=(0, 0.4, 1), alpha=0.4)
    assert isinstance(method, DerivedMethod)
    derivation = make_derivation(start, {Parent("full"): theta})
    for alpha in (0.0, 0.4, 1.0):
        expected = {}
        for name in SHAPES:
            share = alpha
            for i in range(BLOCKS):
                if f".{i}." in name:
                    share = alpha + (1 - alpha) * i / (BLOCKS - 1)
            share = 1 if name.startswith("head.") else share
            theta0 = start[name].double().numpy()
            expected[name] = theta0 + share * (theta[name].double().numpy() - theta0)
        assert_weights(method.derive(f"alpha={alpha}", derivation), expected)


def test_each_tower_has_its_own_depths() -> None:
    names = [
        "visual.trunk.blocks.0.mlp.fc1.weight",
        "visual.trunk.blocks.10.attn.0.weight",
        "text.transformer.resblocks.1.ln_1.weight",
        "text.transformer.resblocks.4.ln_1.weight",
        "text.token_embedding.weight",
        "visual.trunk.block2.weight",
    ]
    assert depths(names) == dict(zip(names, (0, 1, 0.25, 1), strict=False))
    assert layer_scales(names, 0.5)["text.transformer.resblocks.1.ln_1.weight"] == 0.625


def test_lines_refuses_a_tower_of_several_stacks() -> None:
    names = ["visual.layer1.0.conv1.weight", "visual.layer2.0.conv1.weight"]
    with pytest.raises(RunFailedError, match=r"but visual\.layer1, visual\.layer2"):
        depths(names)


def test_lines_refuses_a_tower_without_blocks() -> None:
    with pytest.raises(RunFailedError, match="no numbered blocks"):
        make_any("lines").check(lambda: torch.nn.Linear(2, 2))


# Settings


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("model-stock", {"parents": ["full"], "over_seeds": None}, "at least 2 runs"),
        ("ties", {"scales": [0.5, 0.5], "scale": 0.5}, "scales must differ"),
        ("ties", {"scales": [0.5]}, r"scale 1.0 must be one of scales \[0.5\]"),
        ("task-arithmetic", {"scales": [-1, 0.4]}, "greater than or equal to 0"),
        ("dare", {"density": 0}, "greater than 0"),
    ],
)
def test_impossible_merges_are_refused(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make_any(name, **settings)
