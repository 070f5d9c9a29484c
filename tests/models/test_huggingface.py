"""CLIP and SigLIP of transformers, beside transformers' own embeddings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
import transformers
from shiftbench.core.errors import InputError
from shiftbench.models import huggingface
from shiftbench.models.backbones import (
    backbone_identity,
    check_backbone,
    image_tower,
    load_backbone,
)
from timm.models.vision_transformer import VisionTransformer

BLOCKS = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


def save_processor(folder: Path, **settings: object) -> None:
    said = {"image_mean": [0.5] * 3, "image_std": [0.4] * 3, "resample": 3, **settings}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """Also what starts at zero or one is drawn, so that nothing can be mixed up unseen."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_clip(tmp_path: Path, activation: str) -> None:
    config = transformers.CLIPConfig(
        text_config={"hidden_size": 16, "hidden_act": activation, "eos_token_id": 2, **BLOCKS},
        vision_config={
            "hidden_size": 32,
            "image_size": 16,
            "patch_size": 8,
            "hidden_act": activation,
            **BLOCKS,
        },
        projection_dim=24,
    )
    theirs = randomised(transformers.CLIPModel(config))
    whole = activation == "gelu"  # the other is split into several files
    theirs.save_pretrained(tmp_path, max_shard_size="5GB" if whole else "1MB")
    assert (tmp_path / "model.safetensors").exists() is whole
    save_processor(tmp_path, size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    check_backbone(str(tmp_path))
    ours = load_backbone(str(tmp_path))
    assert ours.config["quick_gelu"] is (activation == "quick_gelu")
    assert ours.preprocessing.resize == "shortest" and ours.preprocessing.size == 16
    assert ours.identity == backbone_identity(str(tmp_path))
    images, tokens = torch.randn(3, 3, 16, 16), ours.tokenizer(["a photo of a cat", "dogs"])
    with torch.no_grad():
        said = theirs(input_ids=tokens, pixel_values=images)
        image, text = ours.clip.encode_image(images, True), ours.clip.encode_text(tokens, True)
        logits = ours.clip.logit_scale.exp() * image @ text.T
    torch.testing.assert_close(image, said.image_embeds, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(text, said.text_embeds, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits, said.logits_per_image, atol=1e-4, rtol=1e-4)


@timm.models.register_model
def vit_tiny_patch8_siglip_16(pretrained: bool = False, **settings: object) -> VisionTransformer:
    """The image tower of SigLIP, very small."""
    return VisionTransformer(
        img_size=16,
        patch_size=8,
        embed_dim=32,
        depth=2,
        num_heads=2,
        mlp_ratio=1.5,
        class_token=False,
        global_pool="map",
        **{key: value for key, value in settings.items() if key in ("num_classes", "act_layer")},
    )


def test_siglip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(huggingface.TIMM_SIZES, 32, "tiny")
    config = transformers.SiglipConfig(
        text_config={
            "hidden_size": 32,
            "vocab_size": 50,
            "max_position_embeddings": 12,
            "projection_size": 32,
            **BLOCKS,
        },
        vision_config={"hidden_size": 32, "image_size": 16, "patch_size": 8, **BLOCKS},
    )
    theirs = randomised(transformers.SiglipModel(config))
    theirs.save_pretrained(tmp_path)
    save_processor(tmp_path, size={"height": 16, "width": 16}, resample=2)
    (tmp_path / "tokenizer.json").write_text(tokenizer_of(40).to_str())
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"})
    )
    ours = load_backbone(str(tmp_path))
    assert ours.preprocessing.resize == "squash"
    assert ours.preprocessing.interpolation == "bilinear"
    assert image_tower(str(tmp_path)) is not None
    images, tokens = torch.randn(3, 3, 16, 16), ours.tokenizer(["w3 w4", "w5"])
    assert tokens.shape == (2, 12)
    with torch.no_grad():
        said = theirs(input_ids=tokens, pixel_values=images)
        image, text = ours.clip.encode_image(images, True), ours.clip.encode_text(tokens, True)
        logits = ours.clip.logit_scale.exp() * image @ text.T + ours.clip.logit_bias
    # timm's towers have the exact GELU, transformers' its approximation by tanh.
    torch.testing.assert_close(image, said.image_embeds, atol=2e-3, rtol=0)
    torch.testing.assert_close(text, said.text_embeds, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits, said.logits_per_image, atol=1e-2, rtol=0)


def tokenizer_of(words: int) -> object:
    """A tokenizer that knows ``w0`` and so on."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    vocabulary = {"[PAD]": 0, "[UNK]": 1} | {f"w{i}": i + 2 for i in range(words)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = Whitespace()
    return tokenizer


def test_other_models_of_transformers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(InputError, match=r"model_type must be one of clip, siglip, not 'bert'"):
        load_backbone(str(tmp_path))
