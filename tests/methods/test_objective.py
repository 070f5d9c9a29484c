"""The nine losses against slow loops in float64, and objectives as files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from shiftbench.core.errors import InputError
from shiftbench.methods import objective as o
from shiftbench.methods.objective import LOSSES, RELEASED, LossName, Objective
from torch import Tensor

N, CLASSES = 7, 4


def make_logits() -> tuple[Tensor, Tensor]:
    """Logits (7, 4) float64 on CLIP's scale, right and wrong ones, and labels."""
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(N, CLASSES, generator=generator, dtype=torch.float64)
    labels = torch.randint(CLASSES, (N,), generator=generator)
    assert 0 < (logits.argmax(1) == labels).sum() < N
    return logits, labels


def make_weights(seed: int) -> list[Tensor]:
    """Tensors of very different sizes, so that a mean of means would differ."""
    generator = torch.Generator().manual_seed(seed)
    shapes: list[tuple[int, ...]] = [(), (3,), (5, 4)]
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]


def probabilities(row: np.ndarray) -> list[float]:
    total = sum(math.exp(z) for z in row)
    return [math.exp(z) / total for z in row]


def slow_entropy(row: np.ndarray) -> float:
    return -sum(p * math.log(p) for p in probabilities(row))


def slow_losses(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    means = dict.fromkeys(["ce", "hinge", "entropy", "dcm"], 0.0)
    for z, y in zip(logits, labels, strict=True):
        means["ce"] -= math.log(probabilities(z)[y]) / N
        means["hinge"] += sum(max(0.0, z[j] - z[y] + 1) for j in range(CLASSES) if j != y) / N
        means["entropy"] += slow_entropy(z) / N
        if max(range(CLASSES), key=lambda j: z[j]) != y:
            means["dcm"] += slow_entropy(z) / N
    return means


def test_losses_of_logits() -> None:
    logits, labels = make_logits()
    fast = {
        "ce": o.cross_entropy(logits, labels),
        "hinge": o.hinge(logits, labels),
        "entropy": o.entropy(logits),
        "dcm": o.dcm(logits, labels),
    }
    slow = slow_losses(logits.numpy(), labels.numpy())
    assert {k: v.item() for k, v in fast.items()} == pytest.approx(slow, rel=1e-12)


def test_smoothed_cross_entropy() -> None:
    logits, labels = make_logits()
    uniform = -np.mean([[math.log(p) for p in probabilities(z)] for z in logits.numpy()])
    expected = 0.9 * slow_losses(logits.numpy(), labels.numpy())["ce"] + 0.1 * uniform
    assert o.cross_entropy(logits, labels, 0.1).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["ce", "hinge", "entropy", "dcm"])
def test_gradient_of_logits_against_finite_differences(name: str) -> None:
    """For dcm this says too that the indicator is a constant."""
    logits, labels = make_logits()
    logits.requires_grad_(True)
    fast = {"ce": o.cross_entropy, "hinge": o.hinge, "dcm": o.dcm}
    loss = o.entropy(logits) if name == "entropy" else fast[name](logits, labels)
    loss.backward()
    assert logits.grad is not None
    for index in np.ndindex(N, CLASSES):
        values = []
        for step in (1e-6, -1e-6):
            moved = logits.detach().numpy().copy()
            moved[index] += step
            values.append(slow_losses(moved, labels.numpy())[name])
        slope = (values[0] - values[1]) / 2e-6
        assert logits.grad[index].item() == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_hinge_is_a_sum_over_classes() -> None:
    """Equal logits: every wrong class is inside the margin by 1."""
    assert o.hinge(torch.zeros(3, 10), torch.tensor([0, 4, 9])).item() == 9


def test_minimised_entropies_make_predictions_surer() -> None:
    logits = torch.tensor([[1.0, 0.0]], requires_grad=True)
    for loss in (o.entropy(logits), o.dcm(logits, torch.tensor([1]))):
        (gradient,) = torch.autograd.grad(loss, logits)
        assert gradient[0, 0] < 0 < gradient[0, 1]  # descent raises the larger logit


def test_dcm_is_a_mean_over_right_predictions_too() -> None:
    logits = torch.zeros(4, 2)
    logits[:, 0] = 1e-9
    half = o.dcm(logits, torch.tensor([0, 0, 1, 1])).item()
    assert half == pytest.approx(math.log(2) / 2)


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[1e4, 0.0, -1e4]], requires_grad=True)
    loss = o.entropy(logits) + o.dcm(logits, torch.tensor([2]))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_norms_are_means_over_all_scalars() -> None:
    weights, anchor = make_weights(1), make_weights(2)
    flat = [x for w in weights for x in w.flatten().tolist()]
    flat0 = [x for w in anchor for x in w.flatten().tolist()]
    n = 24
    assert len(flat) == n
    expected = {
        "l1_zero": sum(abs(x) for x in flat) / n,
        "l2_zero": sum(x * x for x in flat) / n,
        "l1_init": sum(abs(x - y) for x, y in zip(flat, flat0, strict=True)) / n,
        "l2_init": sum((x - y) ** 2 for x, y in zip(flat, flat0, strict=True)) / n,
    }
    fast = {
        "l1_zero": o.l1_zero(weights),
        "l2_zero": o.l2_zero(weights),
        "l1_init": o.l1_init(weights, anchor),
        "l2_init": o.l2_init(weights, anchor),
    }
    assert {k: v.item() for k, v in fast.items()} == pytest.approx(expected, rel=1e-12)


