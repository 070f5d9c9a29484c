"""The decode-once store: keeps decoded images on disk, so that a machine decodes each once.

An entry is a directory of flat files that every process maps into memory, so that runs, epochs and
workers share the same pages:

- an evaluation set for one preprocessing, ``pixels.npy``, uint8 (n, size, size, 3);
- a training set at full resolution, ``pixels.bin``, one image's uint8 (height, width, 3) after the
  other, and ``index.npy``, int64 (n, 3): where each starts in bytes, its height and its width.

The directory is named by what it holds: the examples, the fingerprint of their files and the
preprocessing. ``manifest.json`` beside the arrays says how they were made and how to tell that they
are whole; an entry that another version made, or that is damaged, is made again. An entry appears
by a rename, complete; of several processes that want the same one, one builds and the others wait.
The whole directory may be deleted whenever nothing runs.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shiftbench.core.cpus import available_cpus
from shiftbench.core.errors import InputError
from shiftbench.core.processes import forkserver
from shiftbench.data.decoding import image_at, simplejpeg_version
from shiftbench.data.mapped import INDEX, RAW_PIXELS, PixelFile, RawImages
from shiftbench.data.preprocessing import Pixels, Preprocessing
from shiftbench.data.rgb import as_rgb
from shiftbench.data.sources.files import DECODE_ERRORS

if TYPE_CHECKING:
    from PIL.Image import Image

    from shiftbench.data.images import Images, ImageSet

VERSION = 2
MANIFEST, PIXELS = "manifest.json", "pixels.npy"

Progress = Callable[[int, int], None]
Build = Callable[[Path], None]

MANY = 1000  # images, for which starting processes is worth it
_PART = 64  # images decoded by a process at a time
_CHUNK = 8  # images decoded by a thread at a time
_SAMPLE = 64  # images, or up to twice as many, decoded to estimate the size of a training set
_BLOCKS, _BLOCK = 64, 4096  # how many places, of how many bytes, a checksum looks at

_log = logging.getLogger(__name__)


class Store:
    """A directory of decoded image sets.

    Args:
        root: the directory; made when something is first stored.
        threads: that decode at once; by default the processors this process may use. Pillow
            decodes and resizes without holding the interpreter's lock.
        processes: that decode evaluation sets of many images instead; 0: threads do. A thread
            holds the lock for the rest, which is why a dozen of them are as fast as five processes.
    """

    def __init__(self, root: Path, threads: int | None = None, processes: int = 0) -> None:
        self.root = Path(root)
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
        shape = (len(images), preprocessing.size, preprocessing.size, 3)
        key = preprocessing.key()

        def build(directory: Path) -> None:
            self._check_space(int(np.prod(shape)), shape[0])
            with (directory / PIXELS).open("wb") as file:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                if self.processes and len(images) >= MANY:
                    rows = _Rows(directory / PIXELS, file.tell(), images, preprocessing)
                    file.truncate(rows.start + int(np.prod(shape)))
                    self._fill(rows, progress)
                else:
                    for pixels in self._decoded(images, preprocessing.pixels, progress):
                        file.write(pixels.data)

        return PixelFile(self._entry("evaluation", key, images, (PIXELS,), build) / PIXELS)

    def raw(self, images: ImageSet, limit_bytes: int, progress: Progress | None = None) -> Images:
        """Return the images at full resolution, decoded once, if they fit; else ``images.images``.

        Args:
            images: a training set.
            limit_bytes: the most that the decoded pixels may take, estimated from a sample.
            progress: called with the number of images decoded and of all.

        Raises:
            InputError: as for ``evaluation``.
        """
        files = (RAW_PIXELS, INDEX)
        if (known := self._find("raw", "", images, files)) is not None:
            return RawImages(known)
        size = self._estimated_bytes(images)
        if size > limit_bytes:
            return images.images

        def build(directory: Path) -> None:
            self._check_space(size, len(images))
            index = np.zeros((len(images), 3), dtype=np.int64)
            start = 0
            with (directory / RAW_PIXELS).open("wb") as file:
                for i, pixels in enumerate(self._decoded(images, _rgb, progress)):
                    index[i] = start, *pixels.shape[:2]
                    start += file.write(pixels.data)
            np.save(directory / INDEX, index)

        return RawImages(self._entry("raw", "", images, files, build))

    def _find(
        self, kind: str, preprocessing: str, images: ImageSet, files: Sequence[str]
    ) -> Path | None:
        """Return the directory of an entry that is there and sound."""
        if not len(images):
            raise InputError("an image set without images cannot be evaluated or trained on")
        directory = self.root / _name(kind, preprocessing, images)
        return directory if directory.exists() and not _defect(directory, files) else None

    def _entry(
        self, kind: str, preprocessing: str, images: ImageSet, files: Sequence[str], build: Build
    ) -> Path:
        """Return the directory of an entry, which ``build`` fills if missing, stale or damaged."""
        if (known := self._find(kind, preprocessing, images, files)) is not None:
            return known
        directory = self.root / _name(kind, preprocessing, images)
        source = {"kind": kind, "n": len(images), "fingerprint": images.fingerprint}
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with _locked(self.root / f"{directory.name}.lock") as alone:
                if directory.exists():
                    defect = _defect(directory, files)
                    if defect is None:
                        return directory
                    _log.warning("decoding %s again: %s", directory, defect)
                if alone:
                    for leftover in self.root.glob(f".{directory.name}.*"):
                        shutil.rmtree(leftover, ignore_errors=True)
                temporary = self.root / f".{directory.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}"
                temporary.mkdir()
                try:
                    build(temporary)
                    _write_manifest(temporary, files, source | {"preprocessing": preprocessing})
                    _publish(temporary, directory)
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)
        except OSError as error:
            raise InputError(
                f"{self.root}: cannot store decoded images: {error.strerror or error}; "
                "SHIFTBENCH_CACHE names another place"
            ) from error
        return directory

    def _fill(self, rows: _Rows, progress: Progress | None) -> None:
        """Decode into a file, by processes that write their images where they belong."""
        n = len(rows.images)
        parts = [range(start, min(start + _PART, n)) for start in range(0, n, _PART)]
        with ProcessPoolExecutor(self.processes, forkserver(), _begin, (rows,)) as pool:
            done = 0
            for count in pool.map(_write, parts):
                done += count
                if progress is not None:
                    progress(done, n)

    def _decoded(
        self, images: ImageSet, convert: Callable[[Image], Pixels], progress: Progress | None
    ) -> Iterator[Pixels]:
        """Yield ``convert(image)`` for every image in order, decoded ahead by a few threads."""
        n = len(images)

        def decode(indices: range) -> list[Pixels]:
            return [_decode(images, i, convert) for i in indices]

        chunks = (range(start, min(start + _CHUNK, n)) for start in range(0, n, _CHUNK))
        with ThreadPoolExecutor(self.threads) as pool:
            ahead = islice(chunks, 2 * self.threads)
            waiting = deque(pool.submit(decode, chunk) for chunk in ahead)
            done = 0
            try:
                while waiting:
                    decoded = waiting.popleft().result()
                    waiting.extend(pool.submit(decode, chunk) for chunk in islice(chunks, 1))
                    yield from decoded
                    done += len(decoded)
                    if progress is not None:
                        progress(done, n)
            finally:
                for future in waiting:
                    future.cancel()

    def _estimated_bytes(self, images: ImageSet) -> int:
        """Estimate the bytes of all decoded images from evenly spaced ones."""
        n = len(images)
        sample = range(0, n, max(n // _SAMPLE, 1))
        sizes = [_decode(images, index, _rgb).nbytes for index in sample]
        return round(float(np.mean(sizes)) * n)

    def _check_space(self, needed: int, n: int) -> None:
        free = shutil.disk_usage(self.root).free
        if needed > free:
            raise InputError(
                f"{self.root}: {n:,} decoded images need {needed / 2**30:.1f} GiB, but "
                f"{free / 2**30:.1f} GiB are free; SHIFTBENCH_CACHE names another place"
            )


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
        pixels = [_decode(self.images, index, self.preprocessing.pixels) for index in part]
        with self.path.open("r+b") as file:
            file.seek(self.start + part.start * pixels[0].nbytes)
            file.write(np.stack(pixels).data)
        return len(part)


_rows: list[_Rows] = []  # of the process that decodes, which is told them once


def _begin(rows: _Rows) -> None:
    _rows[:] = [rows]


def _write(part: range) -> int:
    return _rows[0].write(part)


def _rgb(image: Image) -> Pixels:
    return np.asarray(as_rgb(image), dtype=np.uint8)


def _decode(images: ImageSet, index: int, convert: Callable[[Image], Pixels]) -> Pixels:
    """Return one image's pixels; an error of the decoder names the example."""
    from PIL import Image as Pillow

    try:
        return np.ascontiguousarray(convert(image_at(images.images, index)))
    except InputError:
        raise
    except (*DECODE_ERRORS, Pillow.DecompressionBombError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"image {str(images.ids[index])!r} cannot be decoded: {reason}") from error


