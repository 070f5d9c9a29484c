"""What must hold for every method, over one table of settings: the checks that plugins pass too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from shiftbench.methods import registry
from shiftbench.methods.base import TrainedMethod
from shiftbench.testing import methods, workers
from shiftbench.testing.checks import NotCheckedError
from shiftbench.testing.methods import Subject, checks_of
from shiftbench.testing.toys import make_model

from tests.methods.settings import SETTINGS, make_any, make_method

NAMES = sorted(SETTINGS)
METHODS = {name: make_any(name) for name in NAMES}
SUBJECTS = {name: Subject(type(method), method.config) for name, method in METHODS.items()}
TRAINING = [
    name
    for name, method in METHODS.items()
    if isinstance(method, TrainedMethod) and method.search() is None
]
WITHOUT_HEAD = [
    *("linear-probe", "flyp", "saft", "carot", "tracer", "static-sd", "r-adapter", "clip-lora"),
    *("clap", "lp-plus-plus", "coop", "prompt-src"),
]
"""Methods that train nothing but a head, or have none: the text tower makes it."""
CASES = [(name, check) for name in NAMES for check in checks_of(SUBJECTS[name])]


def test_the_table_has_every_built_in_method() -> None:
    builtin = {name for name, entry in registry.METHODS.entries().items() if entry.builtin}
    assert {*SETTINGS, "from-checkpoint"} == builtin  # which needs a file, and has its own tests


def test_one_method_is_the_reference() -> None:
    assert [name for name in NAMES if METHODS[name].reference] == ["zero-shot"]


@pytest.mark.parametrize(("name", "check"), CASES)
def test_every_method_keeps_its_contract(name: str, check: str) -> None:
    subject = SUBJECTS[name]
    try:
        checks_of(subject)[check](subject)
    except NotCheckedError:  # of the one whose candidates are checked instead
        assert name == "tuned"


@pytest.mark.parametrize("name", TRAINING)
def test_no_loss_draws_at_random(name: str) -> None:
    assert not methods.draws_at_random(SUBJECTS[name])


@pytest.mark.parametrize("name", TRAINING)
def test_a_training_has_the_steps_that_were_asked_for(name: str) -> None:
    _, trained, _ = methods.fit(SUBJECTS[name])
    assert len(trained.losses) == 10
    assert trained.images == 120


@pytest.mark.parametrize("name", [name for name in TRAINING if name not in WITHOUT_HEAD])
def test_a_head_that_is_not_to_train_stays_what_it_was(name: str) -> None:
    changed = make_any(name, train_head=False)
    model, _, method = methods.fit(Subject(type(changed), changed.config))
    begun = make_model(5 if method.parents() else 0, method.architecture()).state_dict()
    found = methods.final(model, method)
    assert torch.equal(found["head.weight"], begun["head.weight"])
    assert torch.equal(found["head.bias"], begun["head.bias"])
    assert any(not torch.equal(tensor, begun[key]) for key, tensor in found.items())


@pytest.mark.parametrize("name", WITHOUT_HEAD)
def test_train_head_is_refused_where_it_says_nothing(name: str) -> None:
    with pytest.raises(ValidationError, match=r"train_head\b.*\n?.*[Tt]rue"):
        make_method(name, train_head=False)


@pytest.mark.parametrize("size", [2, 3])
def test_workers_agree_with_one_worker(size: int, tmp_path: Path) -> None:
    trained = {name: SUBJECTS[name] for name in TRAINING}
    workers.train_together(trained, size, tmp_path)
    for name, subject in trained.items():
        workers.compare(name, subject, size, tmp_path)
