"""What must hold for every method, over one table of settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from benchmark import plugins
from benchmark.data.batches import World
from benchmark.models.classifier import ImageClassifier
from benchmark.schedule import make_schedule
from benchmark.training import Trained, train
from tests.methods.settings import SETTINGS
from tests.methods.toys import EXAMPLES, make_batches, make_method, make_model

TRAINING = [name for name in SETTINGS if plugins.method(name).inputs is not None]


def fit(
    name: str,
    world: World = World(),
    state_file: Path | None = None,
    stop_after: int | None = None,
    micro_batch: int | None = None,
) -> tuple[ImageClassifier, Trained]:
    """Train the toy model with a method, in this process."""
    method, model = make_method(name), make_model()
    parents = {label: make_model(seed=5).state_dict() for label in method.parents()}
    method.prepare(model, parents)
    schedule = make_schedule(EXAMPLES, method.config, world.size, micro_batch)
    batches = make_batches(method, model, schedule, world)

    def interrupt(step: int) -> None:
        if step == stop_after:
            raise KeyboardInterrupt

    schedule = replace(schedule, save_every=2)
    trained = train(
        model, method, schedule, batches,
        seed=3, world=world, state_file=state_file, on_step=interrupt,
    )  # fmt: skip
    return model, trained


def test_the_table_has_every_built_in_method() -> None:
    builtin = {name for name, entry in plugins.methods().items() if entry.builtin}
    assert set(SETTINGS) == builtin


@pytest.mark.parametrize("name", SETTINGS)
def test_weights_of_every_variant_fit_the_model(name: str) -> None:
    method = make_method(name)
    zero_shot = make_model().state_dict()
    parents = {label: make_model(seed=5).state_dict() for label in method.parents()}
    trained = make_model(seed=6).state_dict() if method.inputs else None
    assert method.fixed_variant() in method.variants()
    assert len(set(method.variants())) == len(method.variants())
    for variant in method.variants():
        make_model().load_state_dict(method.finish(variant, zero_shot, parents, trained))


@pytest.mark.parametrize("name", TRAINING)
def test_training_lowers_the_loss(name: str) -> None:
    _, trained = fit(name)
    assert sum(trained.losses[-3:]) < 0.9 * sum(trained.losses[:3])
    assert len(trained.losses) == 10
    assert trained.images == 120


@pytest.mark.parametrize("name", TRAINING)
def test_an_interrupted_training_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    undisturbed, expected = fit(name)
    state = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(name, state_file=state, stop_after=5)
    resumed, trained = fit(name, state_file=state)
    assert trained.losses == expected.losses
    assert_equal(resumed.state_dict(), undisturbed.state_dict())


@pytest.mark.parametrize("name", TRAINING)
def test_accumulated_micro_batches_agree_with_the_whole_batch(name: str) -> None:
    whole, _ = fit(name)
    pieces, _ = fit(name, micro_batch=4)
    torch.testing.assert_close(dict(pieces.state_dict()), dict(whole.state_dict()))


def _worker(rank: int, size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=size)
    for name in TRAINING:
        model, trained = fit(name, World(rank, size))
        torch.save((model.state_dict(), trained.losses), folder / f"{name}-{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("size", [2, 3])
def test_workers_agree_with_one_worker(size: int, tmp_path: Path) -> None:
    mp.spawn(_worker, (size, tmp_path), nprocs=size)
    for name in TRAINING:
        alone, trained = fit(name)
        for rank in range(size):
            weights, losses = torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True)
            assert losses == pytest.approx(trained.losses, rel=1e-5)
            torch.testing.assert_close(weights, dict(alone.state_dict()), rtol=1e-4, atol=1e-6)


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
