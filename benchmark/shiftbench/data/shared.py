"""Decoded and augmented batches that the processes of a machine share while they search.

A trial's order and augmentation are functions of its seed and of positions in its stream, and seeds
repeat: so a batch is made once and mapped into memory by every trial that wants it. The batches
of a training set are files of one folder, uint8 (n, size, size, 3) and four bytes of checksum,
written under a temporary name. Whoever uses the folder holds a lock on it; the last one to leave
deletes it, and what killed processes left is deleted by the next one to come.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from shiftbench.core.files import written_atomically
from shiftbench.data.entries import entry_name
from shiftbench.data.loading import Piece

if TYPE_CHECKING:
    from shiftbench.data.images import ImageSet
    from shiftbench.data.loading import ImageLoader
    from shiftbench.data.preprocessing import Pixels, Preprocessing

LOCK = "in-use"
_CHECKSUM = 4  # bytes
_SPARE = 2**30  # bytes of the disk that are left to others

_log = logging.getLogger(__name__)


class SharedBatches:
    """The batches of a training set that this process and others of its machine have made.

    Args:
        root: holds a folder for each training set.
        images: the training set.
        preprocessing: of the backbone.
        limit_bytes: the most that the folder may take; the batches that do not fit are made anew
            each time. Of several processes, each may write one batch more.
    """

    def __init__(
        self, root: Path, images: ImageSet, preprocessing: Preprocessing, limit_bytes: int
    ) -> None:
        remove_unused(root)
        self._folder = root / entry_name("batches", preprocessing.key(), images)
        self._limit = limit_bytes
        self._size = preprocessing.size
        self._labels = images.labels
        self._lock = _enter(self._folder)

    def stream(
        self, loader: ImageLoader, form: str, order: Iterable[list[tuple[int, int]]], seed: int
    ) -> Iterator[tuple[Piece, ...]]:
        """What ``loader.stream`` yields; only what is not there is decoded, and then kept.

        Args:
            loader: of the training set's images.
            form: how it decodes them, as a part of a file's name.
            order: (position, index) pairs of every batch, each of consecutive positions.
            seed: of order and augmentation.
        """
        batches = list(order)
        files = [
            self._folder / f"{form}-{seed}-{pairs[0][0]}-{len(pairs)}.bin" for pairs in batches
        ]
        absent = [not file.exists() for file in files]
        missing = (pairs for pairs, is_absent in zip(batches, absent, strict=True) if is_absent)
        decoded = loader.stream(missing, seed)
        for pairs, file, is_absent in zip(batches, files, absent, strict=True):
            if not is_absent and (pixels := self._read(file, len(pairs))) is not None:
                positions, indices = np.array(pairs, dtype=np.int64).T
                labels = torch.from_numpy(self._labels[indices])
                yield (Piece(torch.from_numpy(pixels), labels, torch.from_numpy(positions)),)
                continue
            pieces = next(decoded) if is_absent else (loader.decoded(pairs, seed),)
            self._keep(file, np.concatenate([piece.pixels.numpy() for piece in pieces]))
            yield pieces

    def close(self) -> None:
        """Leave the folder, and delete it if nobody else is in it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
            remove_unused(self._folder.parent)

    def _read(self, file: Path, n: int) -> Pixels | None:
        """The pixels in a file, mapped; ``None`` if it is gone or damaged."""
        shape = (n, self._size, self._size, 3)
        try:
            # Private pages: nobody writes to them, but PyTorch warns of what it cannot write to.
            content = np.memmap(file, np.uint8, mode="c")
        except (OSError, ValueError):
            return None
        pixels, checksum = content[:-_CHECKSUM], content[-_CHECKSUM:].tobytes()
        if len(pixels) != int(np.prod(shape)) or _checksum(pixels) != checksum:
            _log.warning("%s is damaged and made anew", file)
            return None
        return np.asarray(pixels.reshape(shape))

    def _keep(self, file: Path, pixels: Pixels) -> None:
        """Write a batch for others, if there is room."""
        if self._lock is None:
            return
        try:
            with os.scandir(self._folder) as there:
                taken = sum(entry.stat().st_size for entry in there)
            free = shutil.disk_usage(self._folder).free
            if taken + pixels.nbytes > self._limit or pixels.nbytes + _SPARE > free:
                return
            with written_atomically(file) as temporary, temporary.open("wb") as stream:
                stream.write(np.ascontiguousarray(pixels).data)
                stream.write(_checksum(pixels))
        except OSError as error:  # it is only faster with it
            _log.info("%s cannot be kept: %s", file, error.strerror)


def remove_unused(root: Path) -> None:
    """Delete the folders of batches that no process uses any more."""
    for folder in root.glob("*"):
        try:
            lock = _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # in use, or just deleted
            continue
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _enter(folder: Path) -> int | None:
    """The lock of one who uses a folder, which is made; ``None`` where files have no locks."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return _locked(folder, fcntl.LOCK_SH)
        except FileNotFoundError:  # deleted in between
            continue
        except OSError as error:
            _log.info("%s cannot be shared: %s", folder, error.strerror)
            return None


def _locked(folder: Path, kind: int) -> int:
    """The descriptor of a lock on a folder; the system releases it if this process dies.

    Raises:
        FileNotFoundError: the folder has been deleted.
        OSError: it is locked by others, or cannot be.
    """
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, kind)
        if not os.path.samestat(os.fstat(lock), (folder / LOCK).stat()):
            raise FileNotFoundError(folder)
    except OSError:
        os.close(lock)
        raise
    return lock


def _checksum(pixels: Pixels) -> bytes:
    return zlib.crc32(np.ascontiguousarray(pixels).data).to_bytes(_CHECKSUM, "little")
