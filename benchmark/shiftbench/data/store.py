"""The decode-once store: keeps decoded images on disk, so that a machine decodes each once.

An entry is a directory of flat files that every process maps into memory, so that runs, epochs and
workers share the same pages:

- an evaluation set for one preprocessing, ``pixels.npy``, uint8 (n, size, size, 3), with
  ``manifest.json``, which says how it was made and how to tell that it is whole;
- a training set, decoded at full resolution or shrunk, in shards (``shiftbench.data.shards``), each
  of which appears when it is done: an interrupted build goes on after the last of them, and of a
  damaged set only the damaged shards are made again.

The directory is named by what it holds: the examples, the fingerprint of their files and the
preprocessing. An entry that another version made, or that is damaged, is made again. Of several
processes that want the same one, one builds and the others wait; where files cannot be locked they
all build, to the same result. The whole directory may be deleted whenever nothing runs.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shiftbench.core.cpus import available_cpus
from shiftbench.core.errors import InputError
from shiftbench.core.files import sweep_temporaries
from shiftbench.core.locks import locked
from shiftbench.core.processes import forkserver
from shiftbench.core.pulse import beat
from shiftbench.data.entries import (
    check_space,
    decoded,
    decoded_ahead,
    entry_name,
    made_by,
    named_if_unwritable,
)
from shiftbench.data.mapped import PixelFile
from shiftbench.data.preprocessing import Preprocessing
from shiftbench.data.shards import SHARD, Form, ShardedImages, write_shard

if TYPE_CHECKING:
    from shiftbench.data.images import Images, ImageSet

MANIFEST, PIXELS = "manifest.json", "pixels.npy"

Progress = Callable[[int, int], None]
Build = Callable[[Path], None]

MANY = 1000  # images, for which starting processes is worth it
_PART = 64  # images decoded by a process at a time
_SAMPLE = 64  # images, or up to twice as many, decoded to estimate the size of a training set
_BLOCKS, _BLOCK = 64, 4096  # how many places, of how many bytes, a checksum looks at

_log = logging.getLogger(__name__)


class Store:
    """A directory of decoded image sets.

    Args:
        root: the directory; made when something is first stored.
        threads: that decode at once; by default the processors this process may use. Pillow
            decodes and resizes without holding the interpreter's lock.
        processes: that decode sets of many images instead; 0: threads do. A thread holds the lock
            for the rest, which is why a dozen of them are as fast as five processes.
        per_shard: images of a shard of a training set.
    """

    def __init__(
        self,
        root: Path,
        threads: int | None = None,
        processes: int = 0,
        per_shard: int = SHARD,
    ) -> None:
        self.root = Path(root)
        self.per_shard = per_shard
        self.threads = threads or available_cpus()
        self.processes = processes

    def evaluation(
        self, images: ImageSet, preprocessing: Preprocessing, progress: Progress | None = None
    ) -> PixelFile:
        """Return the evaluation inputs of ``images``, decoded now if they are not there yet.

        Args:
            images: to decode; their fingerprint and ids name the entry.
            preprocessing: gives the pixels.
            progress: called with the number of images decoded and of all.

        Raises:
            InputError: an image cannot be decoded (the message names it), the set is empty, there
                is too little space, or the directory cannot be written.
        """
        n = len(images)
        shape = (n, preprocessing.size, preprocessing.size, 3)
        key = preprocessing.key()

        def build(directory: Path) -> None:
            check_space(self.root, int(np.prod(shape)), n)
            with (directory / PIXELS).open("wb") as file:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                if self.processes and n >= MANY:
                    rows = _Rows(directory / PIXELS, file.tell(), images, preprocessing)
                    file.truncate(rows.start + int(np.prod(shape)))
                    parts = [range(start, min(start + _PART, n)) for start in range(0, n, _PART)]
                    self._by_processes(rows.write, parts, n, progress)
                else:
                    pixels = decoded_ahead(images, range(n), preprocessing.pixels, self.threads)
                    for done, image in enumerate(pixels, start=1):
                        file.write(np.ascontiguousarray(image).data)
                        if progress is not None:
                            progress(done, n)

        return PixelFile(self._entry("evaluation", key, images, (PIXELS,), build) / PIXELS)

    def decoded(
        self, images: ImageSet, limit_bytes: int, progress: Progress | None = None
    ) -> Images:
        """Return the images at full resolution, decoded once, if they fit; else ``images.images``.

        Args:
            images: a training set.
            limit_bytes: the most that the decoded pixels may take, estimated from a sample.
            progress: called with the number of images decoded and of all.

        Raises:
            InputError: as for ``evaluation``.
        """
        if self.has(images, Form()):
            return self._shards(images, Form())
        size = self.estimated_bytes(images, Form())
        return images.images if size > limit_bytes else self._build(images, Form(), size, progress)

    def shrunk(self, images: ImageSet, form: Form, progress: Progress | None = None) -> Images:
        """Return the images in another form than they have, made now if they are not there yet.

        Args:
            images: a training set.
            form: what is kept of each.
            progress: as for ``decoded``.

        Raises:
            InputError: as for ``evaluation``.
        """
        if self.has(images, form):
            return self._shards(images, form)
        return self._build(images, form, self.estimated_bytes(images, form), progress)

    def has(self, images: ImageSet, form: Form) -> bool:
        """True if a training set is there in a form, whole."""
        if not len(images):
            raise InputError("an image set without images cannot be evaluated or trained on")
        found = self._shards(images, form)
        return found.directory.exists() and not any(map(found.defect, found.shards))

    def estimated_bytes(self, images: ImageSet, form: Form) -> int:
        """Estimate what a training set takes in a form, from evenly spaced images."""
        n = len(images)
        sample = range(0, n, max(n // _SAMPLE, 1))
        sizes = [len(decoded(images, index, form.of).data) for index in sample]
        return round(float(np.mean(sizes)) * n)

    def _shards(self, images: ImageSet, form: Form) -> ShardedImages:
        """A training set in a form, whether it is there or not."""
        versions = hashlib.sha256(json.dumps(made_by()).encode()).hexdigest()[:8]
        name = f"{entry_name('training', form.key(), images)}-{versions}"
        return ShardedImages(self.root / name, len(images), self.per_shard)

    def _build(
        self, images: ImageSet, form: Form, size: int, progress: Progress | None
    ) -> ShardedImages:
        """Make the shards of a training set that are missing or damaged."""
        shards = self._shards(images, form)
        directory = shards.directory
        with named_if_unwritable(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            of_any_version = directory.name.rpartition("-")[0]
            with locked(self.root / f"{of_any_version}.lock") as alone:
                if alone:
                    self._remove_others(of_any_version, directory)
                directory.mkdir(exist_ok=True)
                sweep_temporaries(directory)
                missing = []
                for shard in shards.shards:
                    if (defect := shards.defect(shard)) is not None:
                        missing.append(shard)
                        if defect != "missing":
                            _log.warning("making %s again: %s", shards.path(shard), defect)
                check_space(self.root, size * len(missing) // len(shards.shards), len(images))
                self._write_shards(_Shards(shards, images, form, self.threads), missing, progress)
        return shards

    def _write_shards(
        self, writer: _Shards, missing: Sequence[int], progress: Progress | None
    ) -> None:
        n = len(writer.images)
        if self.processes and len(missing) > 1:
            alone = _Shards(writer.shards, writer.images, writer.form, threads=1)
            self._by_processes(alone.write, missing, n, progress)
            return
        done = n - sum(len(writer.shards.rows(shard)) for shard in missing)
        for shard in missing:
            done += writer.write(shard)
            if progress is not None:
                progress(done, n)

    def _remove_others(self, name: str, directory: Path) -> None:
        """Remove the same set as other versions have made it."""
        for other in self.root.glob(f"{name}-*"):
            if other != directory:
                _log.warning("decoding %s again: made by other versions", other)
                shutil.rmtree(other, ignore_errors=True)

    def _by_processes(
        self,
        write: Callable[[Any], int],
        parts: Sequence[Any],
        n: int,
        progress: Progress | None,
    ) -> None:
        """Have processes write parts of an entry, each where it belongs."""
        with ProcessPoolExecutor(self.processes, forkserver(), _begin, (write,)) as pool:
            done = 0
            for count in pool.map(_write, parts):
                beat()
                done += count
                if progress is not None:
                    progress(done, n)

    def _entry(
        self, kind: str, preprocessing: str, images: ImageSet, files: Sequence[str], build: Build
    ) -> Path:
        """Return the directory of an entry, which ``build`` fills if missing, stale or damaged."""
        if not len(images):
            raise InputError("an image set without images cannot be evaluated or trained on")
        directory = self.root / entry_name(kind, preprocessing, images)
        if directory.exists() and not _defect(directory, files):
            return directory
        source = {"kind": kind, "n": len(images), "fingerprint": images.fingerprint}
        with named_if_unwritable(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            with locked(self.root / f"{directory.name}.lock") as alone:
                if directory.exists():
                    defect = _defect(directory, files)
                    if defect is None:
                        return directory
                    _log.warning("decoding %s again: %s", directory, defect)
                if alone:
                    for leftover in self.root.glob(f".{directory.name}.*"):
                        shutil.rmtree(leftover, ignore_errors=True)
                with self._appearing(directory) as temporary:
                    build(temporary)
                    _write_manifest(temporary, files, source | {"preprocessing": preprocessing})
        return directory

    @contextmanager
    def _appearing(self, directory: Path) -> Iterator[Path]:
        """A temporary directory that takes an entry's place at the end."""
        temporary = self.root / f".{directory.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}"
        temporary.mkdir()
        try:
            yield temporary
            _publish(temporary, directory)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@dataclass(frozen=True)
