"""The corruptions of ImageNet-C and CIFAR-10-C (hendrycks/robustness)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from shiftbench.data.sources.published import PublishedSource

STANDARD_CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
ALL_CORRUPTIONS = STANDARD_CORRUPTIONS + EXTRA_CORRUPTIONS
"""Names of ImageNet-C and CIFAR-10-C (hendrycks/robustness)."""
SEVERITIES = (1, 2, 3, 4, 5)


def check_corruptions(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``names`` if they are corruptions that exist, each once."""
    unknown = [name for name in names if name not in ALL_CORRUPTIONS]
    if unknown:
        raise ValueError(f"no corruption {unknown[0]!r}; there are {', '.join(ALL_CORRUPTIONS)}")
    if not names or len(set(names)) < len(names):
        raise ValueError("name at least one corruption, and none twice")
    return names


class CorruptedSource(PublishedSource):
    """A test set under corruptions of one severity, with the columns corruption and severity."""

    corruptions: Annotated[
        tuple[str, ...], Field(description="kinds of corruption, each with images of its own")
    ] = STANDARD_CORRUPTIONS
    severity: Annotated[int, Field(ge=1, le=5, description="how strong they are")] = 5

    licence = "CC BY 4.0"

    _known = field_validator("corruptions")(check_corruptions)

    @property
    def title(self) -> str:
        """The set, with its corruption where it has only one."""
        one = len(self.corruptions) == 1
        return f"{self.kind} ({self.corruptions[0]}, {self.severity})" if one else self.kind

    def columns(self, counts: Sequence[int]) -> dict[str, npt.NDArray[np.generic]]:
        """Return the metadata columns of images that come corruption by corruption.

        Args:
            counts: images of each corruption.
        """
        corruption = np.repeat(np.array(self.corruptions, np.str_), counts)
        return {
            "corruption": corruption,
            "severity": np.full(len(corruption), self.severity, np.int64),
        }
