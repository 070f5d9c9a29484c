"""EMA and SWA against their recursions in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from shiftbench.methods.builtin.ema import Averaging, Ema, EmaConfig, ema_share
from shiftbench.methods.builtin.swa import Swa, SwaConfig, averaged_steps
from shiftbench.models.checkpoints import load_state, save_state
from shiftbench.models.classifier import ImageClassifier
from shiftbench.testing.toys import make_context, make_model
from torch import nn

Path = list[dict[str, np.ndarray]]


def make_ema(decay: float = 0.9, *, debias: bool = False) -> Ema:
    return Ema(EmaConfig(decay=decay, debias=debias))


def make_swa(**settings: object) -> Swa:
    return Swa(SwaConfig(**settings))  # type: ignore[arg-type]


def make_normed(seed: int = 0) -> ImageClassifier:
    """A model with a batch norm, which has float and integer buffers."""
    model = make_model(seed)
    model.visual.add_module("bn", nn.BatchNorm1d(8))
    return model


def wander(model: ImageClassifier, seed: int) -> None:
    """Move every weight and buffer somewhere."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.randn(tensor.shape, generator=generator))
        else:
            tensor.add_(1)


def snapshot(model: ImageClassifier) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().astype(np.float64) for name, tensor in model.state_dict().items()}


def run(method: Averaging, steps: int = 12) -> tuple[ImageClassifier, Path]:
    """A walk of the model under the method; the path has what it was before and after each step."""
    model = make_normed()
    method.prepare(model, make_context(method, model, steps=steps))
    path = [snapshot(model)]
    for step in range(1, steps + 1):
        wander(model, step)
        method.after_step(model, step)
        path.append(snapshot(model))
    return model, path


def slow_biased(path: Path, name: str, decay: float) -> np.ndarray:
    mean = path[0][name]
    for theta in path[1:]:
        mean = decay * mean + (1 - decay) * theta[name]
    return mean


def slow_debiased(path: Path, name: str, decay: float) -> np.ndarray:
    mean = np.zeros_like(path[0][name])
    for theta in path[1:]:
        mean = decay * mean + (1 - decay) * theta[name]
    return mean / (1 - decay ** (len(path) - 1))


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(("debias", "reference"), [(False, slow_biased), (True, slow_debiased)])
def test_ema_follows_its_recursion(
    debias: bool, decay: float, reference: Callable[[Path, str, float], np.ndarray]
) -> None:
    method = make_ema(decay, debias=debias)
    model, path = run(method)
    weights = method.weights(model)
    assert list(weights) == list(model.state_dict())
    for name, tensor in weights.items():
        if tensor.is_floating_point():
            expected = reference(path, name, decay)
            np.testing.assert_allclose(tensor, expected, rtol=1e-5, atol=1e-5, err_msg=name)
        else:
            assert tensor.item() == path[-1][name]


def test_the_biased_mean_is_the_debiased_one_pulled_to_the_start() -> None:
    # WiSE-FT, App. C.3.2: an interpolation of the start and the debiased mean, with 1 - β^t.
    biased, debiased = make_ema(), make_ema(debias=True)
    model, path = run(biased)
    other, _ = run(debiased)
    alpha = 1 - 0.9**12
    for name in ("head.weight", "visual.proj.weight"):
        mean = debiased.weights(other)[name].double().numpy()
        expected = (1 - alpha) * path[0][name] + alpha * mean
        np.testing.assert_allclose(biased.weights(model)[name], expected, rtol=1e-5, atol=1e-5)


def test_a_frozen_weight_is_its_own_mean_bit_for_bit() -> None:
    for method in (make_ema(debias=True), make_ema(), make_swa(start=0, every=1)):
        model = make_normed()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        method.prepare(model, make_context(method, model))
        for step in range(1, 6):
            method.after_step(model, step)
        after = method.weights(model)
        assert all(torch.equal(after[name], before[name]) for name in before)