def test_gradients_of_norms() -> None:
    weights, anchor = [w.requires_grad_(True) for w in make_weights(1)], make_weights(2)
    expected = {
        o.l1_zero: lambda x, y: np.sign(x) / 24,
        o.l2_zero: lambda x, y: 2 * x / 24,
        o.l1_init: lambda x, y: np.sign(x - y) / 24,
        o.l2_init: lambda x, y: 2 * (x - y) / 24,
    }
    for function, slope in expected.items():
        loss = function(weights, anchor) if "init" in function.__name__ else function(weights)
        for w, w0, gradient in zip(
            weights, anchor, torch.autograd.grad(loss, weights), strict=True
        ):
            np.testing.assert_allclose(
                gradient.numpy(), slope(w.detach().numpy(), w0.numpy()), rtol=1e-12
            )


def test_total_computes_only_what_counts() -> None:
    def fail() -> Tensor:
        raise AssertionError("this loss has no weight")

    x = torch.tensor(3.0, requires_grad=True)
    weights: dict[LossName, float] = {"ce": 1.0, "dcm": 0.5, "flyp": 0.0}
    terms = o.total(weights, {"ce": lambda: x, "dcm": lambda: x**2, "flyp": fail})
    assert {name: value.item() for name, value in terms.items()} == {
        "loss": 7.5,
        "ce": 3.0,
        "dcm": 9.0,
    }
    terms["loss"].backward()
    assert x.grad == 4.0
    assert not terms["dcm"].requires_grad


def test_weights_of_an_objective() -> None:
    objective = Objective(dcm=0.5, l2_init=2, lr=1e-3, weight_decay=0.2)
    assert tuple(objective.weights) == LOSSES
    assert {k: v for k, v in objective.weights.items() if v} == {"ce": 1, "dcm": 0.5, "l2_init": 2}
    assert Objective(ce=2, lr=1e-3, weight_decay=0).weights["ce"] == 2
    with pytest.raises(ValidationError, match="ce"):
        Objective(ce=-2, lr=1e-3, weight_decay=0)


# Files


def test_released_objectives_are_the_published_ones() -> None:
    """Columns ce, dcm, entropy, flyp, hinge, l1init, l1zero, l2init, l2zero, seed, lr, wd."""
    table = """
        imagenet 1 0.0558 0.1869 0.6630 0.0725 0.4238 1.01e-3 9.07e-4 0.1058 2 3.025e-6 0.2094
        iwildcam 1 0.6224 4.68e-4 1.9057 1.60e-4 1.55e-3 1.93e-4 1.73e-4 1.09e-4 34 1.362e-4 0.6042
        fmow 1 0.6024 1.40e-3 2.95e-3 2.60e-3 1.18e-3 2.58e-5 2.54e-4 2.18e-3 32 2.520e-5 0.4442
    """
    rows = [line.split() for line in table.strip().splitlines()]
    assert sorted(row[0] for row in rows) == list(RELEASED)
    for name, *numbers in rows:
        objective = o.released(name)
        weights = dict(zip(LOSSES, map(float, numbers[:9]), strict=True))
        assert objective.weights == pytest.approx(weights, rel=5e-3)
        found = [objective.seed, objective.lr, objective.weight_decay]
        assert found == pytest.approx([float(n) for n in numbers[9:]], rel=5e-4)
        assert objective.source is not None
        assert f"autoft/hparams/{name}.json" in objective.source


def test_a_file_gives_back_every_digit(tmp_path: Path) -> None:
    objective = Objective(
        flyp=0.1 + 0.2, dcm=1e-5, lr=3e-7, weight_decay=1 / 3, seed=4, source="läb: 1"
    )
    file = tmp_path / "objective.yaml"
    file.write_text(objective.dump(), encoding="utf-8")
    assert o.load_objective(file) == objective
    assert o.load_objective(file).source == "läb: 1"


def test_where_it_comes_from_is_no_part_of_a_run() -> None:
    told = Objective(lr=1e-3, weight_decay=0, seed=4, source="here")
    assert told.model_dump() == Objective(lr=1e-3, weight_decay=0).model_dump()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: 1e-3\nweight_decay: 0\nflypp: 1", r':3: unknown key "flypp" \(did you mean "flyp"'),
        ("lr: 1e-3\nweight_decay: 0\nce: -2", ":3: ce: must be greater than or equal to 0"),
        ("lr: 1e-3\nweight_decay: 0\ndcm: -1", ":3: dcm: must be greater than or equal to 0"),
        ("lr: 1e-3\nweight_decay: 0\ndcm: a", ":3: dcm: must be a valid number"),
        ("lr: 1e-3\nweight_decay: 0\ndcm: .inf", ":3: dcm: must be a finite number"),
        ("lr: 0\nweight_decay: 0", ":1: lr: must be greater than 0"),
        ("lr: 1e-3", 'the key "weight_decay" is missing'),
        ("lr: [", "not valid YAML"),
        ("- 1", "mapping"),
        ("lr: !!python/object/apply:os.getcwd []", "is not a plain"),
    ],
)
def test_a_bad_file_gives_one_line(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "objective.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        o.load_objective(file, "my/objective.yaml")
    assert str(caught.value).startswith("my/objective.yaml")
    assert "\n" not in str(caught.value)
