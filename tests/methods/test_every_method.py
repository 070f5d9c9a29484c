"""What must hold for every method, over one table of settings."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from pydantic import ValidationError
from shiftbench.data.batches import WorkerPlace
from shiftbench.execution.schedule import make_schedule
from shiftbench.execution.training import Trained, Trainer
from shiftbench.methods import registry
from shiftbench.methods.base import DerivedMethod, EnsembleMethod, Labelled, TrainedMethod
from shiftbench.methods.config import TrainingConfig
from shiftbench.models.classifier import ImageClassifier
from shiftbench.models.weights import apply_sparse_delta, sparse_delta
from torch import Tensor

from tests.methods.settings import SETTINGS
from tests.methods.toys import (
    EXAMPLES,
    make_any,
    make_batches,
    make_context,
    make_derivation,
    make_examples,
    make_members,
    make_method,
    make_model,
)

NAMES = sorted(SETTINGS)
METHODS = {name: make_any(name) for name in NAMES}
TRAINING = [
    name
    for name, method in METHODS.items()
    if isinstance(method, TrainedMethod) and method.search() is None
]
WITHOUT_HEAD = ["linear-probe", "flyp", "saft"]
"""Methods that train nothing but a head, or have none: the text tower makes it."""


def fit(
    name: str,
    place: WorkerPlace = WorkerPlace(),
    state_file: Path | None = None,
    stop_after: int | None = None,
    micro_batch: int | None = None,
    **changes: object,
) -> tuple[ImageClassifier, Trained, TrainedMethod[TrainingConfig]]:
    """Train the toy model with a method, in this process."""
    method = make_method(name, **changes)
    model = make_model(architecture=method.architecture())
    start = copy.deepcopy(model)
    method.ready(model, make_context(method, model, place))
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


def final(model: ImageClassifier, method: TrainedMethod[TrainingConfig]) -> dict[str, Tensor]:
    """The weights that a training ended with."""
    return {name: tensor.detach() for name, tensor in method.weights(model).items()}


def test_the_table_has_every_built_in_method() -> None:
    builtin = {name for name, entry in registry.METHODS.entries().items() if entry.builtin}
    assert {*SETTINGS, "from-checkpoint"} == builtin  # which needs a file, and has its own tests


@pytest.mark.parametrize("name", NAMES)
def test_every_method_is_of_one_kind_and_says_what_it_yields(name: str) -> None:
    method = METHODS[name]
    kinds = (TrainedMethod, DerivedMethod, EnsembleMethod)
    assert sum(isinstance(method, kind) for kind in kinds) == 1
    assert method.fixed_variant() in method.variants()
    assert len(set(method.variants())) == len(method.variants())
    assert len(set(method.parents())) == len(method.parents())
    if isinstance(method, TrainedMethod) or (isinstance(method, DerivedMethod) and method.kept):
        assert method.kept
        assert len(method.variants()) == 1


def test_one_method_is_the_reference() -> None:
    assert [name for name in NAMES if METHODS[name].reference] == ["zero-shot"]


@pytest.mark.parametrize("name", NAMES)
def test_derived_weights_fit_the_model(name: str) -> None:
    method = METHODS[name]
    if not isinstance(method, DerivedMethod):
        return
    weights = make_model().state_dict()
    parents = {p: make_model(5 + i).state_dict() for i, p in enumerate(method.parents())}
    for variant in method.variants():
        derived = method.derive(variant, make_derivation(weights, parents))
        assert derived.keys() == weights.keys()
        assert all(derived[key].dtype == tensor.dtype for key, tensor in weights.items())


@pytest.mark.parametrize("name", NAMES)
def test_ensembles_give_logits_of_every_example(name: str) -> None:
    method = METHODS[name]
    if not isinstance(method, EnsembleMethod):
        return
    parents = {parent: make_model(5 + i) for i, parent in enumerate(method.parents())}
    members = make_members(make_model(), parents)
    fitted = method.fit(*[lambda: Labelled(members, make_examples()[1].numpy())] * 2)
    assert bool(fitted) == method.kept
    for variant in method.variants():
        logits = method.combine(variant, members, fitted)
        assert logits.shape == members.zero_shot.logits.shape
        assert logits.dtype == np.float32
        assert np.isfinite(logits).all()


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
    assert trained.terms == expected.terms
    assert_equal(final(resumed, again), final(undisturbed, method))


@pytest.mark.parametrize("name", TRAINING)
def test_accumulated_micro_batches_agree_with_the_whole_batch(name: str) -> None:
    whole, _, method = fit(name)
    pieces, _, other = fit(name, micro_batch=4)
    torch.testing.assert_close(final(pieces, other), final(whole, method), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in TRAINING if name not in WITHOUT_HEAD])
def test_a_head_that_is_not_to_train_stays_what_it_was(name: str) -> None:
    model, _, method = fit(name, train_head=False)
    begun = make_model(5 if method.parents() else 0, method.architecture()).state_dict()
    found = final(model, method)
    assert torch.equal(found["head.weight"], begun["head.weight"])
    assert torch.equal(found["head.bias"], begun["head.bias"])
    assert any(not torch.equal(tensor, begun[key]) for key, tensor in found.items())


@pytest.mark.parametrize("name", WITHOUT_HEAD)
def test_train_head_is_refused_where_it_says_nothing(name: str) -> None:
    with pytest.raises(ValidationError, match=r"train_head\b.*\n?.*[Tt]rue"):
        make_method(name, train_head=False)


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
        torch.save(
            (final(model, method), trained.losses, trained.terms), folder / f"{name}-{rank}.pt"
        )
    dist.destroy_process_group()


@pytest.mark.parametrize("size", [2, 3])
def test_workers_agree_with_one_worker(size: int, tmp_path: Path) -> None:
    mp.spawn(_worker, (size, tmp_path), nprocs=size)
    for name in TRAINING:
        model, trained, method = fit(name)
        for rank in range(size):
            weights, losses, terms = torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True)
            assert losses == pytest.approx(trained.losses, rel=1e-5), name
            assert terms.keys() == trained.terms.keys()
            for key, values in trained.terms.items():
                assert terms[key] == pytest.approx(values, rel=1e-4, abs=1e-6), (name, key)
            torch.testing.assert_close(weights, final(model, method), rtol=1e-4, atol=1e-5)


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
