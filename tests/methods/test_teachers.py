"""A teacher is what the model was, and moves as it is told."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from shiftbench.methods.base import Architecture
from shiftbench.methods.teachers import Teacher
from shiftbench.models.checkpoints import load_state, save_state
from shiftbench.testing.toys import make_examples, make_model, make_prompts
from torch import nn

BOTH = Architecture(text=True)


def test_it_computes_what_the_model_did_and_without_gradients() -> None:
    model = make_model(architecture=BOTH).train()
    images, tokens = make_examples()[0], make_prompts()[0]
    before = model.features(images), model.encode_text(tokens), model.temperature
    teacher = Teacher(model, text=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    after = teacher.features(images), teacher.encode_text(tokens), teacher.temperature
    for expected, found in zip(before, after, strict=True):
        # Attention has another code path without gradients, of other rounding.
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        assert not found.requires_grad
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert all(parameter.requires_grad for parameter in model.visual.parameters())


def test_a_text_tower_is_copied_only_where_asked_for() -> None:
    teacher = Teacher(make_model(architecture=BOTH))
    assert not [name for name in teacher.state() if name.startswith("text.")]
    with pytest.raises(TypeError, match="no text tower"):
        teacher.encode_text(make_prompts()[0])


def test_it_follows_a_student_by_shares() -> None:
    model = make_model(architecture=BOTH)
    model.visual.bn = nn.BatchNorm1d(2)  # type: ignore[assignment]  # with floats and an integer
    teacher = Teacher(model, text=True)
    weights = {name: tensor.double().numpy().copy() for name, tensor in model.state_dict().items()}
    for i, share in enumerate((0.95, 0.1, 0.25), 1):
        with torch.no_grad():
            for tensor in model.state_dict().values():
                tensor.add_(i)
        teacher.move(model, share)
        for name, tensor in model.state_dict().items():
            part = share if tensor.is_floating_point() else 1
            weights[name] += part * (tensor.double().numpy() - weights[name])
    for name, tensor in teacher.state().items():
        np.testing.assert_allclose(tensor, weights[name], rtol=1e-5, atol=1e-6)


def test_its_state_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    model, other = make_model(architecture=BOTH), make_model(7, BOTH)
    teacher, again = Teacher(model, text=True), Teacher(model, text=True)
    teacher.move(other, 0.3)
    expected = copy.deepcopy(teacher.state())
    save_state(tmp_path / "state", {"method": {"teacher": teacher.state()}})
    again.restore(load_state(tmp_path / "state")["method"]["teacher"])
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.state().items())
    assert not any(parameter.requires_grad for parameter in again.model.parameters())
