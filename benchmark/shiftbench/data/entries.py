"""What entries of the store share: one builder at a time, errors that name examples, versions."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from shiftbench.core.errors import InputError, one_line
from shiftbench.core.pulse import beat
from shiftbench.data.decoding import image_at, simplejpeg_version
from shiftbench.data.preprocessing import Pixels
from shiftbench.data.rgb import as_rgb
from shiftbench.data.sources.files import DECODE_ERRORS

if TYPE_CHECKING:
    from PIL.Image import Image

    from shiftbench.data.images import ImageSet

VERSION = 2
CHUNK = 8  # images decoded by a thread at a time

T = TypeVar("T")


def entry_name(kind: str, form: str, images: ImageSet) -> str:
    """Name an entry by its kind and a digest of all that decides its content."""
    digest = hashlib.sha256(json.dumps([images.fingerprint, form]).encode())
    digest.update("\0".join(images.ids.tolist()).encode())
    return f"{kind}-{digest.hexdigest()[:32]}"


def made_by() -> dict[str, Any]:
    """Return the versions that the pixels depend on."""
    import PIL
    from PIL import features

    libraries = ("jpg", "libjpeg_turbo", "zlib", "webp")
    versions = {name: features.version(name) for name in libraries}
    versions["simplejpeg"] = simplejpeg_version()
    return {"store": VERSION, "pillow": PIL.__version__, **versions}


def rgb(image: Image) -> Pixels:
    """Return an image's pixels, uint8 (height, width, 3)."""
    return np.asarray(as_rgb(image), dtype=np.uint8)


def decoded(images: ImageSet, index: int, convert: Callable[[Image], T]) -> T:
    """Return ``convert`` of one image; an error of the decoder names the example."""
    from PIL import Image as Pillow

    try:
        return convert(image_at(images.images, index))
    except InputError:
        raise
    except (*DECODE_ERRORS, Pillow.DecompressionBombError) as error:
        reason = one_line(error)
        raise InputError(f"image {str(images.ids[index])!r} cannot be decoded: {reason}") from error


def decoded_ahead(
    images: ImageSet, indices: Sequence[int], convert: Callable[[Image], T], threads: int
) -> Iterator[T]:
    """Yield ``convert(image)`` of images in order, decoded ahead by a few threads."""
    n = len(indices)

    def decode(part: Sequence[int]) -> list[T]:
        return [decoded(images, i, convert) for i in part]

    chunks = (indices[start : start + CHUNK] for start in range(0, n, CHUNK))
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque(pool.submit(decode, chunk) for chunk in islice(chunks, 2 * threads))
        try:
            while waiting:
                values = waiting.popleft().result()
                beat()
                waiting.extend(pool.submit(decode, chunk) for chunk in islice(chunks, 1))
                yield from values
        finally:
            for future in waiting:
                future.cancel()


def check_space(root: Path, needed: int, n: int) -> None:
    """Refuse what does not fit on the disk.

    Raises:
        InputError: fewer than ``needed`` bytes are free for ``n`` images.
    """
    free = shutil.disk_usage(root).free
    if needed > free:
        raise InputError(
            f"{root}: {n:,} decoded images need {needed / 2**30:.1f} GiB, but "
            f"{free / 2**30:.1f} GiB are free; SHIFTBENCH_CACHE names another place"
        )


@contextmanager
def named_if_unwritable(root: Path) -> Iterator[None]:
    """Turn an error of the file system into one line that names the store.

    Raises:
        InputError: there was one.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{root}: cannot store decoded images: {error.strerror or error}; "
            "SHIFTBENCH_CACHE names another place"
        ) from error
