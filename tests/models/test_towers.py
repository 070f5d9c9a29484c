"""Towers that cannot work with a suite are refused before anything is loaded or trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from open_clip.model import _build_vision_tower
from shiftbench.core.errors import InputError, RunFailedError
from shiftbench.execution import model_checks
from shiftbench.execution.model_checks import check_backbones
from shiftbench.methods.builtin.freeze_embedding import FreezeEmbedding, FreezeEmbeddingConfig
from shiftbench.methods.builtin.lora import Lora, LoraConfig
from shiftbench.methods.registry import METHODS
from shiftbench.models.adapters import adapted_layers
from shiftbench.models.backbones import check_backbone, image_tower, is_plain_vit
from shiftbench.models.classifier import ImageClassifier
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite
from shiftbench.testing.toys import make_context
from torch import nn

from tests.models.tiny import RESNET, config, save_backbone

CONVNEXT = {"timm_model_name": "convnext_tiny", "timm_pool": "", "timm_proj": "linear"}
EVA = {"timm_model_name": "eva02_tiny_patch14_224", "timm_pool": "token", "image_size": 224}
EVA_BASE = {"timm_model_name": "eva02_base_patch16_clip_224", "timm_pool": "token"}
EVA_GIANT = {"timm_model_name": "eva_giant_patch14_224", "timm_pool": "token", "image_size": 224}
VIT = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token", "image_size": 224}
EFFICIENTNET = {"timm_model_name": "efficientnet_lite0", "timm_pool": "avg"}
MOBILENET = {"timm_model_name": "mobilenetv2_050", "timm_pool": "avg"}
DENSENET = {"timm_model_name": "densenet121", "timm_pool": "avg"}

SUITE = """
tasks:
  own:
    classes: [cat, dog]
    train: {kind: image-folder, path: train}
    id_test: {source: {kind: image-folder, path: test}}
    shifts: {drawn: {source: {kind: image-folder, path: drawn}}}
methods:
  zero-shot: {}
