"""Steps that do not fit the memory: what is held instead, and that the numbers stay the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from shiftbench.data.batches import WorkerPlace
from shiftbench.execution.memory import FEW, Memory
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.schedule import make_schedule
from shiftbench.execution.setup import Setup
from shiftbench.execution.stages.fit import fit
from shiftbench.execution.training import Trained, Trainer
from shiftbench.execution.workspace import Workspace
from shiftbench.methods.base import Batch, TrainedMethod
from shiftbench.methods.config import TrainingConfig
from shiftbench.suite.file import Resources
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite
from shiftbench.testing.toys import EXAMPLES, make_batch, make_batches, make_context, make_model
from torch import Tensor, nn

from tests.methods.settings import TRAINING, make_method

BATCH = TRAINING["batch_size"]


class Small(nn.Module):
    """A tower that runs out of memory at more examples than it has room for.

    Attributes:
        room: examples that fit.
        seen: how many there were at each pass.
    """

    def __init__(self, tower: nn.Module, room: Callable[[], int]) -> None:
        super().__init__()
        self.tower = tower
        self.room = room
        self.seen: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(len(images))
        if len(images) > self.room():
            raise torch.OutOfMemoryError("CUDA out of memory")
        features: Tensor = self.tower(images)
        return features


def make_trainer(
    method: TrainedMethod[TrainingConfig],
    room: Callable[[], int] = lambda: EXAMPLES,
    memory: Memory | None = None,
    micro_batch: int | None = None,
    **settings: object,
) -> tuple[Trainer, Small]:
    """What trains the toy model in so little memory."""
    model = make_model(architecture=method.architecture())
    model.visual = tower = Small(model.visual, lambda: EXAMPLES)
    schedule = make_schedule(
        EXAMPLES, method.training, 1, micro_batch, whole_batch=method.whole_batch
    )
    method.prepare(model, make_context(method, model))
    batches = make_batches(method, model, schedule, WorkerPlace())
    tower.room, tower.seen = room, []
    trainer = Trainer(model, method, schedule, batches, seed=0, memory=memory, **settings)  # type: ignore[arg-type]
    return trainer, tower


def train(name: str, room: Callable[[], int]) -> tuple[Trained, Trainer, Small]:
    trainer, tower = make_trainer(make_method(name), room)
    return trainer.run(), trainer, tower


@pytest.mark.parametrize("name", ["full", "flyp", "saft", "ema"])
def test_less_is_held_and_the_numbers_are_the_same(name: str) -> None:
    """FLYP's loss sees its batch whole and encodes it in pieces, which computes them twice."""
    expected, whole, _ = train(name, lambda: EXAMPLES)
    found, trainer, tower = train(name, lambda: 5)
    assert whole.memory.details() == {}
    assert trainer.memory.details() == {"micro_batch": 3, "activation_checkpointing": True}
    assert tower.seen[:4] == [12, 6, 6, 3] and set(tower.seen[4:]) == {3}
    assert found.losses == pytest.approx(expected.losses, rel=1e-4)
    torch.testing.assert_close(
        dict(trainer._model.state_dict()), dict(whole._model.state_dict()), rtol=1e-4, atol=1e-6
    )


def test_what_was_added_before_the_memory_ran_out_is_not_counted_twice() -> None:
    """Later, too, when other processes on a GPU take more of it."""
    rooms = iter([12, 12, 12, 5, 6, 5])  # three steps; then neither 12 nor a second 6 fits

    expected, whole, _ = train("full", lambda: EXAMPLES)
    found, trainer, tower = train("full", lambda: next(rooms, 4))
    assert tower.seen[3:8] == [12, 6, 6, 6, 3]
    assert trainer.memory.micro_batch == 3
    assert found.losses == pytest.approx(expected.losses, rel=1e-4)
    torch.testing.assert_close(
        dict(trainer._model.state_dict()), dict(whole._model.state_dict()), rtol=1e-4, atol=1e-6
    )


def test_it_is_said_in_one_line_that_nothing_is_left_to_do() -> None:
    trainer, tower = make_trainer(make_method("full"), lambda: 0)
    with pytest.raises(torch.OutOfMemoryError) as error:
        trainer.run()
    assert tower.seen == [12, 6, 6, 3, 1]
    assert str(error.value).startswith("a step does not fit the memory: set resources.micro_batch")
    assert "CUDA out of memory" in str(error.value) and "\n" not in str(error.value)


def test_a_micro_batch_that_is_given_stays() -> None:
    given = Memory("off", given=True)
    trainer, tower = make_trainer(make_method("full"), lambda: 3, given, micro_batch=4)
    with pytest.raises(torch.OutOfMemoryError, match="does not fit"):
        trainer.run()
    assert tower.seen == [4]
    rooms = iter([4, 3])  # the second of a step's micro-batches: the first one's gradient is there
    trainer, tower = make_trainer(
        make_method("full"), lambda: next(rooms), Memory(given=True), micro_batch=4
    )
    with pytest.raises(torch.OutOfMemoryError, match="does not fit"):
        trainer.run()
    assert tower.seen == [4, 4]


def order(memory: Memory, share: int, **settings: object) -> Iterator[tuple[int | None, str]]:
    while memory.less(make_method("full", **settings), share):
        yield memory.micro_batch, memory.checkpointing


