"""Weights that others have written: safetensors, and PyTorch's own format without its pickled code.

A ``.pt`` file is a pickle, which can run any code when it is read. It is read with
``weights_only=True``, which accepts tensors and plain values and refuses everything else.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from shiftbench.core.errors import InputError, first_line
from shiftbench.models.safetensors import SAFE, check_weights

HOLDERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training loops store the weights beside an optimizer's state."""

WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes of names that data parallelism and ``torch.compile`` add."""

REFUSED = (
    "holds more than tensors and plain values, and is not read: a pickle can run any code; save "
    "the state_dict() alone"
)


def read_weights(files: Iterable[Path]) -> dict[str, Tensor]:
    """The weights in some files by name, on the CPU; names are those of the plain model.

    Raises:
        InputError: a file is missing, damaged, holds anything but tensors and plain values, or no
            weights at all.
    """
    found: dict[str, Tensor] = {}
    for file in files:
        found |= _plain(_read(file), file)
    return found


def _read(file: Path) -> Mapping[str, Any]:
    check_weights(file)
    if file.suffix == SAFE:
        found: dict[str, Tensor] = load_file(file)
        return found
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(f"{file}: {REFUSED}") from error
    # A damaged archive fails wherever PyTorch first uses it.
    except Exception as error:
        raise InputError(f"{file}: cannot be read: {first_line(error)}") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{file}: holds a {type(content).__name__}, not weights by name")
    return content


def _plain(content: Mapping[str, Any], file: Path) -> dict[str, Tensor]:
    """The weights among what a checkpoint holds, without the prefixes of wrappers."""
    for key in HOLDERS:
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    weights = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not weights:
        raise InputError(f"{file}: no weights in it")
    while prefix := next((p for p in WRAPPERS if all(n.startswith(p) for n in weights)), None):
        weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return weights
