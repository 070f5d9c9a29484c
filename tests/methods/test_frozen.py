"""Which parameters train under BitFit and freeze-embedding, and how."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from shiftbench.core.errors import RunFailedError
from shiftbench.methods.base import TrainedMethod
from shiftbench.methods.builtin.bitfit import BitFit, BitFitConfig, is_bias
from shiftbench.methods.builtin.freeze_embedding import FreezeEmbedding, FreezeEmbeddingConfig
from shiftbench.methods.config import TrainingConfig
from shiftbench.models.classifier import ImageClassifier
from shiftbench.testing.toys import make_batch, make_context, make_model
from torch import nn


def make_bitfit(**settings: object) -> BitFit:
    return BitFit(BitFitConfig(**settings))  # type: ignore[arg-type]


def make_freeze(**settings: object) -> FreezeEmbedding:
    return FreezeEmbedding(FreezeEmbeddingConfig(**settings))  # type: ignore[arg-type]


def prepared(
    method: TrainedMethod[TrainingConfig], tower: nn.Module | None = None
) -> ImageClassifier:
    model = make_model() if tower is None else ImageClassifier(tower, nn.Linear(8, 3))
    method.prepare(model, make_context(method, model))
    return model


def training(model: ImageClassifier) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def step(method: TrainedMethod[TrainingConfig], model: ImageClassifier) -> set[str]:
    """Names of what one optimizer step changes."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = method.optimizer(method.parameters(model))
    method.loss(model, make_batch())["loss"].backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return {name for name, tensor in model.state_dict().items() if not tensor.equal(before[name])}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("transformer.resblocks.0.attn.in_proj_bias", True),
        ("transformer.resblocks.0.ln_1.bias", True),
        ("trunk.blocks.0.attn.q_bias", True),
        ("bias", True),
        ("transformer.resblocks.0.ln_1.weight", False),
        ("layers.0.relative_position_bias_table", False),
        ("bias_net.weight", False),
    ],
)
def test_names_of_biases(name: str, expected: bool) -> None:
    assert is_bias(name) is expected


def test_bitfit_trains_biases_and_the_head() -> None:
    method = make_bitfit()
    model = prepared(method)
    expected = {
        "visual.conv1.bias",
        "visual.block.ln.bias",
        "visual.proj.bias",
        "head.weight",
        "head.bias",
    }
    assert training(model) == expected
    assert step(method, model) == expected


def test_bitfit_without_the_head_trains_biases_alone() -> None:
    method = make_bitfit(train_head=False)
    model = prepared(method)
    expected = {"visual.conv1.bias", "visual.block.ln.bias", "visual.proj.bias"}
    assert training(model) == expected
    assert step(method, model) == expected


def test_a_tower_without_biases_is_refused() -> None:
    tower = nn.Sequential(nn.Flatten(), nn.Linear(48, 8, bias=False))
    with pytest.raises(RunFailedError, match="has no biases"):
        prepared(make_bitfit(), tower)


def open_clip_tower(model: str) -> nn.Module:
    """A small open_clip image tower with random weights."""
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer

    towers = {
        "vit": lambda: VisionTransformer(8, 4, 16, 1, 2, 2.0, output_dim=8),
        "resnet": lambda: ModifiedResNet([1, 1, 1, 1], 8, 2, image_size=32, width=8),
        "timm": lambda: TimmModel("vit_tiny_patch16_224", 8, image_size=32, pretrained=False),
    }
    return towers[model]()


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (
            "vit",
            {"class_embedding", "positional_embedding", "conv1.weight"}
            | {"ln_pre.weight", "ln_pre.bias"},
        ),
        (
            "resnet",
            {f"conv{i}.weight" for i in (1, 2, 3)}
            | {f"bn{i}.{part}" for i in (1, 2, 3) for part in ("weight", "bias")},
        ),
        (
            "timm",
            {"trunk.cls_token", "trunk.pos_embed"}
            | {"trunk.patch_embed.proj.weight", "trunk.patch_embed.proj.bias"},
        ),
    ],
)
def test_the_embedding_of_open_clip_towers(model: str, expected: set[str]) -> None:
    tower = open_clip_tower(model)
    always = {name for name, parameter in tower.named_parameters() if not parameter.requires_grad}
    prepared(make_freeze(), tower)
    frozen = {name for name, parameter in tower.named_parameters() if not parameter.requires_grad}
    assert frozen - always == expected


def test_bitfit_takes_the_biases_of_open_clips_attention() -> None:
    model = prepared(make_bitfit(), open_clip_tower("vit"))
    block = "visual.transformer.resblocks.0"
    assert f"{block}.attn.in_proj_bias" in training(model)
    assert f"{block}.mlp.c_fc.bias" in training(model)
    assert all(name.startswith("head.") or name.endswith("bias") for name in training(model))


def test_freeze_embedding_trains_all_but_the_embedding() -> None:
    method = make_freeze(lr=0.1)
    model = prepared(method)
    frozen = {"visual.conv1.weight", "visual.conv1.bias", "visual.positional_embedding"}
    assert set(model.state_dict()) - training(model) == frozen
    assert step(method, model) == training(model)


def test_the_embedding_may_be_named() -> None:
    model = prepared(make_freeze(embedding=["block.ln", "proj.bias"]))
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"visual.block.ln.weight", "visual.block.ln.bias", "visual.proj.bias"}


def test_a_name_that_fits_nothing_is_refused() -> None:
    # A part of a name is not a name: conv1 must not freeze conv10.
    with pytest.raises(RunFailedError, match=r"no parameter 'block\.l'"):
        prepared(make_freeze(embedding=["conv1", "block.l"]))
    with pytest.raises(ValidationError, match="at least 1"):
        make_freeze(embedding=[])


def test_an_unknown_tower_is_refused() -> None:
    tower = nn.Sequential(nn.Flatten(), nn.Linear(48, 8))
    with pytest.raises(RunFailedError, match="no known embedding layer"):
        prepared(make_freeze(), tower)


def test_sgd_against_its_recursion() -> None:
    method = make_freeze(lr=0.1, momentum=0.8, weight_decay=0.05)
    parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = method.optimizer([parameter])
    theta, velocity = np.array([1.0, -2.0]), np.zeros(2)
    for i in range(5):
        gradient = np.array([0.3 * i, 1.0 - i])
        parameter.grad = torch.tensor(gradient, dtype=torch.float32)
        optimizer.step()
        velocity = 0.8 * velocity + gradient + 0.05 * theta
        theta = theta - 0.1 * velocity
    np.testing.assert_allclose(parameter.detach().numpy(), theta, rtol=1e-5)
