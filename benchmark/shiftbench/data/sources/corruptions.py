"""The corruptions of ImageNet-C and CIFAR-10-C (hendrycks/robustness)."""

from __future__ import annotations

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


def check_corruptions(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``names`` if they are corruptions that exist, each once."""
    unknown = [name for name in names if name not in ALL_CORRUPTIONS]
    if unknown:
        raise ValueError(f"no corruption {unknown[0]!r}; there are {', '.join(ALL_CORRUPTIONS)}")
    if not names or len(set(names)) < len(names):
        raise ValueError("name at least one corruption, and none twice")
    return names
