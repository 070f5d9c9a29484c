"""FTP and SPD, step by step, against AdamW and projections in float64, one number at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from shiftbench.methods.builtin.ftp import Ftp, FtpConfig
from shiftbench.methods.builtin.spd import Spd, SpdConfig, shares_taken_back
from shiftbench.testing.toys import make_context, make_model

Arrays = dict[str, np.ndarray]
Project = Callable[[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]
STEPS, LR = 12, 0.02


def gradients(start: Arrays, step: int) -> Arrays:
    """Of a bowl whose middle moves, so that descent leads away from θ0 and back again."""
    middle = 0.05 * math.sin(step)
    draw = np.random.default_rng(step)
    return {
        name: array - start[name] + middle + 0.01 * draw.standard_normal(array.shape)
        for name, array in start.items()
    }


def found(method: Ftp | Spd) -> tuple[Arrays, Arrays]:
    """The weights at the beginning, and those of the method after some steps."""
    model = make_model().double()
    method.prepare(model, make_context(method, model))
    start = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    optimizer = method.optimizer(method.parameters(model))
    for step in range(1, STEPS + 1):
        for name, gradient in gradients(start, step).items():
            model.get_parameter(name).grad = torch.from_numpy(gradient)
        method.before_step(model)
        optimizer.param_groups[0]["lr"] = LR / step
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(model, step)
    return start, {name: p.detach().numpy() for name, p in model.named_parameters()}


def slow(start: Arrays, decay: float, project: Project) -> Arrays:
    """AdamW, and after each of its steps a projection of every tensor."""
    weights = {name: array.copy() for name, array in start.items()}
    moments: dict[str, Any] = dict.fromkeys(start, (0.0, 0.0))
    for step in range(1, STEPS + 1):
        for name, gradient in gradients(start, step).items():
            first, second = moments[name]
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            moments[name] = first, second
            corrected = np.sqrt(second / (1 - 0.999**step)) + 1e-8
            rate, theta = LR / step, weights[name]
            moved = theta * (1 - rate * decay) - rate * first / (1 - 0.9**step) / corrected
            weights[name] = project(name, start[name], theta, moved, gradient, step)
    return weights


class SlowSpd:
    def __init__(self, strength: float, head: bool) -> None:
        self.strength, self.head, self.taken = strength, head, 0

    def __call__(
        self,
        name: str,
        theta0: np.ndarray,
        theta: np.ndarray,
        moved: np.ndarray,
        gradient: np.ndarray,
        step: int,
    ) -> np.ndarray:
        if name.startswith("head.") and not self.head:
            return moved
        if -sum((gradient * (theta - theta0)).flat) >= 0:
            return moved
        now, then = (math.sqrt(sum(((x - theta0) ** 2).flat)) for x in (moved, theta))
        ratio = min(1.0, max(0.0, (now - then) / now))
        self.taken += ratio > 0
        return moved - self.strength * ratio * (moved - theta0)


@pytest.mark.parametrize(
    ("strength", "head", "decay"), [(1.0, True, 0.0), (3.0, False, 0.0), (0.5, True, 0.1)]
)
def test_spd_against_its_algorithm(strength: float, head: bool, decay: float) -> None:
    method = Spd(SpdConfig(strength=strength, include_head=head, weight_decay=decay, lr=LR))
    start, weights = found(method)
    reference = SlowSpd(strength, head)
    expected = slow(start, decay, reference)
    assert reference.taken > 5
    for name, array in expected.items():
        np.testing.assert_allclose(weights[name], array, rtol=1e-7, atol=1e-9, err_msg=name)


def test_spd_with_strength_one_gives_the_distance_that_was() -> None:
    slopes, before = torch.tensor([1.0, 1.0, -1.0, 1.0]), torch.tensor([1.0, 3.0, 1.0, 0.0])
    after = torch.tensor([2.0, 2.0, 2.0, 0.0])
    assert shares_taken_back(slopes, before, after, 1.0).tolist() == [0.5, 0, 0, 0]
    assert shares_taken_back(slopes, before, after, 3.0).tolist() == [1.5, 0, 0, 0]


class SlowFtp:
    def __init__(self, kappa: float, head: bool) -> None:
        self.kappa, self.head = kappa, head
        self.kept: dict[str, Any] = {}
        self.cut, self.shrunk = 0, 0

    def __call__(
        self,
        name: str,
        theta0: np.ndarray,
        theta: np.ndarray,
        moved: np.ndarray,
        gradient: np.ndarray,
        step: int,
    ) -> np.ndarray:
        if name.startswith("head.") and not self.head:
            return moved
        change = moved - theta0
        rows = change.reshape(len(change) if change.ndim > 1 else 1, -1)
        norms = [sum(abs(row)) + 1e-8 for row in rows]
        radius, first, second, change_before, norms_before = self.kept.get(
            name, (1e-8, 0.0, 0.0, None, None)
        )
        if step > 1:
            of_rows = zip(gradient.reshape(rows.shape), change_before, norms_before, strict=True)
            slope = sum(sum(g * c) / norm for g, c, norm in of_rows)
            self.shrunk += slope > 0
            slope = self.kappa * slope if slope > 0 else slope
            first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
            corrected = math.sqrt(second / (1 - 0.999**step)) + 1e-8
            radius -= 0.01 * first / (1 - 0.9**step) / corrected
            radius = min(max(radius, 1e-8), max(norms))
        self.kept[name] = radius, first, second, rows, norms
        self.cut += radius < max(norms)
        shares = np.array([min(1.0, radius / norm) for norm in norms])
        return theta0 + (shares[:, None] * rows).reshape(theta0.shape)


@pytest.mark.parametrize(
    ("kappa", "head", "decay"), [(1.0, False, 0.0), (0.3, True, 0.0), (0.0, False, 0.1)]
)
def test_ftp_against_its_algorithm(kappa: float, head: bool, decay: float) -> None:
    start, weights = found(Ftp(FtpConfig(kappa=kappa, include_head=head, weight_decay=decay)))
    reference = SlowFtp(kappa, head)
    expected = slow(start, decay, reference)
    assert reference.cut > 10
    assert reference.shrunk > 10
    for name, array in expected.items():
        np.testing.assert_allclose(weights[name], array, rtol=1e-7, atol=1e-9, err_msg=name)


def test_nothing_of_the_beginning_is_an_optimizers() -> None:
    model = make_model()
    for method in (Ftp(FtpConfig()), Spd(SpdConfig())):
        method.prepare(model, make_context(method, model))
        optimizer = method.optimizer(method.parameters(model))
        assert all(value is not None for value in optimizer.state_dict()["param_groups"][0])
        kept = [tensor for state in optimizer.state.values() for tensor in state.values()]
        groups = [v for g in optimizer.param_groups for k, v in g.items() if k != "params"]
        assert not [value for value in (*kept, *groups) if isinstance(value, torch.Tensor)]


def test_what_does_not_train_is_left_alone() -> None:
    model = make_model()
    model.visual.get_parameter("proj.weight").requires_grad_(False)
    method = Spd(SpdConfig(train_head=False))
    method.ready(model, make_context(method, model))
    assert "visual.proj.bias" in method._anchors.values
    assert not {"visual.proj.weight", "head.weight", "head.bias"} & {*method._anchors.values}
