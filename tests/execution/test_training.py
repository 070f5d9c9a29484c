"""The loop's own rules: what it clips, what it refuses, what it records."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from shiftbench.core.errors import RunFailedError
from shiftbench.data.batches import WorkerPlace
from shiftbench.execution.schedule import Schedule, learning_rate, make_schedule
from shiftbench.execution.training import Trained, Trainer, _seed
from shiftbench.methods.base import Batch, TrainedMethod
from shiftbench.methods.config import TrainingConfig
from shiftbench.models.classifier import ImageClassifier
from shiftbench.testing.toys import (
    EXAMPLES,
    make_batches,
    make_context,
    make_examples,
    make_model,
)

from tests.methods.contract import Terms
from tests.methods.settings import TRAINING, make_method


def train(
    model: ImageClassifier, method: TrainedMethod[TrainingConfig], schedule: Schedule
) -> Trained:
    """Train on the toy examples, in this process."""
    batches = make_batches(method, model, schedule, WorkerPlace())
    return Trainer(model, method, schedule, batches, seed=0).run()


def slow_adamw(
    weights: list[np.ndarray], gradients: list[np.ndarray], state: dict, lr: float, decay: float
) -> None:
    """One step of AdamW (Loshchilov & Hutter 2019, alg. 2) in float64, in place."""
    state["t"] = state.get("t", 0) + 1
    for i, (w, g) in enumerate(zip(weights, gradients, strict=True)):
        m = state.setdefault(("m", i), np.zeros_like(w))
        v = state.setdefault(("v", i), np.zeros_like(w))
        m[...] = 0.9 * m + 0.1 * g
        v[...] = 0.999 * v + 0.001 * g * g
        m_hat, v_hat = m / (1 - 0.9 ** state["t"]), v / (1 - 0.999 ** state["t"])
        w[...] = w * (1 - lr * decay) - lr * m_hat / (np.sqrt(v_hat) + 1e-8)


def test_a_training_equals_the_papers_recipe_in_float64() -> None:
    """AdamW, warm-up then cosine, the global norm clipped, every parameter decayed."""
    method = make_method("full", lr=0.01, weight_decay=0.1, max_grad_norm=0.7)
    schedule = make_schedule(EXAMPLES, method.config)
    model, reference = make_model(), make_model().double()
    train(model, method, schedule)

    parameters = list(reference.parameters())
    values = [p.detach().numpy() for p in parameters]
    state: dict = {}
    batches = make_batches(method, make_model(), schedule, WorkerPlace())
    clipped = 0
    for step, (images, labels, *_) in enumerate(batches(range(schedule.steps))):
        features = reference.visual(images.double())
        features = features / features.norm(dim=1, keepdim=True)
        logits = features @ reference.head.weight.T + reference.head.bias
        loss = -(logits.log_softmax(1)[torch.arange(len(labels)), labels]).mean()
        gradients = [g.numpy().copy() for g in torch.autograd.grad(loss, parameters)]
        norm = np.sqrt(sum((g**2).sum() for g in gradients))
        clipped += int(norm > 0.7)
        gradients = [g * min(1.0, 0.7 / (norm + 1e-6)) for g in gradients]
        slow_adamw(values, gradients, state, learning_rate(step, schedule.steps, 0.01, 2), 0.1)
    assert 0 < clipped < schedule.steps
    trained = [p.detach().double().numpy() for p in model.parameters()]
    for ours, slow in zip(trained, values, strict=True):
        np.testing.assert_allclose(ours, slow, rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run(poison: float) -> None:
    method, model = make_method("full"), make_model()
    schedule = make_schedule(EXAMPLES, method.config)
    images, labels = make_examples()

    def batches(steps: range) -> Iterator[Batch]:
        for step in steps:
            yield Batch(images * (poison if step == 3 else 1), labels)

    with pytest.raises(RunFailedError, match="not finite at step 4"):
        Trainer(model, method, schedule, batches, seed=0).run()


def test_bf16_autocast_keeps_fp32_weights() -> None:
    method, model = make_method("full", precision="bf16"), make_model()
    schedule = make_schedule(EXAMPLES, method.config)
    trained = train(model, method, schedule)
    exact = train(make_model(), make_method("full"), schedule)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert trained.losses[0] != exact.losses[0]
    assert trained.losses[0] == pytest.approx(exact.losses[0], rel=0.05)


def test_frozen_parameters_stay_bit_identical() -> None:
    method, model = make_method("linear-probe"), make_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    method.prepare(model, make_context(method, model))
    schedule = make_schedule(EXAMPLES, method.config)
    train(model, method, schedule)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"head.weight", "head.bias"}


def test_training_in_pieces_equals_training_at_once() -> None:
    whole, pieces, method = make_model(), make_model(), make_method("full")
    schedule = make_schedule(EXAMPLES, method.config)
    expected = train(whole, method, schedule)
    batches = make_batches(method, pieces, schedule, WorkerPlace())
    trainer = Trainer(pieces, method, schedule, batches, seed=0)
    assert len(trainer.run(until=3).losses) == 3
    assert trainer.run().losses == expected.losses
    for ours, theirs in zip(pieces.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_training_in_pieces_opens_one_stream_and_says_how_long_it_waited() -> None:
    model, method = make_model(), make_method("full")
    schedule = make_schedule(EXAMPLES, method.config)
    read = make_batches(method, model, schedule, WorkerPlace())
    opened: list[range] = []

    def batches(steps: range) -> Iterator[Batch]:
        opened.append(steps)
        for batch in read(steps):
            time.sleep(0.01)
            yield batch

    trainer = Trainer(model, method, schedule, batches, seed=0)
    first = replace(trainer.run(until=2))
    whole = trainer.run()
    assert opened == [range(schedule.steps)]
    assert 0.02 <= first.waited < whole.waited <= whole.seconds
    assert whole.waited >= 0.01 * schedule.steps


def test_a_constant_schedule_keeps_the_peak() -> None:
    method = make_method("full")
    schedule = replace(make_schedule(EXAMPLES, method.config), constant=True)
    rates = {schedule.learning_rate(step, method.config) for step in range(schedule.steps)}
    assert rates == {method.config.lr}


@pytest.mark.parametrize("micro_batch", [None, 4])
def test_terms_beside_the_loss_are_recorded_as_means_over_the_batch(
    micro_batch: int | None,
) -> None:
    method = Terms(TrainingConfig(**TRAINING))
    model = make_model()
    schedule = make_schedule(EXAMPLES, method.config, micro_batch=micro_batch)
    trained = train(model, method, schedule)

    whole = make_batches(
        method, make_model(), make_schedule(EXAMPLES, method.config), WorkerPlace()
    )
    batches = list(whole(range(schedule.steps)))
    assert trained.terms.keys() == {"labels", "twice", "even"}
    labels = [float(batch.labels.double().mean()) for batch in batches]
    assert trained.terms["labels"] == pytest.approx(labels)
    assert trained.terms["twice"] == pytest.approx([2 * loss for loss in trained.losses])
    even = [float(b.inputs.double().mean()) if b.step % 2 == 0 else None for b in batches]
    assert [value is None for value in trained.terms["even"]] == [v is None for v in even]
    present = [value for value in trained.terms["even"] if value is not None]
    assert present == pytest.approx([value for value in even if value is not None], abs=1e-6)


def test_a_term_that_is_not_finite_is_recorded_as_none() -> None:
    class Odd(Terms):
        def loss(self, model: ImageClassifier, batch: Batch) -> dict[str, torch.Tensor]:
            return {**super().loss(model, batch), "odd": torch.tensor(float("nan"))}

    method = Odd(TrainingConfig(**TRAINING))
    trained = train(make_model(), method, make_schedule(EXAMPLES, method.config))
    assert trained.terms["odd"] == [None] * len(trained.losses)


@pytest.mark.parametrize("seed", [7, 20_300_101, 2**63 - 1])
def test_a_suite_may_have_any_seed(seed: int) -> None:
    method, model = make_method("full"), make_model()
    schedule = make_schedule(EXAMPLES, method.config)
    batches = make_batches(method, model, schedule, WorkerPlace())
    assert Trainer(model, method, schedule, batches, seed=seed).run().losses


def test_a_step_is_seeded_as_by_pytorch_which_keeps_notes_of_it() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    noted = len(torch.cuda._queued_calls)
    _seed(7, torch.device("cpu"))
    assert torch.equal(torch.rand(3), expected)
    assert len(torch.cuda._queued_calls) == noted
