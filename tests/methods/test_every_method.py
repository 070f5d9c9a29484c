"""What must hold for every method, over one table of settings."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from shiftbench.data.batches import WorkerPlace
from shiftbench.execution.schedule import make_schedule
from shiftbench.execution.training import Trained, Trainer
from shiftbench.methods import registry
from shiftbench.methods.base import Method, TrainingConfig
from shiftbench.models.classifier import ImageClassifier
from shiftbench.models.weights import apply_sparse_delta, sparse_delta
from torch import Tensor

from tests.methods.settings import SETTINGS
from tests.methods.toys import (
    EXAMPLES,
    make_batches,
    make_context,
    make_method,
    make_model,
    model_weights,
)

NAMES = sorted(SETTINGS)
METHODS = {name: make_method(name) for name in NAMES}
TRAINING = [
    name
    for name, method in METHODS.items()
    if method.inputs in ("images", "features") and method.search() is None
]


def fit(
    name: str,
    place: WorkerPlace = WorkerPlace(),
    state_file: Path | None = None,
    stop_after: int | None = None,
    micro_batch: int | None = None,
) -> tuple[ImageClassifier, Trained, Method[TrainingConfig]]:
    """Train the toy model with a method, in this process."""
    method = make_method(name)
    model = make_model(architecture=method.architecture())
    start = copy.deepcopy(model)
    method.prepare(model, make_context(method, model, place))
    if method.whole_batch:
        model.chunk, micro_batch = micro_batch, None
    schedule = make_schedule(EXAMPLES, method.config, place.size, micro_batch)
    batches = make_batches(method, start, schedule, place)

    def interrupt(step: int) -> None:
        if step == stop_after:
            raise KeyboardInterrupt

    schedule = replace(schedule, save_every=2)
    trainer = Trainer(
        model, method, schedule, batches,
        seed=3, place=place, state_file=state_file, on_step=interrupt,
    )  # fmt: skip
    return model, trainer.run(), method


def final(model: ImageClassifier, method: Method[TrainingConfig]) -> dict[str, Tensor]:
    """The weights that a training ended with."""
    return {name: tensor.detach() for name, tensor in method.weights(model).items()}


def test_the_table_has_every_built_in_method() -> None:
    builtin = {name for name, entry in registry.METHODS.entries().items() if entry.builtin}
    assert set(SETTINGS) == builtin


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_every_variant_fit_the_model(name: str) -> None:
    method = make_method(name)
    architecture = method.architecture()

    def weights(seed: int) -> Mapping[str, Tensor]:
        return model_weights(make_model(seed, architecture), architecture)

    parents = {label: weights(5 + i) for i, label in enumerate(method.parents())}
    trained = weights(4) if method.inputs else None
    assert method.fixed_variant() in method.variants()
    assert len(set(method.variants())) == len(method.variants())
    for variant in method.variants():
        mixture = method.mixture(variant)
        if mixture is None:
            assert method.finish(variant, weights(0), parents, trained).keys() == weights(0).keys()
        else:
            assert sum(mixture.values()) == pytest.approx(1)
            assert mixture.keys() <= {"zero-shot", *parents}


@pytest.mark.parametrize("name", TRAINING)
def test_training_lowers_the_loss(name: str) -> None:
    _, trained, _ = fit(name)
    assert sum(trained.losses[-3:]) < 0.95 * sum(trained.losses[:3])
    assert len(trained.losses) == 10
    assert trained.images == 120


@pytest.mark.parametrize("name", TRAINING)
def test_the_weights_it_ends_with_are_those_of_a_plain_model(name: str) -> None:
    model, _, method = fit(name)
    architecture = method.architecture()
    plain = make_model(architecture=architecture)
    before = {key: tensor.clone() for key, tensor in plain.state_dict().items()}
    plain.load_state_dict(dict(method.weights(model)))
    assert any(not torch.equal(before[key], value) for key, value in plain.state_dict().items())


@pytest.mark.parametrize("name", TRAINING)
def test_an_interrupted_training_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    undisturbed, expected, method = fit(name)
    state = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(name, state_file=state, stop_after=5)
    resumed, trained, again = fit(name, state_file=state)
    assert trained.losses == expected.losses
    assert_equal(final(resumed, again), final(undisturbed, method))


@pytest.mark.parametrize("name", TRAINING)
def test_accumulated_micro_batches_agree_with_the_whole_batch(name: str) -> None:
    whole, _, method = fit(name)
    pieces, _, other = fit(name, micro_batch=4)
    torch.testing.assert_close(final(pieces, other), final(whole, method), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", TRAINING)
def test_weights_reload_exactly_from_the_smaller_of_two_forms(name: str) -> None:
    model, _, method = fit(name)
    start = make_model(architecture=method.architecture()).state_dict()
    changes = sparse_delta(start, final(model, method))
    assert_equal(apply_sparse_delta(start, changes), final(model, method))


def _worker(rank: int, size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=size)
    for name in TRAINING:
        model, trained, method = fit(name, WorkerPlace(rank, size))
        torch.save((final(model, method), trained.losses), folder / f"{name}-{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("size", [2, 3])
def test_workers_agree_with_one_worker(size: int, tmp_path: Path) -> None:
    mp.spawn(_worker, (size, tmp_path), nprocs=size)
    for name in TRAINING:
        model, trained, method = fit(name)
        for rank in range(size):
            weights, losses = torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True)
            assert losses == pytest.approx(trained.losses, rel=1e-5), name
            torch.testing.assert_close(weights, final(model, method), rtol=1e-4, atol=1e-5)


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
