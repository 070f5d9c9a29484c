"""States that are saved in time and at a notice, so that little is lost with a worker."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
import torch
from shiftbench.core import notices
from shiftbench.data.batches import WorkerPlace
from shiftbench.execution import saving, training
from shiftbench.execution.saving import LOOK_S, RecalledError, Saving, Signals
from shiftbench.execution.schedule import make_schedule
from shiftbench.execution.training import Trainer
from shiftbench.methods.base import Architecture
from shiftbench.models.checkpoints import load_state, save_state
from shiftbench.models.classifier import ImageClassifier
from shiftbench.testing.toys import EXAMPLES, make_batches, make_context, make_model

from tests.methods.settings import make_method

CPU = torch.device("cpu")


class StoppedError(Exception):
    """A process was lost."""


@pytest.fixture(autouse=True)
def _process_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(notices, "_given", False)
    yield
    signal.signal(signal.SIGTERM, before)


def train(
    state_file: Path,
    every_s: float | None = None,
    on_step: Callable[[int], None] = lambda step: None,
    epochs: list[int] | None = None,
) -> tuple[ImageClassifier, list[float]]:
    """Train the toy by EMA, whose mean is a part of the state; an epoch has 100 of its 10 steps."""
    method, model = make_method("ema"), make_model()
    method.prepare(model, make_context(method, model))
    schedule = replace(make_schedule(EXAMPLES, method.training), save_every=100)
    ticks = iter(range(10_000))
    trainer = Trainer(
        model,
        method,
        schedule,
        make_batches(method, model, schedule, WorkerPlace()),
        seed=0,
        state_file=state_file,
        on_step=on_step,
        on_epoch=[].append if epochs is None else epochs.append,
        saving=Saving(every_s, WorkerPlace(), CPU, clock=lambda: next(ticks)),
    )
    losses = trainer.run().losses
    model.load_state_dict(dict(method.weights(model)))
    return model, losses


def stop_at(last: int) -> Callable[[int], None]:
    def stop(step: int) -> None:
        if step == last:
            raise StoppedError

    return stop


def saved_steps(state_file: Path) -> int:
    return len(load_state(state_file)["done"]["losses"])


def same(one: ImageClassifier, two: ImageClassifier) -> bool:
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_training_that_was_saved_amid_an_epoch_goes_on_bit_for_bit(tmp_path: Path) -> None:
    expected, losses = train(tmp_path / "whole")
    state = tmp_path / "state"
    with pytest.raises(StoppedError):
        train(state, every_s=6, on_step=stop_at(9))
    assert 0 < saved_steps(state) < 9
    epochs: list[int] = []
    found, again = train(state, every_s=6, epochs=epochs)
    assert again == losses and same(found, expected)
    assert epochs == [10]  # nothing is validated where an epoch is not over


def test_time_is_counted_in_the_workers_that_end_a_training(tmp_path: Path) -> None:
    """A row's cost is its seconds times its workers."""
    state = tmp_path / "state"
    with pytest.raises(StoppedError):
        train(state, every_s=6, on_step=stop_at(9))
    kept = load_state(state)
    assert kept["workers"] == 1
    kept["done"] |= {"seconds": 100.0, "waited": 10.0}
    save_state(state, kept | {"workers": 2})
    method, model = make_method("ema"), make_model()
    method.prepare(model, make_context(method, model))
    schedule = make_schedule(EXAMPLES, method.training)
    batches = make_batches(method, model, schedule, WorkerPlace())
    done = Trainer(model, method, schedule, batches, seed=0, state_file=state).done
    assert (done.seconds, done.waited) == (200.0, 20.0)