"""


def tower_of(vision: dict[str, Any], device: str = "meta") -> nn.Module:
    with torch.device(device):
        tower: nn.Module = _build_vision_tower(16, {"image_size": 32, **vision})
    return tower.eval()


def frozen_by(method: FreezeEmbedding, vision: dict[str, Any]) -> set[str]:
    """Names of the parameters of a tower that a method freezes."""
    model = ImageClassifier(tower_of(vision), nn.Linear(16, 3))
    method.prepare(model, make_context(method, model))
    return {name for name, p in model.visual.named_parameters() if not p.requires_grad}


def make_plan(folder: Path, backbone: Path | str, method: str) -> Plan:
    file = folder / "suite.yaml"
    file.write_text(f"{SUITE}  {method}\nbackbones: [{backbone}]\n")
    return Plan.build(Suite.load(file))


def test_an_image_size_that_a_tower_does_not_take_is_refused(tmp_path: Path) -> None:
    save_backbone(tmp_path / "good", config(**RESNET))
    check_backbone(str(tmp_path / "good"))
    save_backbone(tmp_path / "bad", config(**{**RESNET, "image_size": 16}))
    timm = {**VIT, "image_size": 32}
    save_backbone(tmp_path / "timm", config(**timm))
    for name, size in (("bad", "16×16"), ("timm", "32×32")):
        with pytest.raises(InputError, match=f"{name}.*does not take images of {size}") as error:
            check_backbone(str(tmp_path / name))
        assert "\n" not in str(error.value)


def test_a_tower_has_shapes_and_no_memory(tmp_path: Path) -> None:
    for name in (str(tmp_path / "vit"), "openai/RN50"):
        if "/RN" not in name:
            save_backbone(tmp_path / "vit")
        assert all(p.is_meta for p in image_tower(name).parameters())
    with pytest.raises(InputError, match="unknown backbone"):
        image_tower("openai/ViT-B-99")


@pytest.mark.parametrize(
    ("vision", "targets"),
    [
        (VIT, ("attn",)),
        ({**EVA_BASE, "image_size": 224}, ("attn",)),
        (EVA_GIANT, ("mlp",)),
        (CONVNEXT, ("mlp",)),
    ],
)
def test_lora_finds_its_layers(vision: dict[str, Any], targets: tuple[str, ...]) -> None:
    Lora(LoraConfig(targets=targets)).check(lambda: tower_of(vision))


@pytest.mark.parametrize(
    ("vision", "reason"),
    [
        (CONVNEXT, r"is called 'attn'.*targets can be mlp\.fc1, mlp\.fc2"),
        (EVA_GIANT, r"reads the weights of 'trunk\.blocks\.0\.attn\.qkv' and never calls it"),
        (EFFICIENTNET, r"is called 'attn'"),
    ],
)
def test_lora_says_what_it_cannot_adapt(vision: dict[str, Any], reason: str) -> None:
    with pytest.raises(RunFailedError, match=reason):
        Lora(LoraConfig()).check(lambda: tower_of(vision))


@pytest.mark.parametrize(("vision", "targets"), [(EVA, ("attn.proj", "mlp")), (CONVNEXT, ("mlp",))])
def test_lora_trains_what_its_check_accepts(
    vision: dict[str, Any], targets: tuple[str, ...]
) -> None:
    torch.manual_seed(0)
    model = ImageClassifier(tower_of(vision, "cpu"), nn.Linear(16, 3))
    images = torch.randn(2, 3, *[vision.get("image_size", 32)] * 2)
    before = model(images)
    method = Lora(LoraConfig(targets=targets, rank=2))
    layers = adapted_layers(model.visual, targets, "lora")
    method.prepare(model, make_context(method, model))
    torch.testing.assert_close(model(images), before)
    model(images).sum().backward()
    method.before_step(model)
    adapted = {
        name.partition(".lora_")[0]
        for name, p in model.visual.named_parameters()
        if p.grad is not None
    }
    assert adapted == set(layers)


@pytest.mark.parametrize(
    ("vision", "embedding"),
    [
        (EFFICIENTNET, {"trunk.conv_stem", "trunk.bn1"}),
        (MOBILENET, {"trunk.conv_stem", "trunk.bn1"}),
        (CONVNEXT, {"trunk.stem.0", "trunk.stem.1"}),
        (EVA, {"trunk.patch_embed.proj", "trunk.cls_token", "trunk.pos_embed"}),
        (VIT, {"trunk.patch_embed.proj", "trunk.cls_token", "trunk.pos_embed"}),
    ],
)
def test_freeze_embedding_freezes_the_layer_that_sees_the_image(
    vision: dict[str, Any], embedding: set[str]
) -> None:
    frozen = frozen_by(FreezeEmbedding(FreezeEmbeddingConfig()), vision)
    assert {n.removesuffix(".weight").removesuffix(".bias") for n in frozen} == embedding


def test_freeze_embedding_refuses_a_tower_whose_embedding_it_does_not_know() -> None:
    method = FreezeEmbedding(FreezeEmbeddingConfig())
    with pytest.raises(
        RunFailedError, match=r"tower DenseNet.*begins with 'trunk\.features\.conv0'"
    ):
        frozen_by(method, DENSENET)
    named = FreezeEmbedding(FreezeEmbeddingConfig(embedding=("trunk.features.conv0",)))
    assert frozen_by(named, DENSENET) == {"trunk.features.conv0.weight"}


@pytest.mark.parametrize("method", ["lora: {}", "tuned: {of: lora, search: {n_trials: 0}}"])
def test_a_method_that_cannot_train_a_backbone_is_refused_before_anything(
    tmp_path: Path, method: str
) -> None:
    save_backbone(tmp_path / "resnet", config(**RESNET))
    save_backbone(tmp_path / "vit")
    check_backbones(make_plan(tmp_path, tmp_path / "vit", method))
    with pytest.raises(InputError, match=r"suite\.yaml.*on .*resnet: lora: no attention"):
        check_backbones(make_plan(tmp_path, tmp_path / "resnet", method))


@pytest.mark.parametrize(
    "name", ["openai/ViT-B-16", "openai/ViT-L-14", "laion2b_s32b_b79k/ViT-H-14"]
)
def test_methods_that_check_towers_by_default_take_plain_vits_which_plan_does_not_build(
    name: str,
) -> None:
    assert is_plain_vit(name)
    for method in ("lora", "lines", "clip-lora", "r-adapter", "carot", "tracer"):
        kind = METHODS.load(method)
        kind(kind.Config()).check(lambda: image_tower(name))


def test_a_tower_is_built_where_a_setting_that_is_checked_is_not_the_default(
    tmp_path: Path,
) -> None:
    vit = "openai/ViT-B-16"
    with mock.patch.object(model_checks, "image_tower", side_effect=RunFailedError("built")):
        check_backbones(make_plan(tmp_path, vit, "tracer: {features: 5}"))
        check_backbones(make_plan(tmp_path, vit, "r-adapter: {alpha: 1}"))
        for method in ("r-adapter: {targets: [attn]}", "lora: {rank: 2}"):
            with pytest.raises(InputError, match="built"):
                check_backbones(make_plan(tmp_path, vit, method))


@pytest.mark.parametrize("name", ["openai/RN50", "webli/ViT-B-16-SigLIP", "miniature"])
def test_other_towers_are_built_to_be_checked(name: str) -> None:
    assert not is_plain_vit(name)