def test_first_fewer_examples_are_held_then_blocks_are_checkpointed() -> None:
    assert list(order(Memory(), 64)) == [
        (32, "auto"),
        (16, "auto"),
        (FEW, "auto"),
        (FEW, "on"),
        (4, "on"),
        (2, "on"),
        (1, "on"),
    ]
    assert list(order(Memory("off"), 18)) == [(9, "off"), (3, "off"), (1, "off")]
    assert list(order(Memory(given=True), 64)) == [(None, "on")]
    assert list(order(Memory("off", given=True), 64)) == []
    # Batch norm that follows a batch must see all of it, once.
    assert list(order(Memory(), 64, batch_norm="train")) == []


def test_what_was_found_for_another_batch_size_leaves_pieces_of_one_size() -> None:
    """As in a search over batch sizes; each piece counts for the same part of the gradient."""
    method, found = make_method("full"), Memory(micro_batch=8)
    whole = make_batch()
    batch = Batch(whole.inputs[:12], whole.labels[:12])
    assert [len(piece.labels) for piece in found.pieces(batch, method)] == [6, 6]
    larger = Memory(micro_batch=64)
    assert larger.less(method, 12) and larger.micro_batch == 6
    expected, _, _ = train("full", lambda: EXAMPLES)
    trainer, tower = make_trainer(make_method("full"), memory=Memory(micro_batch=8))
    assert trainer.run().losses == pytest.approx(expected.losses, rel=1e-4)
    assert set(tower.seen) == {6}


def test_a_resumed_training_holds_as_much_as_before(tmp_path: Path) -> None:
    state = tmp_path / "state.safetensors"
    first, _ = make_trainer(make_method("full"), lambda: 5, state_file=state)
    first.run(until=2)
    again, tower = make_trainer(make_method("full"), state_file=state)
    again.run()
    assert again.memory == first.memory == Memory("on", micro_batch=3)
    assert set(tower.seen) == {3}
    given, _ = make_trainer(make_method("full"), memory=Memory("off", given=True), state_file=state)
    assert given.memory == Memory("off", given=True)


def test_the_moments_of_a_resumed_optimizer_need_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_batch()
    probe = Batch(whole.inputs[:2], whole.labels[:2])
    state = tmp_path / "state.safetensors"
    empty, held = torch.empty, []

    def noted(*size: int, **settings: object) -> Tensor:
        if settings.get("dtype") == torch.uint8:
            held.extend(size)
        return empty(*size, **settings)

    monkeypatch.setattr(torch, "empty", noted)
    trainer, _ = make_trainer(make_method("full"), state_file=state)
    trainer.find_room(probe)
    trainer.run()
    again, _ = make_trainer(make_method("full"), state_file=state)
    again.find_room(probe)
    trained = sum(p.numel() * p.element_size() for p in trainer._model.parameters())
    assert held == [2 * trained, 0]


class _AboutToTrainError(Exception):
    """The room that is left would be looked at now."""


@pytest.mark.parametrize("rank", [0, 1])
def test_the_model_that_scores_epochs_takes_its_room_first(
    tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    """Only where epochs are scored: later, workers that share a training cannot hold less."""

    def trainer(*_: object, **__: object) -> None:
        raise _AboutToTrainError

    monkeypatch.setattr("shiftbench.execution.stages.fit.Trainer", trainer)
    (tmp_path / "suite.yaml").write_text(
        "data: miniature\nbackbones: [miniature]\ntasks: [cifar10]\nshots: [1]\n"
        "methods: {full: {checkpoint: id-val, batch_size: 2}}\n"
    )
    plan = Plan.build(Suite.load(tmp_path / "suite.yaml"))
    (run,) = plan.runs.values()
    setup = Setup("s", plan.runs, tmp_path, "miniature", Resources(), Remarks())
    workspace = Workspace(setup, torch.device("cpu"))
    with pytest.raises(_AboutToTrainError):
        fit(workspace, run.id, WorkerPlace(rank, 2))
    assert len(workspace._slots._values) == (rank == 0)


def test_the_probe_finds_out_before_the_first_step() -> None:
    method = make_method("full")
    whole = make_batch()
    probe = Batch(whole.inputs[:2], whole.labels[:2])
    trainer, tower = make_trainer(method, lambda: 6)
    trainer.find_room(probe)
    assert tower.seen == [12, 6, 6]
    assert trainer.memory.micro_batch == 6
    assert all(parameter.grad is None for parameter in trainer._model.parameters())
    assert not trainer._model.training
    found = trainer.run()
    assert set(tower.seen[3:]) == {6}
    expected, _, _ = train("full", lambda: EXAMPLES)
    assert found.losses == pytest.approx(expected.losses, rel=1e-4)


def test_workers_hold_what_the_one_with_the_least_room_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_reduce(least: Tensor, operation: object) -> None:
        """As if the other one had room for three, of blocks that are checkpointed."""
        assert operation == dist.ReduceOp.MIN
        torch.minimum(least, torch.tensor([3, 0]), out=least)

    model, method = make_model(), make_method("full")
    schedule = make_schedule(EXAMPLES, method.training, 2)
    place = WorkerPlace(0, 2)
    whole = make_batch()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/r", rank=0, world_size=1)
    try:
        batches = make_batches(method, model, schedule, place)
        trainer = Trainer(model, method, schedule, batches, seed=0, place=place)
        with monkeypatch.context() as patched:
            patched.setattr(dist, "all_reduce", all_reduce)
            trainer.find_room(Batch(whole.inputs[:2], whole.labels[:2]))
    finally:
        dist.destroy_process_group()
    assert trainer.memory == Memory("on", micro_batch=3)
