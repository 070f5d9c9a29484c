"""Audit for leakage: finds images of a test set that a method has seen, by their content.

Two images are the same when their decoded pixels are. That finds a file under another name, in
another container or format without loss, and in another data set. It cannot see a copy that was
encoded again, resized, cropped or corrupted: CIFAR-10-C and ImageNet-C are made of their families'
test images, in AutoFT (arXiv 2401.10220) as here, and a search on them passes this audit.

Contents are compared by hashes of 64 bits. Between n images seen and m tested, images that differ
are taken for the same with a probability of about n · m / 2⁶⁴: 10⁻⁸ for ImageNet's training set and
100,000 test images.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from shiftbench.core.errors import InputError, one_line
from shiftbench.core.files import written_atomically
from shiftbench.data.rgb import as_rgb
from shiftbench.data.sources.files import DECODE_ERRORS

if TYPE_CHECKING:
    from PIL.Image import Image

    from shiftbench.data.images import ImageSet
    from shiftbench.data.tasks.definition import Task
    from shiftbench.data.tasks.opening import TaskData

Hashes = npt.NDArray[np.uint64]
Progress = Callable[[int, int], None]

VERSION = 3
UNREADABLE = 0
"""The hash that stands for an image that cannot be decoded."""
EXAMPLES = 3
"""Pairs of ids that an overlap names."""

_CHUNK = 64  # images hashed by a thread at a time
_SAMPLE = 16  # images that name an entry of the cache
_VALIDATION = ("id-val", "ood-val")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Overlap:
    """Images of a test set that are also in a set that a method sees.

    Attributes:
        seen: name of the set that a method sees.
        test: name of the test set.
        count: images of the test set concerned.
        examples: ids of the first of them, each as (id among those seen, id in the test set).
    """

    seen: str
    test: str
    count: int
    examples: tuple[tuple[str, str], ...]


def content_hash(image: Image) -> bytes:
    """Return 8 bytes of BLAKE2b over mode, size and pixels of an image as RGB."""
    image = as_rgb(image)
    width, height = image.size
    digest = hashlib.blake2b(f"{image.mode} {width} {height} ".encode(), digest_size=8)
    digest.update(image.tobytes())
    return digest.digest()


def content_hashes(
    images: ImageSet,
    cache: Path | None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Hashes:
    """Return the content hash of every image; the next time it is read from the cache.

    The hash of an image that cannot be decoded is ``UNREADABLE``.

    Args:
        images: whose fingerprint, ids and a sample of contents name the entry of the cache.
        cache: the entry is a file in its folder ``hashes``; ``None`` keeps nothing.
        threads: that decode at once; by default one for every processor.
        progress: called with the number of images hashed and of all.

    Returns:
        (n,) uint64.

    Raises:
        InputError: the cache cannot be written.
    """
    file = None if cache is None else cache / "hashes" / f"{_key(images)}.npy"
    if file is not None and (known := _read(file, len(images))) is not None:
        return known
    hashes = _computed(images, threads or os.cpu_count() or 1, progress)
    if file is not None:
        try:
            with written_atomically(file) as temporary, temporary.open("wb") as stream:
                np.save(stream, hashes)
        except OSError as error:
            raise InputError(
                f"{file}: cannot be written: {error.strerror or error}; "
                "SHIFTBENCH_CACHE names another place"
            ) from error
    return hashes


def unreadable(images: ImageSet, cache: Path | None) -> dict[str, str]:
    """Return the reasons of all images that cannot be decoded, by their ids.

    Args:
        images: all are decoded, unless the cache knows them.
        cache: see ``content_hashes``.

    Raises:
        InputError: the cache cannot be written.
    """
    found = {}
    for index in np.flatnonzero(content_hashes(images, cache) == UNREADABLE).tolist():
        try:
            content_hash(images.images[index])
        except DECODE_ERRORS as error:
            found[str(images.ids[index])] = one_line(error)
    return found


def audit(
    seen: Mapping[str, ImageSet],
    tests: Mapping[str, ImageSet],
    cache: Path | None = None,
    progress: Progress | None = None,
) -> list[Overlap]:
    """Return every pair of a seen set and a test set that share images, in the arguments' order.

    Args:
        seen: the sets that a method trains, selects or searches on, by name.
        tests: the sets that it is scored on, by name.
        cache: see ``content_hashes``.
        progress: called for each set.
    """
    hashes_of = {
        name: content_hashes(images, cache, None, progress) for name, images in tests.items()
    }
    found = []
    for seen_name, known in seen.items():
        hashes = content_hashes(known, cache, None, progress)
        order = np.argsort(hashes, kind="stable")
        order = order[hashes[order] != UNREADABLE]
        ranked = hashes[order]
        for test_name, tested in hashes_of.items():
            common = np.flatnonzero(np.isin(tested, ranked))
            if not len(common):
                continue
            first = common[:EXAMPLES]
            same = order[np.searchsorted(ranked, tested[first])]
            ids = tests[test_name].ids[first]
            examples = zip(known.ids[same].tolist(), ids.tolist(), strict=True)
            found.append(Overlap(seen_name, test_name, len(common), tuple(examples)))
    return found


def describe(overlap: Overlap) -> str:
    """Return one line with the number of images, the two sets and the first ids."""
    pairs = ", ".join(
        test if test == seen else f"{test} (there {seen})" for seen, test in overlap.examples
    )
    noun = "image" if overlap.count == 1 else "images"
    more = ", …" if overlap.count > len(overlap.examples) else ""
    return f"{overlap.test} has {overlap.count:,} {noun} of {overlap.seen}: {pairs}{more}"


def check_overlap(
    task: Task,
    data: TaskData,
    ood_val: ImageSet | None,
    cache: Path | None,
    progress: Progress | None = None,
) -> str | None:
    """Refuse a task whose test sets hold seen images, or return a label where it allows that.

    Seen are training and ID validation, and OOD validation where there is a search; tests are
    ``id-test`` and all shifts. What the seen sets share among themselves is no leakage.

    Args:
        task: says whether an overlap is refused.
        data: the task, opened.
        ood_val: the set that a search scores its trials on; ``None`` without a search.
        cache: see ``content_hashes``.
        progress: called for each set.

    Returns:
        ``None`` when no test image is seen, else one line for the rows of the results.

    Raises:
        InputError: a test set holds seen images, and the task does not say ``overlap: label``.
    """
    seen = {"train": data.train, "id-val": data.id_val}
    if ood_val is not None:
        seen["ood-val"] = ood_val
    tests = {
        name: images for name, (_, images) in data.evaluation.items() if name not in _VALIDATION
    }
    text = "; ".join(describe(overlap) for overlap in audit(seen, tests, cache, progress))
    if text and task.overlap == "refuse":
        raise InputError(
            f'task {task.name}: {text}; with "overlap: label" the task goes on, '
            "and every row says so"
        )
    return text or None


def _computed(images: ImageSet, threads: int, progress: Progress | None) -> Hashes:
    n = len(images)

    def hashed(chunk: range) -> bytes:
        return b"".join(_hash_of(images, i) for i in chunk)

    chunks = [range(start, min(start + _CHUNK, n)) for start in range(0, n, _CHUNK)]
    parts = []
    with ThreadPoolExecutor(threads) as pool:
        for chunk, part in zip(chunks, pool.map(hashed, chunks), strict=True):
            parts.append(part)
            if progress is not None:
                progress(chunk.stop, n)
    return np.frombuffer(b"".join(parts), dtype="<u8").astype(np.uint64)


def _hash_of(images: ImageSet, index: int) -> bytes:
    try:
        return content_hash(images.images[index])
    except DECODE_ERRORS:
        return UNREADABLE.to_bytes(8, "little")


def _key(images: ImageSet) -> str:
    """Return the name of an entry: a digest of all that decides the pixels, decoders included.

    Fingerprint and ids are the same for two folders whose files have the same names and sizes, as
    those of a training and a test set may, so a sample of the contents is a part of it.
    """
    import PIL
    from PIL import features

    decoders = [PIL.__version__, *(features.version(name) for name in ("jpg", "zlib", "webp"))]
    digest = hashlib.sha256(json.dumps([VERSION, decoders, images.fingerprint]).encode())
    digest.update("\0".join(images.ids.tolist()).encode())
    if len(images):
        for i in np.unique(np.linspace(0, len(images) - 1, _SAMPLE).astype(int)).tolist():
            digest.update(_hash_of(images, i))
    return digest.hexdigest()[:32]


def _read(file: Path, n: int) -> Hashes | None:
    """Read a whole entry of the cache; ``None`` when there is none or it is damaged."""
    try:
        hashes: Hashes = np.load(file, allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        _log.warning("hashing images again: %s cannot be read: %s", file, error)
        return None
    if hashes.dtype != np.uint64 or hashes.shape != (n,):
        _log.warning("hashing images again: %s has another form", file)
        return None
    return hashes
