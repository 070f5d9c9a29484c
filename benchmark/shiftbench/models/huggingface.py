"""CLIP and SigLIP as transformers saves them, as models of open_clip.

open_clip has its own module for each of theirs, with other names; queries, keys and values are one
matrix there, and projections are transposed. A test compares the embeddings with transformers' own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shiftbench.core.errors import InputError
from shiftbench.core.files import read_json

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("clip", "siglip")
INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers, by which transformers names them."""

TIMM_SIZES = {768: "base", 1024: "large", 1152: "so400m", 1536: "giantopt"}
"""timm's names of SigLIP's image towers, by width."""


def read_config(folder: Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    """open_clip's ``model_cfg`` and ``preprocess_cfg`` of a folder of transformers, and its kind.

    Raises:
        InputError: a model of another kind, or one that open_clip cannot make.
    """
    path = folder / "config.json"
    kind = read_json(path).get("model_type")
    if kind not in KINDS:
        raise InputError(f"{path}: model_type must be one of {', '.join(KINDS)}, not {kind!r}")
    from transformers import AutoConfig  # which knows the defaults that are not written

    config: Any = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    model = _clip(config, path) if kind == "clip" else _siglip(config, path)
    return model, _preprocessing(folder), str(kind)


def _clip(config: Any, path: Path) -> dict[str, Any]:
    vision, text = config.vision_config, config.text_config
    if vision.hidden_act != text.hidden_act or text.hidden_act not in ("gelu", "quick_gelu"):
        raise InputError(
            f"{path}: hidden_act of both towers must be gelu or quick_gelu, not "
            f"{vision.hidden_act} and {text.hidden_act}"
        )
    return {
        "embed_dim": config.projection_dim,
        "quick_gelu": text.hidden_act == "quick_gelu",
        "vision_cfg": {
            "image_size": vision.image_size,
            "layers": vision.num_hidden_layers,
            "width": vision.hidden_size,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            "mlp_ratio": vision.intermediate_size / vision.hidden_size,
            "patch_size": vision.patch_size,
        },
        "text_cfg": {
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "width": text.hidden_size,
            "heads": text.num_attention_heads,
            "layers": text.num_hidden_layers,
            "mlp_ratio": text.intermediate_size / text.hidden_size,
        },
    }


def _siglip(config: Any, path: Path) -> dict[str, Any]:
    import timm

    vision, text = config.vision_config, config.text_config
    size = TIMM_SIZES.get(vision.hidden_size, "?")
    tower = f"vit_{size}_patch{vision.patch_size}_siglip_{vision.image_size}"
    if tower not in timm.list_models():
        raise InputError(f"{path}: timm has no image tower {tower!r}")
    return {
        "embed_dim": vision.hidden_size,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": vision.image_size,
            "timm_model_name": tower,
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": {
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "hf_tokenizer_name": "siglip",  # it is in the folder
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "width": text.hidden_size,
            "heads": text.num_attention_heads,
            "layers": text.num_hidden_layers,
            "mlp_ratio": text.intermediate_size / text.hidden_size,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "norm_kwargs": {"eps": text.layer_norm_eps},
            "act_kwargs": {"approximate": "tanh"},
        },
    }


