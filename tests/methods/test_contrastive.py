"""The contrastive loss against slow loops in float64, alone and over two workers; FLYP with it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from pydantic import ValidationError
from shiftbench.methods.base import Batch, TrainedMethod
from shiftbench.methods.builtin.autoft import AutoFt, AutoFtConfig
from shiftbench.methods.builtin.flyp import Flyp, FlypConfig
from shiftbench.methods.contrastive import Duplicates, contrastive_loss, gather
from shiftbench.methods.objective import Objective
from shiftbench.testing.toys import make_batch, make_context, make_model
from torch import Tensor

MODES: tuple[Duplicates, ...] = ("keep", "mask", "soft")
LABELS = [0, 1, 0, 2, 1, 0]
SCALE = 7.5


def unit_rows(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return rows / rows.norm(dim=1, keepdim=True)


def slow_loss(
    images: np.ndarray, texts: np.ndarray, scale: float, labels: list[int], duplicates: str
) -> float:
    total = 0.0
    n = len(images)
    for a, b in [(images, texts), (texts, images)]:
        for i in range(n):
            same = [j for j in range(n) if labels[j] == labels[i]]
            seen = [j for j in range(n) if duplicates != "mask" or j == i or j not in same]
            cosines = {j: sum(x * y for x, y in zip(a[i], b[j], strict=True)) for j in seen}
            denominator = sum(math.exp(scale * cosine) for cosine in cosines.values())
            positives = same if duplicates == "soft" else [i]
            for j in positives:
                probability = math.exp(scale * cosines[j]) / denominator
                total -= math.log(probability) / len(positives) / n / 2
    return total


@pytest.mark.parametrize("duplicates", MODES)
def test_value(duplicates: Duplicates) -> None:
    images, texts, labels = unit_rows(6, 0), unit_rows(6, 1), torch.tensor(LABELS)
    loss = contrastive_loss(images, texts, SCALE, labels, duplicates)
    expected = slow_loss(images.numpy(), texts.numpy(), SCALE, LABELS, duplicates)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("duplicates", MODES)
def test_gradient_against_finite_differences(duplicates: Duplicates) -> None:
    arrays = [unit_rows(6, 0).numpy(), unit_rows(6, 1).numpy(), np.array([[SCALE]])]
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    images, texts, scale = tensors
    loss = contrastive_loss(images, texts, scale[0, 0], torch.tensor(LABELS), duplicates)
    loss.backward()
    for array, tensor in zip(arrays, tensors, strict=True):
        assert tensor.grad is not None
        for index in np.ndindex(array.shape):
            values = []
            for step in (1e-5, -1e-5):
                kept = array[index]
                array[index] += step
                values.append(slow_loss(arrays[0], arrays[1], arrays[2].item(), LABELS, duplicates))
                array[index] = kept
            slope = (values[0] - values[1]) / 2e-5
            assert tensor.grad[index].item() == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_the_diagonal_is_the_target_and_other_captions_of_the_class_are_negatives() -> None:
    images, texts = unit_rows(6, 0), unit_rows(6, 1)
    expected = slow_loss(images.numpy(), texts.numpy(), SCALE, list(range(6)), "keep")
    for labels in (None, torch.tensor(LABELS)):
        loss = contrastive_loss(images, texts, SCALE, labels)
        assert loss.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("duplicates", "floor"), [("keep", math.log(5)), ("mask", 0.0), ("soft", math.log(5))]
)
def test_floor_of_a_batch_of_one_class(duplicates: Duplicates, floor: float) -> None:
    same = unit_rows(1, 0).expand(5, -1)
    loss = contrastive_loss(same, same, SCALE, torch.zeros(5, dtype=torch.int64), duplicates)
    assert loss.item() == pytest.approx(floor, abs=1e-12)


def test_without_duplicates_the_three_ways_agree() -> None:
    images, texts, labels = unit_rows(6, 0), unit_rows(6, 1), torch.arange(6)
    losses = [contrastive_loss(images, texts, SCALE, labels, way).item() for way in MODES]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-12)


@pytest.mark.parametrize("duplicates", ["mask", "soft"])
def test_duplicates_are_told_by_labels(duplicates: Duplicates) -> None:
    with pytest.raises(ValueError, match=f'duplicates "{duplicates}" needs labels'):
        contrastive_loss(unit_rows(6, 0), unit_rows(6, 1), SCALE, None, duplicates)


def test_the_lower_precision_of_the_towers_does_not_reach_the_loss() -> None:
    images, texts = unit_rows(6, 0).float(), unit_rows(6, 1).float()
    expected = contrastive_loss(images, texts, 100.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(contrastive_loss(images, texts, 100.0), expected)


def test_alone_nothing_is_gathered() -> None:
    local = unit_rows(3, 0)
    assert gather(local) is local


# FLYP


def flyp_loss(logit_scale: float, **settings: object) -> tuple[Tensor, float]:
    """The loss of FLYP on the toy batch, and what slow loops say."""
    model, batch = make_model(architecture=Flyp(FlypConfig()).architecture()), make_batch()
    with torch.no_grad():
        model.text_tower.logit_scale.fill_(logit_scale)  # type: ignore[operator, union-attr]
        images = model.visual(batch.inputs).double()
        texts = model.text_tower.encode_text(batch.captions).double()  # type: ignore[operator]
    config = FlypConfig(**settings)  # type: ignore[arg-type]
    expected = slow_loss(
        (images / images.norm(dim=1, keepdim=True)).numpy(),
        (texts / texts.norm(dim=1, keepdim=True)).numpy(),
        math.exp(logit_scale),
        batch.labels.tolist(),
        config.duplicates,
    )
    return Flyp(config).loss(model, batch)["loss"], expected


@pytest.mark.parametrize("duplicates", MODES)
def test_flyp_multiplies_normalised_features_with_the_temperature(duplicates: str) -> None:
    loss, expected = flyp_loss(1.5, duplicates=duplicates)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_the_temperature_is_not_clamped_at_a_hundred() -> None:
    loss, expected = flyp_loss(math.log(250))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_flyp_trains_both_towers_and_the_temperature_but_no_head() -> None:
    method = Flyp(FlypConfig())
    model = make_model(architecture=method.architecture())
    trained = {id(parameter) for parameter in method.parameters(model)}
    method.loss(model, make_batch())["loss"].backward()
    for name, parameter in model.named_parameters():
        assert (id(parameter) in trained) == (not name.startswith("head.")), name
        assert (parameter.grad is not None) == (not name.startswith("head.")), name
    assert model.text_tower.logit_scale.grad != 0


def test_the_loss_of_a_batch_is_not_the_mean_over_its_parts() -> None:
    method, model = Flyp(FlypConfig()), make_model(architecture=Flyp(FlypConfig()).architecture())
    batch = make_batch()
    assert method.whole_batch
    assert method.captions
    whole = method.loss(model, batch)["loss"]
    parts = [method.loss(model, part)["loss"] for part in halves(batch)]
    assert abs(whole - sum(parts) / 2) > 0.1


def test_flyp_needs_captions() -> None:
    model = make_model(architecture=Flyp(FlypConfig()).architecture())
    with pytest.raises(ValueError, match="needs captions"):
        Flyp(FlypConfig()).loss(model, make_batch()._replace(captions=None))


def test_published_settings_of_flyp() -> None:
    config = FlypConfig()
    assert (config.lr, config.weight_decay, config.warmup_steps) == (1e-5, 0.1, 500)
    assert (config.max_grad_norm, config.label_smoothing, config.duplicates) == (None, 0.0, "keep")
    with pytest.raises(ValidationError, match="label_smoothing"):
        FlypConfig(label_smoothing=0.1)


# Over two workers


def distributed_methods() -> dict[str, TrainedMethod[AutoFtConfig] | TrainedMethod[FlypConfig]]:
    flyp = {f"flyp-{way}": Flyp(FlypConfig(duplicates=way)) for way in MODES}
    objective = Objective(
        dcm=0.5, entropy=0.2, flyp=2.0, hinge=0.3, l1_zero=3.0, l2_init=5.0, lr=1, weight_decay=0
    )
    return {**flyp, "autoft": AutoFt(AutoFtConfig(objective=objective))}


def halves(batch: Batch) -> list[Batch]:
    n = len(batch.labels) // 2
    captions = batch.captions
    assert captions is not None
    return [
        Batch(batch.inputs[part], batch.labels[part], captions[part])
        for part in (slice(None, n), slice(n, None))
    ]


def gradients(name: str, batch: Batch) -> tuple[float, dict[str, Tensor]]:
    method = distributed_methods()[name]
    model = make_model(architecture=method.architecture())
    method.prepare(model, make_context(method, model))  # type: ignore[arg-type]
    loss = method.loss(model, batch)["loss"]
    loss.backward()
    every = model.named_parameters()
    return loss.item(), {key: p.grad for key, p in every if p.grad is not None}


def _worker(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
    for name in distributed_methods():
        torch.save(gradients(name, halves(make_batch())[rank]), folder / f"{name}-{rank}.pt")
    dist.destroy_process_group()


def test_two_workers_have_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    mp.spawn(_worker, (tmp_path,), nprocs=2)
    for name in distributed_methods():
        expected_loss, expected = gradients(name, make_batch())
        (loss0, a), (loss1, b) = (
            torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True) for rank in range(2)
        )
        assert (loss0 + loss1) / 2 == pytest.approx(expected_loss, rel=1e-5), name
        if name != "autoft":
            assert loss0 == loss1, name
        mean = {key: (a[key] + b[key]) / 2 for key in a}
        torch.testing.assert_close(mean, expected, rtol=1e-4, atol=1e-6)
