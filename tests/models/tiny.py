"""Random backbones small enough for tests, saved as a user would have them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 24,
        "vision_cfg": {
            "image_size": 16,
            "layers": 2,
            "width": 32,
            "head_width": 16,
            "patch_size": 8,
        },
        "text_cfg": {
            "context_length": 16,
            "vocab_size": 49408,
            "width": 16,
            "heads": 2,
            "layers": 1,
        },
    },
    "preprocess_cfg": {
        "size": 16,
        "mean": [0.4, 0.5, 0.6],
        "std": 0.3,
        "interpolation": "bilinear",
    },
}

RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "head_width": 16}


def config(**vision: Any) -> dict[str, Any]:
    """A copy of ``CONFIG``, its image tower replaced by ``vision`` where given."""
    document = copy.deepcopy(CONFIG)
    if vision:
        document["model_cfg"]["vision_cfg"] = vision
        document["preprocess_cfg"]["size"] = vision["image_size"]
    return document


def save_backbone(
    directory: Path,
    document: dict[str, Any] | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    kind: type[torch.nn.Module] = open_clip.CLIP,
) -> dict[str, torch.Tensor]:
    """Write a random backbone; its weights as written."""
    document = document or config()
    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    weights = kind(**copy.deepcopy(document["model_cfg"])).state_dict()
    weights = {k: v.to(dtype) if v.is_floating_point() else v for k, v in weights.items()}
    save_file(weights, directory / "open_clip_model.safetensors")
    (directory / "open_clip_config.json").write_text(json.dumps(document))
    return weights
