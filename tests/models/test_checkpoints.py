from __future__ import annotations

import copy
import os
import pickle
import random

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from shiftbench.core.errors import InputError, RunFailedError
from shiftbench.models import checkpoints
from shiftbench.models.checkpoints import load, load_state, save, save_state
from torch import nn

WEIGHTS = {
    "visual.w": torch.randn(5, 3, generator=torch.Generator().manual_seed(0)),
    "visual.count": torch.tensor(7),
    "visual.empty": torch.zeros(0, 2),
    "head.weight": torch.arange(6.0).reshape(2, 3).T,
    "head.bias": torch.tensor([float("nan"), -0.0, 1e-45], dtype=torch.float32),
    "half": torch.ones(3, dtype=torch.bfloat16),
}
CONFIG = {"backbone": "miniature", "classes": ["a", "b"], "nested": {"alpha": 0.1, "none": None}}


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    a, b = a.contiguous(), b.contiguous()
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and bytes(a.flatten().view(torch.uint8).numpy()) == bytes(b.flatten().view(torch.uint8))
    )


def test_weights_and_config_come_back_bit_for_bit(tmp_path):
    path = tmp_path / "new" / "weights.safetensors"
    save(path, WEIGHTS, CONFIG)
    weights, config = load(path)
    assert config == CONFIG
    assert weights.keys() == WEIGHTS.keys()
    assert all(same_bits(weights[name], WEIGHTS[name]) for name in WEIGHTS)
    assert [file.name for file in path.parent.iterdir()] == ["weights.safetensors"]


def test_names_that_share_memory_are_each_saved(tmp_path):
    whole = torch.arange(12.0)
    layer = nn.Linear(3, 3)
    tied = {"a": layer.weight, "b": layer.weight, "first": whole[:6], "second": whole[6:]}
    save(tmp_path / "w", tied, {})
    weights, _ = load(tmp_path / "w")
    assert all(torch.equal(weights[name], tied[name]) for name in tied)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "weights"
    save(path, WEIGHTS, CONFIG)

    def fails(tensors, file, metadata):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", fails)
    with pytest.raises(RunFailedError, match=r"weights: cannot be written: .*No space left"):
        save(path, {"w": torch.ones(1)}, {})
    assert load(path)[1] == CONFIG
    assert os.listdir(tmp_path) == ["weights"]  # noqa: PTH208


def test_a_place_that_is_no_directory_is_a_failed_run(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFailedError, match="cannot be written"):
        save(tmp_path / "file" / "weights", WEIGHTS, {})


def test_configuration_must_be_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        save(tmp_path / "w", WEIGHTS, {"alpha": float("nan")})


class Exploit:
    def __reduce__(self):
        return (os._exit, (1,))


def write_torch(path):
    torch.save({"w": torch.ones(2)}, path)


def write_legacy_torch(path):
    torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=False)


def write_pickle(path):
    path.write_bytes(pickle.dumps(Exploit()))


@pytest.mark.parametrize("write", [write_torch, write_legacy_torch, write_pickle])
@pytest.mark.parametrize("read", [load, load_state])
def test_pickles_are_refused_unread(tmp_path, write, read):
    path = tmp_path / "weights.safetensors"
    write(path)
    with pytest.raises(InputError, match=r"weights\.safetensors: a pickle"):
        read(path)


@pytest.mark.parametrize("read", [load, load_state])
def test_other_bad_files_are_named_in_one_line(tmp_path, read):
    path = tmp_path / "weights"
    with pytest.raises(InputError, match="weights: cannot be read: No such file"):
        read(path)
    with pytest.raises(InputError, match="directory"):
        read(tmp_path)
    for content in (b"", b"not a checkpoint at all", b"\x10\0\0\0\0\0\0\0{" + b"x" * 40):
        path.write_bytes(content)
        with pytest.raises(InputError, match="weights: truncated, damaged") as raised:
            read(path)
        assert "\n" not in str(raised.value)
    save_file({"w": torch.ones(2)}, path)
    with pytest.raises(InputError, match=r"expected shiftbench .* found other data"):
        read(path)


