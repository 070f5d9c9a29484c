"""Safetensors files as such: opening them, and seeing that they are whole. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from shiftbench.core.errors import InputError
from shiftbench.core.mirror import shown

SAFE = ".safetensors"
_PICKLES = b"PK\x03\x04", b"\x80"
"""How files of PyTorch begin: an archive, and a bare pickle as it wrote before."""


def check_weights(file: Path) -> None:
    """See that a file is there and, of safetensors, whole; another begins as PyTorch's files do.

    Raises:
        InputError: it is not.
    """
    if file.suffix == SAFE:
        check_file(file)
    elif not file.is_file():
        raise InputError(f"{file}: no such file")
    elif not _start(file).startswith(_PICKLES):
        raise InputError(f"{shown(file)}: holds no weights: neither {SAFE} nor a file of PyTorch")


def check_file(path: Path) -> None:
    """Raise ``InputError`` unless ``path`` is a complete safetensors file (reads its header)."""
    with opened(path, "numpy"):
        pass


@contextmanager
def opened(path: Path, framework: Literal["pt", "numpy"]) -> Iterator[Any]:
    """An open safetensors file, whose tensors are of a framework.

    Raises:
        InputError: no such file, a pickle, truncated or damaged.
    """
    start = _start(path)
    # The first eight bytes of safetensors are a length, which may look like anything.
    if start[8:9] != b"{" and start.startswith(_PICKLES):
        raise InputError(
            f"{shown(path)}: a pickle (PyTorch's own format), not safetensors; not loaded"
        )
    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except SafetensorError as error:
        raise InputError(
            f"{shown(path)}: truncated, damaged or not safetensors ({error})"
        ) from error


def _start(path: Path) -> bytes:
    """The first ten bytes of a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return stream.read(10)
    except OSError as error:
        raise InputError(f"{shown(path)}: cannot be read: {error.strerror}") from error
