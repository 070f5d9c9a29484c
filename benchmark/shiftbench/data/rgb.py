"""Any image as 8-bit RGB: values of more bits are scaled by the range of their format, not cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image

_BITS_PER_SAMPLE, _SAMPLE_FORMAT = 258, 339  # tags of TIFF 6.0
_SIGNED = 2
_BITS_OF_FORMAT = {"PNG": 16, "PPM": 16, "JPEG2000": 16}  # of which Pillow opens as mode I


def as_rgb(image: Image) -> Image:
    """Return an image with mode RGB.

    Whole numbers of more than 8 bits are divided by the largest that their format can hold, and
    floating-point values are taken to go from 0 to 1; Pillow's own conversion would clip both.

    Raises:
        ValueError: values are outside that range; the message names the mode.
    """
    from PIL import Image as Pillow

    mode = image.mode
    if mode == "RGB":
        return image
    if mode != "F" and mode[:1] != "I":
        return image.convert("RGB")
    values: npt.NDArray[np.float64] = np.asarray(image, np.float64)
    largest = 1 if mode == "F" else 2 ** _bits(image) - 1
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not (low >= 0 and high <= largest):  # also of values that are not numbers
        raise ValueError(
            f"its values (mode {mode}) go from {low:g} to {high:g}, not from 0 to {largest}; "
            "scale them to that range or convert the file to 8 bits"
        )
    grey = np.rint(values * (255 / largest)).astype(np.uint8)
    return Pillow.fromarray(grey).convert("RGB")


def _bits(image: Image) -> int:
    """Return the number of bits of an image's whole numbers, a sign not counted."""
    tags = getattr(image, "tag_v2", None)
    if tags is not None and _BITS_PER_SAMPLE in tags:
        bits = int(np.max(tags[_BITS_PER_SAMPLE]))
        return bits - 1 if _SIGNED in np.atleast_1d(tags.get(_SAMPLE_FORMAT, 1)) else bits
    return 16 if image.mode.startswith("I;16") else _BITS_OF_FORMAT.get(image.format or "", 31)
