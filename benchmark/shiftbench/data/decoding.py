"""How images are decoded, and how training images are resized.

Where the package simplejpeg is installed it decodes JPEG files: by the library that Pillow has
inside, so to the same pixels, in half the time.

Training images are resized by Pillow (``pil``), so that crops are those of the papers' code bit for
bit, or by PyTorch's vector instructions (``turbo``), which is several times as fast. The two differ
by at most 1 of 255 where the crop is half as large again as the result, as ImageNet's are, and by
at most 3 where it shrinks less or grows: PyTorch's weights have 16 bits and Pillow's 22.

Decoding at a reduced size, which libjpeg-turbo can do, was measured and is not done: at the scales
that a crop of 90 % allows it is slower than decoding all and resizing (``docs/performance.md``).
"""

from __future__ import annotations

import math
from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, Literal

import numpy as np

from shiftbench.data.images import EncodedImages

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from shiftbench.data.images import Images
    from shiftbench.data.preprocessing import Pixels, Preprocessing

Decoder = Literal["pil", "turbo"]

_JPEG = b"\xff\xd8\xff"


def augmented(
    images: Images,
    index: int,
    preprocessing: Preprocessing,
    rng: np.random.Generator,
    decoder: Decoder,
) -> Tensor:
    """A training input, uint8 (size, size, 3): the image at ``index``, cropped at random.

    Args:
        images: of the training set.
        index: of the image.
        preprocessing: says how large, and draws the crop.
        rng: all randomness.
        decoder: how; the crop is the same for each.
    """
    import torch

    if decoder == "pil":
        return torch.from_numpy(preprocessing.augment(image_at(images, index), rng))
    pixels = jpeg_pixels(images, index)
    if pixels is None:
        pixels = np.array(images[index].convert("RGB"))
    return preprocessing.augment_fast(torch.from_numpy(pixels), rng)


def image_at(images: Images, index: int) -> Image:
    """``images[index]``, decoded by the fastest decoder that gives the same pixels."""
    from PIL import Image as Pillow

    pixels = jpeg_pixels(images, index)
    return images[index] if pixels is None else Pillow.fromarray(pixels)


def jpeg_pixels(images: Images, index: int) -> Pixels | None:
    """What simplejpeg decodes, uint8 (height, width, 3); ``None`` where Pillow must.

    That is where simplejpeg is not installed, and images that are not kept as JPEG files, are in
    CMYK, larger than Pillow thinks safe, or broken.
    """
    if simplejpeg_version() is None or not isinstance(images, EncodedImages):
        return None
    import simplejpeg
    from PIL import Image as Pillow

    data = images.encoded(index)
    if data is None or not data.startswith(_JPEG):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours == "CMYK" or height * width > (Pillow.MAX_IMAGE_PIXELS or math.inf):
            return None
        pixels: Pixels = simplejpeg.decode_jpeg(data)
    except ValueError:  # Pillow reads it all the same, or names the file that is broken
        return None
    return pixels


@lru_cache(maxsize=1)
def simplejpeg_version() -> str | None:
    """Of the package, if it is installed."""
    try:
        return metadata.version("simplejpeg")
    except metadata.PackageNotFoundError:
        return None