def test_the_first_share() -> None:
    assert ema_share(1, 0.999, debias=True) == 1
    assert ema_share(1, 0.75, debias=False) == 0.25
    assert ema_share(10**6, 0.999, debias=True) == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("steps", "every", "start", "expected"),
    [
        (12, 3, 0.75, [9, 12]),
        (12, 3, 0.5, [6, 9, 12]),
        (10, 3, 0.75, [10]),
        (10, 4, 0.0, [2, 6, 10]),
        (12, 4, 0.0, [4, 8, 12]),
        (100, 1, 0.55, list(range(55, 101))),
        (1, 5, 0.75, [1]),
        (7, 100, 0.0, [7]),
    ],
)
def test_swa_averages_the_last_weights_and_those_before(
    steps: int, every: int, start: float, expected: list[int]
) -> None:
    assert list(averaged_steps(steps, every, start)) == expected


@pytest.mark.parametrize(
    ("settings", "steps", "points"),
    [
        ({"epochs": 4, "start": 0.5}, 12, [6, 9, 12]),
        ({"epochs": 10}, 25, [19, 22, 25]),  # 2.5 batches of data make epochs of three steps
        ({"every": 2}, 12, [10, 12]),
        ({"every": 1, "start": 0}, 5, [1, 2, 3, 4, 5]),
    ],
)
def test_swa_is_the_mean_of_its_points(
    settings: dict[str, object], steps: int, points: list[int]
) -> None:
    method = make_swa(**settings)
    model, path = run(method, steps)
    weights = method.weights(model)
    assert list(weights) == list(model.state_dict())
    for name, tensor in weights.items():
        expected = np.mean([path[point][name] for point in points], axis=0)
        if not tensor.is_floating_point():
            expected = path[-1][name]
        np.testing.assert_allclose(tensor, expected, rtol=1e-5, atol=1e-5, err_msg=name)


def test_before_its_first_point_swa_has_the_present_weights() -> None:
    method, model = make_swa(every=1), make_normed()
    method.prepare(model, make_context(method, model, steps=8))
    for step in range(1, 6):
        wander(model, step)
        method.after_step(model, step)
    assert all(torch.equal(method.weights(model)[k], v) for k, v in model.state_dict().items())
    wander(model, 6)
    method.after_step(model, 6)
    assert all(torch.equal(method.weights(model)[k], v) for k, v in model.state_dict().items())
    wander(model, 7)
    method.after_step(model, 7)
    assert not torch.equal(method.weights(model)["head.bias"], model.head.bias)


@pytest.mark.parametrize("make", [make_ema, lambda: make_ema(debias=True), make_swa])
@pytest.mark.parametrize("stop", [1, 9, 10])
def test_a_restored_mean_goes_on_bit_for_bit(
    make: Callable[[], Averaging], stop: int, tmp_path: object
) -> None:
    whole, first, second = make(), make(), make()
    model, _ = run(whole)
    interrupted = make_normed()
    first.prepare(interrupted, make_context(first, interrupted, steps=12))
    for step in range(1, stop + 1):
        wander(interrupted, step)
        first.after_step(interrupted, step)
    save_state(f"{tmp_path}/state", {"method": first.state()})
    fresh = make_normed(seed=9)
    second.prepare(fresh, make_context(second, fresh, steps=12))
    second.restore(load_state(f"{tmp_path}/state")["method"])
    for step in range(stop + 1, 13):
        wander(interrupted, step)
        second.after_step(interrupted, step)
    expected, resumed = whole.weights(model), second.weights(interrupted)
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_the_training_model_is_left_alone() -> None:
    for method in (make_ema(), make_swa(every=1, start=0)):
        model, path = run(method)
        method.weights(model)["head.weight"].zero_()
        np.testing.assert_array_equal(model.head.weight.detach().numpy(), path[-1]["head.weight"])
