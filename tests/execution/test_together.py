"""Workers that share a training, each with all of the model or with a part of it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from shiftbench.core.errors import RunFailedError
from shiftbench.data.batches import WorkerPlace
from shiftbench.execution.memory import Memory
from shiftbench.execution.schedule import make_schedule
from shiftbench.execution.training import Trainer
from shiftbench.methods.base import Batch
from shiftbench.models.checkpoints import load_state
from shiftbench.models.classifier import ImageClassifier
from shiftbench.testing.toys import (
    EXAMPLES,
    ToyAttention,
    make_batch,
    make_batches,
    make_context,
    make_model,
)
from torch import nn

from tests.methods.settings import make_method

HALF = 5


def make_trainer(
    name: str,
    place: WorkerPlace,
    state_file: Path | None = None,
    micro_batch: int | None = None,
    *,
    frozen: bool = False,
) -> tuple[Trainer, ImageClassifier]:
    """What trains a toy whose tower repeats a block, and whose text tower has SigLIP's bias."""
    method = make_method(name)
    model = make_model(architecture=method.architecture())
    torch.manual_seed(4)
    model.visual.block = nn.Sequential(ToyAttention(16), ToyAttention(16))
    model.visual.conv1.requires_grad_(not frozen)
    if model.text is not None:  # which CLIP's contrastive loss does not use
        model.text_tower.logit_bias = nn.Parameter(torch.tensor(-10.0))
    memory = Memory("on", given=micro_batch is not None)
    if method.whole_batch:
        model.chunk = micro_batch
    method.prepare(model, make_context(method, model, place))
    schedule = make_schedule(
        EXAMPLES, method.config, place.size, micro_batch, whole_batch=method.whole_batch
    )
    whole = make_batch()
    captions = whole.captions[:2] if method.captions and whole.captions is not None else None
    trainer = Trainer(
        model,
        method,
        replace(schedule, save_every=HALF),
        make_batches(method, model, schedule, place),
        seed=0,
        place=place,
        state_file=state_file,
        probe=Batch(whole.inputs[:2], whole.labels[:2], captions),
        memory=memory,
        sharding="ddp" if state_file is None else "fsdp2",
    )
    return trainer, model


def in_two(rank: int, folder: Path) -> None:
    """One worker of two, which leaves what came out."""
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
    place = WorkerPlace(rank, 2)
    trainer, model = make_trainer("flyp", place)
    trainer.run()
    left: dict[str, Any] = {"unused": trainer.unused, "ddp": dict(model.state_dict())}
    for name in ("full", "flyp"):
        state = folder / f"{name}-state"
        trainer, model = make_trainer(name, place, state, micro_batch=3, frozen=True)
        if rank == 0:
            left[f"{name}-held"] = sum(p.to_local().numel() for p in sharded(model))
        trainer.run(until=HALF)
        if rank == 0:
            shutil.copy(state, folder / f"{name}-half")
        left[name] = (trainer.run().losses, dict(trainer.weights()))
        begun, _ = make_trainer(name, place, folder / f"{name}-begun", frozen=True)
        left[f"{name}-on"] = (begun.run().losses, dict(begun.weights()))
    torch.save(left, folder / f"{rank}.pt")
    dist.destroy_process_group()


def sharded(model: ImageClassifier) -> list[Any]:
    return [p for p in model.parameters() if hasattr(p, "to_local")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two workers left: they have also gone on with trainings that one had begun."""
    folder = tmp_path_factory.mktemp("together")
    for name in ("full", "flyp"):
        trainer, _ = make_trainer(name, WorkerPlace(), folder / f"{name}-begun", frozen=True)
        trainer.run(until=HALF)
        shutil.copy(folder / f"{name}-begun", folder / f"{name}-one")
    mp.spawn(in_two, (folder,), nprocs=2)
    return folder


def test_a_parameter_outside_of_the_loss_is_frozen_and_breaks_no_group(folder: Path) -> None:
    trainer, model = make_trainer("flyp", WorkerPlace())
    assert trainer.unused == ("text.logit_bias",)
    assert not model.text_tower.logit_bias.requires_grad
    trainer.run()
    assert float(model.text_tower.logit_bias) == -10.0
    for rank in range(2):
        left = torch.load(folder / f"{rank}.pt")
        assert left["unused"] == trainer.unused
        torch.testing.assert_close(left["ddp"], dict(model.state_dict()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["full", "flyp"])
def test_parts_of_a_model_are_trained_as_the_whole_is(name: str, folder: Path) -> None:
    """In micro-batches, with frozen weights, activations computed again, and gathered features."""
    trainer, model = make_trainer(name, WorkerPlace(), frozen=True)
    expected = trainer.run()
    left = torch.load(folder / "0.pt")
    parameters = sum(p.numel() for p in model.parameters())
    assert left[f"{name}-held"] == pytest.approx(parameters / 2, rel=0.05)
    for run in (name, f"{name}-on"):  # from the start, or from one worker's state
        losses, weights = left[run]
        assert losses == pytest.approx(expected.losses, rel=1e-5)
        torch.testing.assert_close(weights, dict(model.state_dict()), rtol=1e-4, atol=1e-5)
    assert torch.load(folder / "1.pt")[name][1] == {}


@pytest.mark.parametrize("name", ["full", "flyp"])
def test_what_is_saved_of_parts_is_whole(name: str, folder: Path) -> None:
    whole = load_state(folder / f"{name}-one")
    state = load_state(folder / f"{name}-half")
    for part in ("model", "optimizer"):
        torch.testing.assert_close(state[part], whole[part], rtol=1e-4, atol=1e-5)
    trainer, model = make_trainer(name, WorkerPlace(), folder / f"{name}-half", frozen=True)
    assert len(trainer.done.losses) == HALF
    trainer.run()
    other, expected = make_trainer(name, WorkerPlace(), frozen=True)
    other.run()
    found = dict(model.state_dict())
    torch.testing.assert_close(found, dict(expected.state_dict()), rtol=1e-4, atol=1e-5)


def test_a_method_that_looks_at_whole_weights_is_refused() -> None:
    method, model = make_method("ema"), make_model()
    schedule = make_schedule(EXAMPLES, method.config, 2)
    place = WorkerPlace(0, 2)
    with pytest.raises(RunFailedError, match=r"fsdp2 leaves .* and ema looks at whole ones"):
        Trainer(
            model,
            method,
            schedule,
            make_batches(method, model, schedule, place),
            seed=0,
            place=place,
            sharding="fsdp2",
        )