class _Rows:
    """A file of preprocessed images: all that a process needs to fill in some of them.

    Attributes:
        path: of the file, as long as it will be.
        start: bytes before the first image.
        images: all of them.
        preprocessing: gives their pixels.
    """

    path: Path
    start: int
    images: ImageSet
    preprocessing: Preprocessing

    def write(self, part: range) -> int:
        """Decode and write some images; how many."""
        pixels = np.stack([decoded(self.images, i, self.preprocessing.pixels) for i in part])
        with self.path.open("r+b") as file:
            file.seek(self.start + part.start * pixels[0].nbytes)
            file.write(pixels.data)
        return len(part)


@dataclass(frozen=True)
class _Shards:
    """All that a process needs to write some shards of a set.

    Attributes:
        shards: where they go.
        images: all of the set's.
        form: what is kept of each.
        threads: that decode.
    """

    shards: ShardedImages
    images: ImageSet
    form: Form
    threads: int

    def write(self, shard: int) -> int:
        """Decode and write a shard; how many images it has."""
        rows = self.shards.rows(shard)
        parts = decoded_ahead(self.images, rows, self.form.of, self.threads)
        write_shard(self.shards.path(shard), parts, len(rows))
        return len(rows)


_writers: list[Callable[[Any], int]] = []  # of the process that decodes, which is told it once


