"""The learning rate and the number of steps against what the WiSE-FT paper's formula gives."""

from __future__ import annotations

import math

import pytest
from shiftbench.core.errors import InputError
from shiftbench.execution.schedule import learning_rate, make_schedule
from shiftbench.methods.config import TrainingConfig


def test_warm_up_then_cosine() -> None:
    rates = [learning_rate(step, 100, 3e-5, 10) for step in range(100)]
    slow = [
        3e-5 * (s + 1) / 10 if s < 10 else 3e-5 * 0.5 * (1 + math.cos(math.pi * (s - 10) / 90))
        for s in range(100)
    ]
    assert rates == pytest.approx(slow, rel=1e-15)
    assert rates[9] == 3e-5
    assert max(rates) == 3e-5


def test_warm_up_longer_than_the_run_never_reaches_the_peak() -> None:
    assert learning_rate(19, 20, 1.0, 500) == pytest.approx(20 / 500)


def test_no_warm_up_starts_at_the_peak() -> None:
    assert learning_rate(0, 20, 1.0, 0) == 1.0


def test_imagenet_takes_the_papers_number_of_steps() -> None:
    schedule = make_schedule(1_281_167, TrainingConfig())
    assert (schedule.steps, schedule.batch_size) == (25_023, 512)
    assert schedule.save_every == 2_503


def test_a_small_training_set_shrinks_the_batch() -> None:
    schedule = make_schedule(10, TrainingConfig(epochs=3))
    assert (schedule.steps, schedule.batch_size, schedule.micro_batch) == (3, 10, 10)


def test_the_budget_caps_the_steps() -> None:
    assert make_schedule(1000, TrainingConfig(batch_size=10), max_steps=7).steps == 7


def test_micro_batches_divide_a_workers_share() -> None:
    assert make_schedule(1000, TrainingConfig(batch_size=96), 3, 16).micro_batch == 16
    with pytest.raises(InputError, match="96 cannot be divided over 5 workers"):
        make_schedule(1000, TrainingConfig(batch_size=96), 5)
    with pytest.raises(InputError, match=r"micro_batch 20 does not divide the 32 examples"):
        make_schedule(1000, TrainingConfig(batch_size=96), 3, 20)
