"""From a decoded image to the input of an image tower, in two halves.

Everything that works on pixels happens on the CPU and ends in uint8, so that it can be done once
and kept (``shiftbench.data.store``); the rest, ``normalise``, is arithmetic on a batch and runs on
the device. Together they equal open_clip 3.3's ``image_transform``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from shiftbench.core.errors import InputError
from shiftbench.data.rgb import as_rgb

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

Pixels = npt.NDArray[np.uint8]
Interpolation = Literal["bicubic", "bilinear"]
Resize = Literal["shortest", "squash"]

# CLIP's channel means and standard deviations, of pixels scaled to [0, 1].
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)

# WiSE-FT's training augmentation (arXiv 2109.01903, App. D.2), with torchvision's aspect ratios.
CROP_AREA = (0.9, 1.0)
CROP_ASPECT = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class Preprocessing:
    """The input format of a backbone: size, resizing and normalisation.

    Attributes:
        size: side of the square input, in pixels.
        mean: of each channel, of pixels scaled to [0, 1].
        std: standard deviation of each channel, likewise.
        interpolation: of the evaluation resize; augmentation is always bicubic, as in open_clip.
        resize: ``shortest`` scales the shorter side to ``size`` and crops the centre; ``squash``
            scales both sides to ``size``.
    """

    size: int
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    interpolation: Interpolation = "bicubic"
    resize: Resize = "shortest"

    @classmethod
    def from_open_clip(cls, config: Mapping[str, Any], where: str) -> Preprocessing:
        """Read an open_clip ``preprocess_cfg``; missing keys take open_clip's defaults.

        Args:
            config: open_clip's dictionary (``size``, ``mode``, ``mean``, ``std``,
                ``interpolation``, ``resize_mode``, ``fill_color``).
            where: its origin for error messages, such as the file.

        Raises:
            InputError: it asks for something else than square RGB images, bicubic or bilinear,
                shortest or squash.
        """
        interpolation = config.get("interpolation") or "bicubic"
        resize = config.get("resize_mode") or "shortest"
        return cls(
            size=_square(config.get("size", 224), where),
            mean=_channels(config.get("mean") or OPENAI_MEAN, f"{where}: mean"),
            std=_positive(_channels(config.get("std") or OPENAI_STD, f"{where}: std"), where),
            # open_clip reads "random" (an augmentation) as bicubic when it evaluates.
            interpolation=_one_of(
                Interpolation,
                "bicubic" if interpolation == "random" else interpolation,
                f"{where}: interpolation",
            ),
            resize=_one_of(Resize, resize, f"{where}: resize_mode"),
        )

    def key(self) -> str:
        """Return a cache key of all that ``pixels`` depends on, so not of mean and std."""
        return f"{self.resize}-{self.interpolation}-{self.size}"

    def pixels(self, image: Image) -> Pixels:
        """Return the evaluation input, uint8 (size, size, 3).

        Bit-identical to open_clip's evaluation transform before ``ToTensor``: the resize works in
        the image's own mode and the conversion to RGB comes last.
        """
        width, height = image.size
        if self.resize == "squash":
            return _rgb(self._resized(image, self.size, self.size))
        short = min(width, height)
        image = self._resized(
            image,
            self.size if width == short else int(self.size * width / short),
            self.size if height == short else int(self.size * height / short),
        )
        left = round((image.width - self.size) / 2)
        top = round((image.height - self.size) / 2)
        return _rgb(image.crop((left, top, left + self.size, top + self.size)))

    def augment(self, image: Image, rng: np.random.Generator) -> Pixels:
        """Return a training input, uint8 (size, size, 3): a random crop of 90 to 100 % of the area.

        The law and the pixels of torchvision's ``RandomResizedCrop`` with bicubic interpolation;
        no flip and no colour change. All randomness comes from ``rng``.
        """
        from PIL import Image as Pillow

        left, top, width, height = random_crop(*image.size, rng)
        # Cropped first: resizing with a box would blend in pixels from outside it.
        crop = image.crop((left, top, left + width, top + height))
        return _rgb(crop.resize((self.size, self.size), Pillow.Resampling.BICUBIC))

    def augment_fast(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        """``augment`` of uint8 (height, width, 3), up to the rounding of its weights.

        No pixel differs by more than 3 from Pillow's (see ``shiftbench.data.decoding``).
        """
        from torch.nn.functional import interpolate

        left, top, width, height = random_crop(image.shape[1], image.shape[0], rng)
        crop = image[top : top + height, left : left + width].permute(2, 0, 1)[None]
        size = (self.size, self.size)
        resized = interpolate(crop, size, mode="bicubic", antialias=True)
        return resized[0].permute(1, 2, 0).contiguous()

    def normalise(self, pixels: Tensor) -> Tensor:
        """Turn uint8 (n, h, w, 3) into the tower's input, fp32 (n, 3, h, w), on the same device."""
        import torch

        mean, std = _channel_statistics(self.mean, self.std, pixels.device)
        scaled = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        return scaled.div_(255).sub_(mean).div_(std)

    def _resized(self, image: Image, width: int, height: int) -> Image:
        from PIL import Image as Pillow

        if image.size == (width, height):
            return image
        return image.resize((width, height), Pillow.Resampling[self.interpolation.upper()])


@lru_cache(maxsize=16)
def _channel_statistics(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Both as (3, 1, 1) fp32 on a device; kept, because making them there waits for it."""
    import torch

    def there(values: tuple[float, ...]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device).view(3, 1, 1)

    with torch.inference_mode(False):
        return there(mean), there(std)


def random_crop(width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw a crop (left, top, width, height) by the law of torchvision's ``RandomResizedCrop``.

    Area uniform in ``CROP_AREA``, logarithm of the aspect ratio uniform in ``CROP_ASPECT``; after
    ten crops that do not fit, the largest central crop of an allowed aspect ratio.
    """
    low, high = CROP_ASPECT
    for _ in range(10):
        area = width * height * rng.uniform(*CROP_AREA)
        aspect = math.exp(rng.uniform(math.log(low), math.log(high)))
        w = round(math.sqrt(area * aspect))
        h = round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(rng.integers(height - h + 1))
            left = int(rng.integers(width - w + 1))
            return left, top, w, h
    w, h = width, height
    if width / height < low:
        h = round(width / low)
    elif width / height > high:
        w = round(height * high)
    return (width - w) // 2, (height - h) // 2, w, h


def _rgb(image: Image) -> Pixels:
    return np.array(as_rgb(image), dtype=np.uint8)


def _square(size: object, where: str) -> int:
    sides = size if isinstance(size, (list, tuple)) else (size,)
    if any(not isinstance(side, int) or side < 1 for side in sides) or len(set(sides)) != 1:
        raise InputError(f"{where}: size must be one positive integer (square), not {size!r}")
    return int(sides[0])


def _channels(value: object, where: str) -> tuple[float, float, float]:
    values = value if isinstance(value, (list, tuple)) else (value,) * 3
    if len(values) != 3 or not all(isinstance(v, (int, float)) for v in values):
        raise InputError(f"{where} must be one number or three, not {value!r}")
    red, green, blue = (float(v) for v in values)
    return red, green, blue


def _positive(values: tuple[float, float, float], where: str) -> tuple[float, float, float]:
    if not all(0 < v < math.inf for v in values):
        raise InputError(f"{where}: std must be positive, not {values}")
    return values


def _one_of(accepted: Any, value: object, where: str) -> Any:
    if value not in get_args(accepted):
        raise InputError(f"{where} must be one of {', '.join(get_args(accepted))}, not {value!r}")
    return value