def _preprocessing(folder: Path) -> dict[str, Any]:
    """``preprocess_cfg`` of what an image processor of transformers says."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        raise InputError(f"{file}: no such file; it says how the model wants its images")
    said = read_json(file)
    resample = said.get("resample", 3)
    if resample not in INTERPOLATIONS:
        raise InputError(f"{file}: resample must be 2 or 3 (bilinear, bicubic), not {resample!r}")
    size = said.get("size") or {}
    squashed = "height" in size and not said.get("do_center_crop", False)
    return {
        "mean": said.get("image_mean"),
        "std": said.get("image_std"),
        "interpolation": INTERPOLATIONS[resample],
        "resize_mode": "squash" if squashed else "shortest",
    }


def converted(weights: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """The weights of a model of transformers under the names and in the shapes of open_clip's.

    Args:
        weights: of ``CLIPModel`` or ``SiglipModel``.
        kind: ``clip`` or ``siglip``.
    """
    rename = dict(_clip_names() if kind == "clip" else _siglip_names())
    found: dict[str, Tensor] = {}
    for name, tensor in _with_one_projection(weights).items():
        if name.endswith("position_ids"):
            continue
        old = next((part for part in rename if name.startswith(part)), "")
        new = _inside_a_block(rename.get(old, old) + name.removeprefix(old), kind)
        if kind == "clip" and old in ("visual_projection.weight", "text_projection.weight"):
            tensor = tensor.T.contiguous()
        if name in ("logit_scale", "logit_bias"):
            tensor = tensor.reshape(())
        if new == "visual.trunk.pos_embed":
            tensor = tensor[None]
        found[new] = tensor
    return found


def _clip_names() -> Iterator[tuple[str, str]]:
    """Beginnings of names, of transformers' ``CLIPModel`` and of open_clip's ``CLIP``."""
    yield "vision_model.embeddings.class_embedding", "visual.class_embedding"
    yield "vision_model.embeddings.patch_embedding", "visual.conv1"
    yield "vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"
    yield "vision_model.pre_layrnorm", "visual.ln_pre"
    yield "vision_model.encoder.layers", "visual.transformer.resblocks"
    yield "vision_model.post_layernorm", "visual.ln_post"
    yield "visual_projection.weight", "visual.proj"
    yield "text_model.embeddings.token_embedding", "token_embedding"
    yield "text_model.embeddings.position_embedding.weight", "positional_embedding"
    yield "text_model.encoder.layers", "transformer.resblocks"
    yield "text_model.final_layer_norm", "ln_final"
    yield "text_projection.weight", "text_projection"


def _siglip_names() -> Iterator[tuple[str, str]]:
    """The same of ``SiglipModel`` and of ``CustomTextCLIP`` with an image tower of timm."""
    yield "vision_model.embeddings.patch_embedding", "visual.trunk.patch_embed.proj"
    yield "vision_model.embeddings.position_embedding.weight", "visual.trunk.pos_embed"
    yield "vision_model.encoder.layers", "visual.trunk.blocks"
    yield "vision_model.post_layernorm", "visual.trunk.norm"
    yield "vision_model.head.probe", "visual.trunk.attn_pool.latent"
    yield "vision_model.head.attention.out_proj", "visual.trunk.attn_pool.proj"
    yield "vision_model.head.attention", "visual.trunk.attn_pool"
    yield "vision_model.head.layernorm", "visual.trunk.attn_pool.norm"
    yield "vision_model.head.mlp", "visual.trunk.attn_pool.mlp"
    yield "text_model.embeddings.token_embedding", "text.token_embedding"
    yield "text_model.embeddings.position_embedding.weight", "text.positional_embedding"
    yield "text_model.encoder.layers", "text.transformer.resblocks"
    yield "text_model.final_layer_norm", "text.ln_final"
    yield "text_model.head", "text.text_projection"


def _inside_a_block(name: str, kind: str) -> str:
    """The name of a block's part, in open_clip's own blocks or in those of timm."""
    in_timm = ".trunk.blocks." in name
    parts: tuple[tuple[str, str], ...] = (
        (".layer_norm1.", ".norm1." if in_timm else ".ln_1."),
        (".layer_norm2.", ".norm2." if in_timm else ".ln_2."),
        (".self_attn.out_proj.", ".attn.proj." if in_timm else ".attn.out_proj."),
        (".self_attn.in_proj_", ".attn.qkv." if in_timm else ".attn.in_proj_"),
    )
    if not in_timm and "attn_pool" not in name:
        parts += ((".mlp.fc1.", ".mlp.c_fc."), (".mlp.fc2.", ".mlp.c_proj."))
    for old, new in parts:
        name = name.replace(old, new)
    return name


def _with_one_projection(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values of each block as one; those of SigLIP's pooling as two."""
    import torch

    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if ".q_proj." in name:
            parts = [weights[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            found[name.replace(".q_proj.", ".in_proj_")] = torch.cat(parts)
        elif name.startswith("vision_model.head.attention.in_proj_"):
            width = len(tensor) // 3
            before, _, kind = name.rpartition("in_proj_")
            found[f"{before}q.{kind}"] = tensor[:width].clone()
            found[f"{before}kv.{kind}"] = tensor[width:].clone()
        elif ".k_proj." not in name and ".v_proj." not in name:
            found[name] = tensor
    return found
