"""CaRot and TRACER against loops in float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from shiftbench.core.errors import RunFailedError
from shiftbench.methods.base import TrainedMethod
from shiftbench.methods.builtin.carot import Carot, CarotConfig, momentum_at
from shiftbench.methods.builtin.static_sd import StaticSd
from shiftbench.methods.builtin.tracer import (
    SelfDistillation,
    SelfDistillationConfig,
    Tracer,
    TracerConfig,
)
from shiftbench.models.classifier import ImageClassifier
from shiftbench.testing.toys import ToyTower, make_batch, make_context, make_model
from torch import Tensor, nn

Array = np.ndarray
CAROT = CarotConfig(distillation=1.3, orthogonality=0.7, cross_norm=0.4)
TRACER = TracerConfig(
    distillation=0.6,
    features=30.0,
    relations=0.5,
    interactive=0.8,
    crossed=1.7,
    cross_norm=0.3,
    orthogonality=0.9,
)


def prepared(method: TrainedMethod) -> tuple[ImageClassifier, ImageClassifier]:  # type: ignore[type-arg]
    """A student that is not where its teacher is, and the teacher."""
    teacher = make_model(architecture=method.architecture())
    student = copy.deepcopy(teacher)
    method.prepare(student, make_context(method, student, steps=20))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return student, teacher


def seen(model: ImageClassifier) -> tuple[Array, Array, float]:
    """Normalised images and captions of the toy batch, and the scale, in float64."""
    batch, model = make_batch(), copy.deepcopy(model).double().eval()
    with torch.no_grad():
        images = model.visual(batch.inputs.double())
        texts = model.text_tower.encode_text(batch.captions)  # type: ignore[operator]
    unit = [(rows / rows.norm(dim=1, keepdim=True)).numpy() for rows in (images, texts)]
    return unit[0], unit[1], float(model.temperature.detach())


def similarities(a: Array, b: Array, scale: float) -> Array:
    return np.array([[scale * sum(x * y for x, y in zip(i, j, strict=True)) for j in b] for i in a])


def log_softmax(row: Array) -> list[float]:
    total = math.log(sum(math.exp(z) for z in row))
    return [z - total for z in row]


def diagonal(logits: Array) -> float:
    return -sum(log_softmax(row)[i] for i, row in enumerate(logits)) / len(logits)


def soft(taught: Array, logits: Array) -> float:
    total = 0.0
    for target, row in zip(taught, logits, strict=True):
        p, q = log_softmax(target), log_softmax(row)
        total -= sum(math.exp(a) * b for a, b in zip(p, q, strict=True))
    return total / len(logits)


def kl(taught: Array, logits: Array) -> float:
    return soft(taught, logits) - soft(taught, taught)


def frobenius(matrix: Array) -> float:
    return math.sqrt(sum(float(x) ** 2 for x in matrix.flatten()))


def projections(model: ImageClassifier) -> tuple[Array, Array]:
    found = (model.visual.proj, model.text_tower.text_projection)
    p_v, p_t = (layer.weight.detach().double().numpy().T for layer in found)  # type: ignore[union-attr]
    return p_v, p_t


def slow_clip(student: ImageClassifier) -> float:
    images, texts, scale = seen(student)
    z = similarities(images, texts, scale)
    return (diagonal(z) + diagonal(z.T)) / 2


def slow_carot(student: ImageClassifier, teacher: ImageClassifier, step: int) -> float:
    p_v, p_t = projections(student)
    loss = slow_clip(student) + CAROT.cross_norm * frobenius(p_v @ p_t.T)
    loss += CAROT.orthogonality * frobenius(p_v.T @ p_v - np.eye(8))
    if step == 0:
        return loss
    z, taught = similarities(*seen(student)), similarities(*seen(teacher))
    return loss + CAROT.distillation * (soft(taught, z) + soft(taught.T, z.T))


def slow_tracer(student: ImageClassifier, teacher: ImageClassifier, step: int) -> float:
    p_v, p_t = projections(student)
    loss = slow_clip(student) + TRACER.cross_norm * frobenius(p_v @ p_t.T)
    loss += TRACER.orthogonality * frobenius(p_v.T @ p_v - np.eye(8))
    if step == 0:
        return loss
    (images, texts, scale), (images_, texts_, _) = seen(student), seen(teacher)
    z, taught = similarities(images, texts, scale), similarities(*seen(teacher))
    to_texts, to_images = similarities(images, texts_, scale), similarities(texts, images_, scale)
    features = ((images - images_) ** 2).mean() + ((texts - texts_) ** 2).mean()
    relations = (kl(taught, z) + kl(taught.T, z.T)) / 2
    interactive = (diagonal(to_texts) + diagonal(to_images)) / 2
    crossed = (kl(taught, to_texts) + kl(taught.T, to_images)) / 2
    compared = TRACER.features * features + TRACER.relations * relations
    compared += TRACER.interactive * interactive + TRACER.crossed * crossed
    return loss + TRACER.distillation * compared


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize(
    ("make", "reference"),
    [
        (lambda: Carot(CAROT), slow_carot),
        (lambda: Tracer(TRACER), slow_tracer),
        (
            lambda: StaticSd(SelfDistillationConfig(**TRACER.model_dump(exclude={"beta"}))),
            slow_tracer,
        ),
    ],
    ids=["carot", "tracer", "static-sd"],
)
def test_the_loss(
    make: Callable[[], Carot | SelfDistillation],
    reference: Callable[[ImageClassifier, ImageClassifier, int], float],
    step: int,
) -> None:
    method = make()
    student, teacher = prepared(method)
    terms = method.loss(student, make_batch()._replace(step=step))
    assert terms["loss"].item() == pytest.approx(reference(student, teacher, step), rel=1e-5)
    assert not any(term.requires_grad for name, term in terms.items() if name != "loss")


@pytest.mark.parametrize("method", [Carot(CAROT), Tracer(TRACER)], ids=["carot", "tracer"])
def test_the_gradient_against_finite_differences(method: Carot | Tracer) -> None:
    student, _ = prepared(method)
    method._teacher.model.double()
    student.double()
    batch = make_batch()
    batch = batch._replace(inputs=batch.inputs.double(), step=1)
    # The model's features are fp32 whatever its weights are.
    student.features = double(student.visual)  # type: ignore[method-assign]
    student.encode_text = double(student.text_tower.encode_text)  # type: ignore[arg-type, method-assign]
    method._teacher.features = double(method._teacher.model.visual)  # type: ignore[method-assign]
    method._teacher.encode_text = double(  # type: ignore[method-assign]
        method._teacher.model.text_tower.encode_text  # type: ignore[arg-type]
    )

    def loss() -> Tensor:
        return method.loss(student, batch)["loss"]

    loss().backward()  # type: ignore[no-untyped-call]
    for name, parameter in student.named_parameters():
        if name.startswith("head."):
            assert parameter.grad is None
            continue
        assert parameter.grad is not None, name
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        where = int(gradient.abs().argmax())
        with torch.no_grad():
            flat[where] += 1e-6
            above = loss()
            flat[where] -= 2e-6
            below = loss()
            flat[where] += 1e-6
        slope = (above - below).item() / 2e-6
        assert gradient[where].item() == pytest.approx(slope, rel=1e-4, abs=1e-7), name


def double(encode: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda inputs: nn.functional.normalize(encode(inputs), dim=-1)


def walk(method: Carot | Tracer, steps: int) -> list[dict[str, Array]]:
    """The student's weights before and after each step; the method sees every one."""
    student = make_model(architecture=method.architecture())
    method.prepare(student, make_context(method, student, steps=steps))
    generator = torch.Generator().manual_seed(0)
    path = []
    for step in range(steps + 1):
        if step:
            for tensor in student.state_dict().values():
                tensor.add_(torch.randn(tensor.shape, generator=generator))
            method.after_step(student, step)
        path.append({k: t.double().numpy().copy() for k, t in student.state_dict().items()})
    return path