def _begin(write: Callable[[Any], int]) -> None:
    _writers[:] = [write]


def _write(part: Any) -> int:
    return _writers[0](part)


def _write_manifest(directory: Path, files: Sequence[str], source: dict[str, Any]) -> None:
    data = {name: _summary(directory / name) for name in files}
    document = {"source": source, "made_by": made_by(), "files": data}
    (directory / MANIFEST).write_text(json.dumps(document, indent=1), encoding="utf-8")


def _defect(directory: Path, files: Sequence[str]) -> str | None:
    """Return the reason to make an entry again; ``None`` when it is sound."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        versions, recorded = manifest["made_by"], manifest["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return "its manifest is missing or damaged"
    if versions != made_by():
        return f"made by {versions}, now {made_by()}"
    for name in files:
        path = directory / name
        if not path.is_file() or recorded.get(name) != _summary(path):
            return f"{name} is missing, truncated or changed"
    return None


def _summary(path: Path) -> dict[str, Any]:
    """Return the size of a file and a digest of blocks spread over it, which is quick to check."""
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for start in np.linspace(0, max(size - _BLOCK, 0), _BLOCKS).astype(np.int64):
            file.seek(int(start))
            digest.update(file.read(_BLOCK))
    return {"bytes": size, "sampled_sha256": digest.hexdigest()}


def _publish(temporary: Path, directory: Path) -> None:
    """Give a finished entry its name, in place of a defective one."""
    if directory.exists():
        old = temporary.with_name(f"{temporary.name}-old")
        directory.rename(old)
        shutil.rmtree(old)
    try:
        temporary.rename(directory)
    except OSError:
        # Where files cannot be locked, another process may have been as quick.
        if not directory.exists():
            raise
