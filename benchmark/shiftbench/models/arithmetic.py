"""How much arithmetic an image costs a backbone, and how many weights that has; from its settings.

No torch, and nothing is downloaded. For open_clip's own vision transformers both follow from the
configuration; the numbers are those of open_clip's ``docs/model_profile.csv``, from which other
towers are taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from shiftbench.core.errors import InputError
from shiftbench.models.names import Published, meaning
from shiftbench.models.published import QUICK_GELU, model_config

PROFILED = {
    "RN50": (12.22e9, 38.32e6),
    "RN101": (19.54e9, 56.26e6),
    "RN50x4": (42.56e9, 87.14e6),
    "RN50x16": (149.39e9, 167.33e6),
    "RN50x64": (529.11e9, 420.38e6),
    "convnext_base": (30.71e9, 88.09e6),
    "convnext_base_w": (40.11e9, 88.22e6),
    "convnext_large_d": (89.76e9, 199.77e6),
    "convnext_xxlarge": (395.94e9, 846.54e6),
    "ViT-B-16-SigLIP": (35.42e9, 92.88e6),
    "ViT-B-16-SigLIP-256": (46.82e9, 92.93e6),
    "ViT-B-16-SigLIP-384": (112.13e9, 93.18e6),
    "ViT-L-16-SigLIP-256": (162.56e9, 315.96e6),
    "ViT-L-16-SigLIP-384": (383.85e9, 316.28e6),
    "ViT-SO400M-14-SigLIP": (220.35e9, 427.68e6),
    "ViT-SO400M-14-SigLIP-384": (670.35e9, 428.23e6),
    "EVA02-B-16": (35.13e9, 86.26e6),
    "EVA02-L-14": (162.0e9, 304.11e6),
    "EVA02-L-14-336": (381.86e9, 304.43e6),
}
"""Operations of an image and parameters of the image tower, by open_clip's name of the model."""


@dataclass(frozen=True)
class Tower:
    """The image tower of a backbone.

    Attributes:
        flops: floating-point operations of an image's forward pass; a product with its sum is two.
        parameters: number of its weights.
        activations: values between its layers, tokens × width × layers, of an image; ``None`` where
            its configuration does not tell.
    """

    flops: float
    parameters: float
    activations: float | None = None


@cache
def tower_of(name: str) -> Tower | None:
    """The arithmetic of a backbone; ``None`` where its name or its configuration does not tell."""
    from shiftbench.models.local import describe

    try:
        place = meaning(name)
        if isinstance(place, Published):
            plain = place.model.removesuffix(QUICK_GELU)
            config = model_config(place.model) or model_config(plain)
            if plain in PROFILED:
                return Tower(*PROFILED[plain])
        else:
            config = dict(describe(place).model)
    except InputError:
        return None
    return None if config is None else tower_of_config(config)


def tower_of_config(config: Mapping[str, Any]) -> Tower | None:
    """The arithmetic of open_clip's ``model_cfg``; ``None`` unless it is its own ViT."""
    vision = config.get("vision_cfg", {})
    layers = vision.get("layers")
    if not isinstance(layers, int) or vision.get("timm_model_name"):
        return None
    size, patch = vision.get("image_size", 224), vision.get("patch_size") or 16
    size = size[0] if isinstance(size, list | tuple) else size
    width, ratio = vision.get("width", 768), vision.get("mlp_ratio", 4.0)
    patches = (size // patch) ** 2
    tokens, pixels, embedding = patches + 1, 3 * patch**2, config.get("embed_dim", width)
    # Queries, keys, values and their mixture; the two layers of the perceptron; attention itself.
    block = (4 + 2 * ratio) * width**2 * tokens + 2 * tokens**2 * width
    products = patches * pixels * width + layers * block + width * embedding
    weights = (4 + 2 * ratio) * width**2 + (9 + ratio) * width
    parameters = pixels * width + (tokens + 5) * width + layers * weights + width * embedding
    return Tower(2 * products, parameters, layers * tokens * width)