def test_without_a_limit_only_ends_of_epochs_are_saved(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        train(tmp_path / "state", on_step=stop_at(9))
    assert not (tmp_path / "state").exists()


def test_epochs_that_take_less_than_a_save_are_not_all_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten epochs of a step each, and a save that takes longer than all of them."""
    steps: list[int] = []

    def slowly(file: Path, state: dict[str, Any]) -> None:
        steps.append(len(state["done"]["losses"]))
        time.sleep(0.3)
        save_state(file, state)

    monkeypatch.setattr(training, "save_state", slowly)
    method, model = make_method("clap"), make_model(architecture=Architecture(text=True))
    method.prepare(model, make_context(method, model))
    schedule = replace(make_schedule(EXAMPLES, method.training), save_every=1)
    epochs: list[int] = []
    trainer = Trainer(
        model,
        method,
        schedule,
        make_batches(method, model, schedule, WorkerPlace()),
        seed=0,
        state_file=tmp_path / "state",
        on_epoch=epochs.append,
        saving=Saving(300, WorkerPlace(), CPU),
    )
    trainer.run()
    assert epochs == [*range(1, 11)]
    assert steps == [1, 10]
    assert saved_steps(tmp_path / "state") == 10


@pytest.mark.parametrize(("cost", "saves"), [(0.01, 100), (1.0, 10), (4.0, 3)])
def test_a_tenth_of_the_time_at_most_goes_into_ends_of_epochs(cost: float, saves: int) -> None:
    now, found = 0.0, 0
    at = Saving(None, WorkerPlace(), CPU, clock=lambda: now)
    at.begin(0)
    for epoch in range(1, 101):  # a second each
        now += 1
        if at.due(epoch, over=True):
            found += 1
            at.saved(cost)
    assert found == saves


def test_a_notice_saves_at_once_and_then_ends_the_process(tmp_path: Path) -> None:
    expected, losses = train(tmp_path / "whole")
    state = tmp_path / "state"
    notices.heed()

    def take_away(step: int) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as ended:
        train(state, on_step=take_away)
    assert ended.value.code == 143
    assert saved_steps(state) == 3
    notices._given = False  # another process
    found, again = train(state)
    assert again == losses and same(found, expected)


def test_a_notice_where_nothing_listens_does_what_it_always_did() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    notices.heed()
    os.kill(os.getpid(), signal.SIGTERM)
    assert heard == [signal.SIGTERM] and not notices.given()
    with pytest.raises(SystemExit), notices.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        assert notices.given()
        os.kill(os.getpid(), signal.SIGTERM)
        assert len(heard) == 1  # all of a process group are told at once, and told again
        notices._given_at -= 2
        os.kill(os.getpid(), signal.SIGTERM)
        assert len(heard) == 2  # who says it twice means it


class Group:
    """Workers in threads, which wait for each other where a collective would."""

    def __init__(self, size: int) -> None:
        self._barrier = Barrier(size, timeout=30)
        self._said: list[torch.Tensor] = []
        self.collectives = 0

    def all_reduce(self, tensor: torch.Tensor, operation: Any = None) -> None:
        self._said.append(tensor.clone())
        if self._barrier.wait() == 0:
            self.collectives += 1
        most = torch.stack(self._said).max(dim=0).values
        self._barrier.wait()
        self._said.clear()
        self._barrier.wait()
        tensor.copy_(most)


@pytest.mark.parametrize("asks", ["leaving", "time"])
def test_workers_save_at_the_same_step_and_seldom_ask(
    asks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch ends; one of them is asked to leave at its step 250, or has the slower clock."""
    group = Group(2)
    monkeypatch.setattr(saving.dist, "all_reduce", group.all_reduce)
    saved: dict[int, list[int]] = {0: [], 1: []}

    def work(rank: int) -> None:
        now = 0.0
        at = Saving(
            30.0 if asks == "time" else None,
            WorkerPlace(rank, 2),
            CPU,
            Signals(leaving=lambda: asks == "leaving" and rank == 1 and now >= 25.0),
            clock=lambda: now,
        )
        at.begin(0)
        for step in range(1, 601):
            now += 0.1 if rank else 0.11
            if at.due(step, over=step == 77):
                saved[rank].append(step)
                at.saved()

    threads = [Thread(target=work, args=(rank,), daemon=True) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert saved[0] == saved[1]
    if asks == "leaving":
        epoch, step = saved[0]  # it may take minutes until the machine is gone
        assert epoch == 77
        assert 250 <= step <= 250 + 2 * LOOK_S / 0.1
    else:
        assert len(saved[0]) >= 2
        seconds = [0.11 * (b - a) for a, b in zip([0, *saved[0]], saved[0], strict=False)]
        assert max(seconds) <= 30.0
    assert group.collectives < 60


def test_workers_give_a_training_back_at_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one of them has heard that it is recalled when they ask each other."""
    group = Group(2)
    monkeypatch.setattr(saving.dist, "all_reduce", group.all_reduce)
    saved: dict[int, list[int]] = {0: [], 1: []}
    recalled: list[int] = []

    def work(rank: int) -> None:
        now = 0.0
        signals = Signals(recalled=lambda: rank == 1 and now >= 25.0)
        at = Saving(None, WorkerPlace(rank, 2), CPU, signals, clock=lambda: now)
        at.begin(0)
        with pytest.raises(RecalledError):
            for step in range(1, 601):
                now += 0.1
                if at.due(step):
                    saved[rank].append(step)
                    at.saved()
        recalled.append(rank)

    threads = [Thread(target=work, args=(rank,), daemon=True) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(recalled) == [0, 1]
    assert saved[0] == saved[1] and len(saved[0]) == 1
    assert 250 <= saved[0][0] <= 250 + 2 * LOOK_S / 0.1


def test_one_worker_gives_a_training_back_whose_state_is_saved() -> None:
    now = 0.0
    signals = Signals(recalled=lambda: now >= 5)
    at = Saving(None, WorkerPlace(), CPU, signals, clock=lambda: now)
    at.begin(0)
    assert not at.due(1)
    now = 5.0
    assert at.due(2)
    at.saved(last=True)  # nothing is left to go on with
    with pytest.raises(RecalledError):
        at.saved()