def _name(kind: str, preprocessing: str, images: ImageSet) -> str:
    """Name the directory of an entry by its kind and a digest of all that decides its content."""
    digest = hashlib.sha256(json.dumps([images.fingerprint, preprocessing]).encode())
    digest.update("\0".join(images.ids.tolist()).encode())
    return f"{kind}-{digest.hexdigest()[:32]}"


def _made_by() -> dict[str, Any]:
    """Return the versions that the pixels depend on."""
    import PIL
    from PIL import features

    libraries = ("jpg", "libjpeg_turbo", "zlib", "webp")
    versions = {name: features.version(name) for name in libraries}
    versions["simplejpeg"] = simplejpeg_version()
    return {"store": VERSION, "pillow": PIL.__version__, **versions}


def _write_manifest(directory: Path, files: Sequence[str], source: dict[str, Any]) -> None:
    data = {name: _summary(directory / name) for name in files}
    document = {"source": source, "made_by": _made_by(), "files": data}
    (directory / MANIFEST).write_text(json.dumps(document, indent=1), encoding="utf-8")


def _defect(directory: Path, files: Sequence[str]) -> str | None:
    """Return the reason to make an entry again; ``None`` when it is sound."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        made_by, recorded = manifest["made_by"], manifest["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return "its manifest is missing or damaged"
    if made_by != _made_by():
        return f"made by {made_by}, now {_made_by()}"
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


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Hold a file's lock, which the system releases if this process dies.

    Yields whether this process is alone: some network file systems have no locks.
    """
    import fcntl

    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("waiting for another process to decode %s", path.stem)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            _log.info("%s cannot be locked (%s)", path, error.strerror)
            yield False
            return
        yield True
