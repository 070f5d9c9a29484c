"""Features of images and classes, kept on disk under a digest of all that they are made of.

Whatever has an equal image tower shares one pass over an evaluation set: the ends of an
interpolation with its parents, every method that trains a head alone with the pretrained model, a
soup of one, the same run in another suite; in other processes, too. The heads that the text tower
makes of a task's prompts are kept likewise. A file holds one array
(``.npy``) and behind it the SHA-256 of what comes before, so that a damaged one is seen and made
again. It appears by a rename; of several processes that want the same one, one computes it and the
others wait. Those used least recently go when all together exceed a limit. The whole directory may
be deleted whenever nothing runs.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from shiftbench.core.files import sweep_temporaries, written_atomically
from shiftbench.core.locks import locked
from shiftbench.evaluation.inference import Array

VERSION = 1
"""Changes whenever the same pixels and weights may give other features than before."""

_DIGEST = hashlib.sha256().digest_size
_LOCKS = 256  # files; two arrays that share one only wait for each other needlessly
_LOOKS = 64  # how often, while the limit is written once, a process looks at the size of all

_log = logging.getLogger(__name__)


class FeatureStore:
    """A directory of features.

    Args:
        root: the directory; made when something is first stored.
        limit_bytes: of all files together, which a process may exceed by a part of 64; 0 stores
            nothing.
    """

    def __init__(self, root: Path, limit_bytes: int) -> None:
        self.root = Path(root)
        self.limit_bytes = limit_bytes
        self._unseen = limit_bytes  # bytes written since the size of all was looked at

    def get(self, key: str, compute: Callable[[], Array]) -> Array:
        """Features (n, width) fp32 of a key, computed if they are not there; not to be changed.

        Where they cannot be read or kept, as in another user's directory, they are computed.

        Args:
            key: of ``key_of``. While those of one kind are computed, others of that kind must not
                be asked for: both may share a lock.
            compute: gives them.
        """
        if not self.limit_bytes:
            return compute()
        file = self.root / f"{key}.npy"
        if (known := _read(file)) is not None:
            return known
        with suppress(OSError):  # said when they are written
            self.root.mkdir(parents=True, exist_ok=True)
        kind, _, digest = key.rpartition("-")
        with locked(self.root / f"{kind}{int(digest[:8], 16) % _LOCKS:02x}.lock"):
            if (known := _read(file)) is not None:  # another process was at it
                return known
            features = compute()
            self._write(file, features)
        return features

    def _write(self, file: Path, features: Array) -> None:
        """Store features; where that is not possible, they will have to be computed again."""
        try:
            with written_atomically(file) as temporary:
                _save(temporary, features)
            self._unseen += features.nbytes
            if self._unseen * _LOOKS >= self.limit_bytes:
                self._unseen = 0
                self._make_room(keep=file)
        except OSError as error:
            _log.warning(
                "%s: features are not kept: %s; SHIFTBENCH_CACHE names another place",
                *(file, error.strerror or error),
            )

    def _make_room(self, keep: Path) -> None:
        """Delete those used least recently until all others fit, whatever ``keep`` takes."""
        sweep_temporaries(self.root)
        found = []
        for entry in os.scandir(self.root):
            if entry.name.endswith(".npy"):
                try:
                    status = entry.stat()
                except FileNotFoundError:  # another process makes room, too
                    continue
                found.append((status.st_mtime_ns, status.st_size, Path(entry.path)))
        total = sum(size for _, size, _ in found)
        for _, size, file in sorted(found):
            if total <= self.limit_bytes:
                break
            if file != keep:
                file.unlink(missing_ok=True)
                total -= size


def key_of(kind: str, *parts: str) -> str:
    """A kind of arrays, and a hex digest of all that one of them depends on.

    Kinds have locks of their own: to compute features of images may need a head.
    """
    return f"{kind}-{hashlib.sha256(json.dumps([VERSION, *parts]).encode()).hexdigest()}"


@functools.cache
def versions(*packages: str) -> str:
    """The installed versions of packages; "" for those that are not there."""
    found = []
    for name in packages:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append("")
    return ", ".join(found)


def arithmetic(device: torch.device) -> str:
    """What the last bits of a model's result depend on besides its weights and inputs."""
    version = f"{torch.__version__} {versions('open_clip_torch', 'timm')}"
    if device.type == "cuda":
        return f"{version} {torch.cuda.get_device_name(device)}"
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{version} {capability} {torch.get_num_threads()} threads"


def _save(file: Path, features: Array) -> None:
    with file.open("wb") as stream:
        np.save(stream, features)
    digest = hashlib.sha256(np.memmap(file, np.uint8, "r").data).digest()
    with file.open("ab") as stream:
        stream.write(digest)


def _read(file: Path) -> Array | None:
    """The features in a file, mapped into memory; ``None`` if not there, readable and sound."""
    try:
        content = np.memmap(file, np.uint8, "r")
        sound = hashlib.sha256(content[:-_DIGEST].data).digest() == content[-_DIGEST:].tobytes()
        if sound:
            with suppress(OSError):  # it is another user's
                os.utime(file)  # it was used
            features: Array = np.load(file, mmap_mode="r")
            return features
    except OSError:  # not there, or not for this user
        return None
    except ValueError:  # an empty file cannot be mapped
        pass
    _log.warning("%s is damaged: its features are computed again", file)
    return None