def test_one_kind_is_not_taken_for_the_other(tmp_path):
    save(tmp_path / "weights", WEIGHTS, CONFIG)
    save_state(tmp_path / "state", {"step": 1})
    with pytest.raises(InputError, match="found weights/1"):
        load_state(tmp_path / "weights")
    with pytest.raises(InputError, match="found training-state/1"):
        load(tmp_path / "state")


def test_every_truncation_is_detected(tmp_path):
    path = tmp_path / "weights"
    save(path, WEIGHTS, CONFIG)
    whole = path.read_bytes()
    for length in range(0, len(whole), 31):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="truncated"):
            load(path)


def test_a_header_that_looks_like_a_pickle_is_read(tmp_path):
    path, lengths = tmp_path / "w", set()
    for padding in range(420, 580, 8):
        save(path, {"w": torch.ones(1)}, {"padding": "x" * padding})
        lengths.add(path.read_bytes()[:8])
        load(path)
    assert (0x0280).to_bytes(8, "little") in lengths  # how a pickle of protocol 2 starts


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 3)).square().mean().backward()
        optimizer.step()


def test_training_resumes_exactly(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, amsgrad=True)
    trained(model, optimizer, 3)
    rng = np.random.default_rng(5)
    old = np.random.RandomState(1)
    rng.standard_normal(3)
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": 3,
        "done": {"losses": [0.1, float("inf")], "best": None, "ok": True, "name": "ü\n"},
        "rng": {
            "torch": torch.get_rng_state(),
            "numpy": rng.bit_generator.state,
            "legacy": old.get_state(),
            "python": random.getstate(),
        },
    }
    expected = copy.deepcopy(state)
    save_state(tmp_path / "state", state)
    next_draw = rng.standard_normal()
    trained(model, optimizer, 4)

    loaded = load_state(tmp_path / "state")
    assert_same(loaded, expected)
    twin = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    twin_optimizer = torch.optim.AdamW(twin.parameters(), lr=1.0, amsgrad=True)
    twin.load_state_dict(loaded["model"])
    twin_optimizer.load_state_dict(loaded["optimizer"])
    torch.set_rng_state(loaded["rng"]["torch"])
    rng.bit_generator.state = loaded["rng"]["numpy"]
    random.setstate(loaded["rng"]["python"])
    old.set_state(loaded["rng"]["legacy"])
    trained(twin, twin_optimizer, 4)
    assert_same(dict(twin.state_dict()), dict(model.state_dict()))
    assert_same(twin_optimizer.state_dict(), optimizer.state_dict())
    assert rng.standard_normal() == next_draw


def assert_same(a: object, b: object) -> None:
    if isinstance(b, torch.Tensor):
        assert same_bits(a, b)
    elif isinstance(b, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    elif isinstance(b, dict):
        assert list(a) == list(b)
        for key in b:
            assert_same(a[key], b[key])
    elif isinstance(b, (list, tuple)):
        assert type(a) is type(b) and len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert type(a) is type(b) and a == b


@pytest.mark.parametrize(
    "array", [np.array(3), np.zeros((0, 2), np.uint64), np.array([[1 + 2j]]), np.array(["é", "b"])]
)
def test_arrays_of_any_plain_dtype(tmp_path, array):
    save_state(tmp_path / "s", {"array": array})
    assert_same(load_state(tmp_path / "s")["array"], array)


@pytest.mark.parametrize(
    "value", [{1, 2}, object(), {(1, 2): 3}, np.array([object()]), np.int64(1)]
)
def test_a_state_that_cannot_be_kept_is_refused_by_place(tmp_path, value):
    with pytest.raises(TypeError, match=r"state\['a'\]\[1\] is a"):
        save_state(tmp_path / "s", {"a": [0, value]})
    assert not (tmp_path / "s").exists()