@pytest.mark.parametrize(("every", "rise"), [(1, 0.2), (3, 0.5), (500, 0.2), (2, 0.0)])
def test_carots_teacher_moves_at_step_0_and_then_at_its_period(every: int, rise: float) -> None:
    method = Carot(CarotConfig(teacher_every=every, momentum=(0.05, 0.9), momentum_rise=rise))
    path = walk(method, 20)
    teacher = path[0]
    for t, theta in enumerate(path[1:]):  # the step t = 0, 1, … led to θ
        if t % every:
            continue
        m = 0.05 + (0.9 - 0.05) / (20 * rise) * t if t < 20 * rise else 0.9
        teacher = {name: m * teacher[name] + (1 - m) * theta[name] for name in teacher}
    for name, found in method._teacher.state().items():
        np.testing.assert_allclose(found, teacher[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_tracers_teacher_is_the_weighted_mean_of_the_whole_trajectory() -> None:
    method = Tracer(TracerConfig(beta=0.5))
    path = walk(method, 20)
    at = (np.arange(21) + 0.5) / 21
    weights = 1 / np.sqrt(at * (1 - at))
    for name, found in method._teacher.state().items():
        mean = sum(w * theta[name] for w, theta in zip(weights, path, strict=True)) / weights.sum()
        np.testing.assert_allclose(found, mean, rtol=1e-4, atol=1e-5, err_msg=name)


def test_momentum_begins_low_and_ends_high() -> None:
    assert [momentum_at(t, 100, (0.05, 0.9), 0.2) for t in (0, 20, 99)] == [0.05, 0.9, 0.9]
    assert momentum_at(10, 100, (0.05, 0.9), 0.2) == pytest.approx(0.475)


def test_a_tower_without_a_projection_is_refused() -> None:
    tower = ToyTower()
    tower.proj = nn.Identity()  # type: ignore[assignment]
    for method in (Carot(CAROT), Tracer(TRACER)):
        with pytest.raises(RunFailedError, match=f"^{method.name}: the image tower .* attnpool"):
            method.check(lambda: tower)


def test_projections_of_other_towers_are_found() -> None:
    from shiftbench.methods.projections import image_projection

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.ModuleDict({"proj": nn.Linear(5, 3)})

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = nn.Parameter(torch.zeros(5, 3))

    assert image_projection(Head(), "it").shape == (5, 3)
    assert image_projection(Own(), "it").shape == (5, 3)


def test_published_settings() -> None:
    carot, tracer = CarotConfig(), TracerConfig()
    assert (carot.lr, carot.weight_decay, carot.warmup_steps) == (1e-5, 0.1, 500)
    assert (carot.distillation, carot.orthogonality, carot.cross_norm) == (1.5, 0.2, 0.05)
    assert (carot.teacher_every, carot.momentum, carot.momentum_rise) == (500, (0.05, 0.9), 0.2)
    found = (tracer.distillation, tracer.features, tracer.cross_norm, tracer.beta)
    assert found == (0.9, 2000, 0.05, 0.5)
    assert {carot.checkpoint, tracer.checkpoint} == {"last"}
    assert {carot.max_grad_norm, tracer.max_grad_norm} == {None}


def test_a_static_teacher_stays_the_pretrained_model() -> None:
    method = StaticSd(SelfDistillationConfig())
    student, teacher = prepared(method)
    method.after_step(student, 1)
    assert method.state() == {}
    kept = method._teacher.state()
    assert {*kept} >= {name for name in teacher.state_dict() if not name.startswith("head.")}
    assert all(torch.equal(tensor, teacher.state_dict()[name]) for name, tensor in kept.items())
