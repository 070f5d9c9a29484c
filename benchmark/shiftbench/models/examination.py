"""What a backbone is, and whether it works: its parts, and one forward pass through both towers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from shiftbench.core.errors import InputError, first_line
from shiftbench.models.backbones import load_backbone

if TYPE_CHECKING:
    from shiftbench.models.backbones import Backbone

TEXTS = ("a photo of a cat", "a photo of a dog")


@dataclass(frozen=True)
class Examined:
    """A backbone that works.

    Attributes:
        identity: what run identities are made of.
        image_tower: for people.
        text_tower: for people.
        parameters: of both towers.
        activation: of open_clip's own layers, which the weights must have been trained with.
        preprocessing: for people.
        tokenizer: for people.
        width: of the embeddings.
        temperature: exp(logit_scale), by which cosines are multiplied.
    """

    identity: str
    image_tower: str
    text_tower: str
    parameters: int
    activation: str
    preprocessing: str
    tokenizer: str
    width: int
    temperature: float

    def lines(self) -> dict[str, str]:
        """All of it for people, by what it is."""
        return {
            "identity": self.identity,
            "image tower": self.image_tower,
            "text tower": self.text_tower,
            "parameters": f"{self.parameters:,}",
            "activation": self.activation,
            "preprocessing": self.preprocessing,
            "tokenizer": self.tokenizer,
            "forward pass": f"embeddings of width {self.width}, temperature {self.temperature:.4g}",
        }


_ROUNDING = 1e-5
"""The relative distance of two embeddings that only the order of sums sets apart."""


@torch.inference_mode()
def examine(name: str) -> Examined:
    """Load a backbone and use it once.

    Raises:
        InputError: it cannot be loaded, its tokens do not fit its text tower, or an embedding is
            not finite or of another shape than the configuration says.
    """
    backbone = load_backbone(name)
    clip, width = backbone.clip, backbone.config["embed_dim"]
    tokens = backbone.tokenizer(TEXTS)
    size, preprocessing = backbone.preprocessing.size, backbone.preprocessing
    noise = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    try:
        found = {
            "image": clip.encode_image(preprocessing.normalise(torch.from_numpy(noise))),
            "text": clip.encode_text(tokens),
        }
    # Every tower refuses in its own way.
    except Exception as error:
        reason = first_line(error)
        raise InputError(f"backbone {name!r}: its forward pass fails: {reason}") from error
    for tower, embeddings in found.items():
        if embeddings.shape != (2, width) or not bool(embeddings.isfinite().all()):
            raise InputError(
                f"backbone {name!r}: its {tower} embeddings are not finite or not of width {width}"
            )
        apart = (embeddings[0] - embeddings[1]).norm() / embeddings.norm()
        if apart < _ROUNDING:
            raise InputError(f"backbone {name!r}: two different {tower}s have the same embedding")
    return Examined(
        identity=backbone.identity,
        image_tower=_image_tower(backbone),
        text_tower=_text_tower(backbone),
        parameters=sum(parameter.numel() for parameter in clip.parameters()),
        activation="QuickGELU" if backbone.config.get("quick_gelu") else "GELU",
        preprocessing=(
            f"{size}×{size} pixels, {preprocessing.resize}, {preprocessing.interpolation}, mean "
            f"{_numbers(preprocessing.mean)}, standard deviation {_numbers(preprocessing.std)}"
        ),
        tokenizer=f"{type(backbone.tokenizer).__name__}, {tokens.shape[1]} tokens",
        width=width,
        temperature=float(clip.logit_scale.exp()),
    )


def _image_tower(backbone: Backbone) -> str:
    vision = backbone.config["vision_cfg"]
    if "timm_model_name" in vision:
        return f"{vision['timm_model_name']} of timm"
    layers, width = vision["layers"], vision["width"]
    if isinstance(layers, int):
        return f"ViT, {layers} layers of width {width}, patches of {vision['patch_size']} pixels"
    return f"ResNet, {'-'.join(map(str, layers))} layers of width {width}"


def _text_tower(backbone: Backbone) -> str:
    text = backbone.config["text_cfg"]
    if "hf_model_name" in text:
        return f"{text['hf_model_name']} of transformers"
    return f"{text['layers']} layers of width {text['width']}"


def _numbers(values: tuple[float, ...]) -> str:
    return "/".join(f"{value:.4g}" for value in values)
