"""Weights and training states on disk: safetensors with JSON metadata, and never a pickle.

A file is written under a temporary name beside its final one and renamed, so whoever reads it finds
a whole file or none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from shiftbench.core.errors import InputError, RunFailedError
from shiftbench.core.files import written_atomically
from shiftbench.core.mirror import shown
from shiftbench.models.safetensors import opened

FORMAT = "shiftbench"
WEIGHTS_FORMAT = "weights/1"
STATE_FORMAT = "training-state/1"


def save(path: Path | str, weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write ``weights`` with their configuration, which must be JSON.

    Raises:
        RunFailedError: the file cannot be written (no space, no permission).
    """
    _write(Path(path), dict(weights), WEIGHTS_FORMAT, json.dumps(dict(config), allow_nan=False))


def load(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights (on the CPU) and the configuration that ``save`` wrote.

    Raises:
        InputError: no such file, a pickle, another format, truncated or damaged.
    """
    weights, document = _read(Path(path), WEIGHTS_FORMAT)
    return weights, document


def save_state(path: Path | str, state: Mapping[str, object]) -> None:
    """Write a training state, such that ``load_state`` gives back the same, bit for bit.

    Args:
        path: of the file to write or replace.
        state: nested dictionaries (keys strings or integers), lists and tuples of tensors, NumPy
            arrays, strings, numbers, booleans and ``None``: what ``state_dict()`` of modules,
            optimizers and schedulers and the states of random generators are made of.

    Raises:
        TypeError: something else is in it; the message says where.
        RunFailedError: the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    tree = _flatten(dict(state), tensors, "state")
    _write(Path(path), tensors, STATE_FORMAT, json.dumps(tree))


def load_state(path: Path | str) -> dict[str, Any]:
    """The training state that ``save_state`` wrote; tensors are on the CPU.

    Raises:
        InputError: no such file, a pickle, another format, truncated or damaged.
    """
    tensors, tree = _read(Path(path), STATE_FORMAT)
    state: dict[str, Any] = _unflatten(tree, tensors)
    return state


def _read(path: Path, kind: str) -> tuple[dict[str, Tensor], Any]:
    with opened(path, "pt") as file:
        metadata = file.metadata() or {}
        found = metadata.get(FORMAT)
        if found != kind:
            raise InputError(
                f"{shown(path)}: expected shiftbench {kind}, found {found or 'other data'}"
            )
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    try:
        return tensors, json.loads(metadata["document"])
    except (KeyError, ValueError) as error:
        raise InputError(f"{shown(path)}: its metadata is damaged ({error})") from error


def _write(path: Path, tensors: dict[str, Tensor], kind: str, document: str) -> None:
    """Write a safetensors file; names that share memory get a copy each."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    seen: set[int] = set()
    for name, tensor in plain.items():
        memory = tensor.untyped_storage().data_ptr()
        if memory in seen:
            plain[name] = tensor.clone()
        seen.add(memory)
    metadata = {FORMAT: kind, "format": "pt", "document": document}
    try:
        with written_atomically(path) as temporary:
            save_file(plain, temporary, metadata)
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
    except (OSError, SafetensorError) as error:
        raise RunFailedError(f"{path}: cannot be written: {error}") from error


def _flatten(value: object, tensors: dict[str, Tensor], where: str) -> Any:
    """``value`` as JSON, its tensors and arrays moved to ``tensors`` and replaced by their names.

    Containers and tensors become lists that start with their kind; what stays is a JSON scalar.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value
        return ["tensor", name]
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        name = str(len(tensors))
        data = np.frombuffer(value.tobytes(), dtype=np.uint8).copy()
        tensors[name] = torch.from_numpy(data)
        return ["array", name, value.dtype.str, list(value.shape)]
    if isinstance(value, dict) and all(type(key) in (str, int) for key in value):
        items = ([k, _flatten(v, tensors, f"{where}[{k!r}]")] for k, v in value.items())
        return ["dict", *items]
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        items = (_flatten(v, tensors, f"{where}[{i}]") for i, v in enumerate(value))
        return [type(value).__name__, *items]
    raise TypeError(f"{where} is a {type(value).__name__}, which a training state cannot hold")


def _unflatten(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of ``_flatten``."""
    if not isinstance(tree, list):
        return tree
    kind, *rest = tree
    if kind == "tensor":
        return tensors[rest[0]]
    if kind == "array":
        name, dtype, shape = rest
        return np.frombuffer(tensors[name].numpy().tobytes(), np.dtype(dtype)).reshape(shape).copy()
    if kind == "dict":
        return {key: _unflatten(value, tensors) for key, value in rest}
    items = [_unflatten(value, tensors) for value in rest]
    return tuple(items) if kind == "tuple" else items
