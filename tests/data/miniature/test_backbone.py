"""The shipped backbone: small, loadable by open_clip, and good but not perfect at zero-shot."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from shiftbench.data.miniature import iwildcam
from shiftbench.data.miniature.captions import task_captions
from shiftbench.data.miniature.definition import CLASSES, backbone_dir
from shiftbench.data.miniature.tokenizer import CompactTokenizer
from torch import Tensor
from torch.nn.functional import normalize

Transform = Callable[[Image.Image], Tensor]
Backbone = tuple[open_clip.CLIP, Transform]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.set_num_threads(2)
    name = f"local-dir:{backbone_dir()}"
    model, _, transform = open_clip.create_model_and_transforms(name)
    return model.float().eval(), transform


@torch.no_grad()
def _accuracy(backbone: Backbone, task: str, images: list[Image.Image], label: list[int]) -> float:
    model, transform = backbone
    tokenizer = CompactTokenizer.load(backbone_dir())
    heads = [
        normalize(
            model.encode_text(tokenizer(task_captions(task, name)), normalize=True).mean(0), dim=0
        )
        for name in CLASSES[task]
    ]
    batch = torch.stack([transform(image.convert("RGB")) for image in images])
    logits = model.encode_image(batch, normalize=True) @ torch.stack(heads).T
    return float((logits.argmax(1) == torch.tensor(label)).float().mean())


def test_small_and_complete() -> None:
    files = {path.name: path.stat().st_size for path in backbone_dir().iterdir()}
    assert set(files) == {
        "open_clip_config.json",
        "open_clip_model.safetensors",
        "vocabulary.json",
        "recipe.json",
    }
    assert sum(files.values()) <= 4_000_000


def test_every_weight_is_used_and_half_precision(backbone: Backbone) -> None:
    weights = load_file(backbone_dir() / "open_clip_model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float16}
    model = open_clip.CLIP(
        **json.loads((backbone_dir() / "open_clip_config.json").read_text())["model_cfg"]
    )
    model.load_state_dict({name: value.float() for name, value in weights.items()}, strict=True)
    for name, value in model.state_dict().items():
        assert torch.equal(value, backbone[0].state_dict()[name]), name


def test_preprocessing_is_clips(backbone: Backbone) -> None:
    image = Image.fromarray(np.full((40, 60, 3), 255, np.uint8))
    pixels = backbone[1](image)
    assert pixels.shape == (3, 32, 32)
    white = (1 - torch.tensor(open_clip.OPENAI_DATASET_MEAN)) / torch.tensor(
        open_clip.OPENAI_DATASET_STD
    )
    assert torch.allclose(pixels[:, 16, 16], white, atol=1e-5)


def _labelled(folder: Path, every: int = 3) -> tuple[list[Image.Image], list[int]]:
    wnids = sorted(path.name for path in folder.iterdir())
    paths = sorted(folder.glob("*/*"))[::every]
    return [Image.open(path) for path in paths], [wnids.index(path.parent.name) for path in paths]


@pytest.mark.parametrize(
    ("folder", "floor"), [("imagenet/val", 0.6), ("sketch", 0.5), ("imagenet/train", 0.6)]
)
def test_zero_shot_imagenet(world: Path, backbone: Backbone, folder: str, floor: float) -> None:
    assert floor < _accuracy(backbone, "imagenet", *_labelled(world / folder)) < 0.98


def test_zero_shot_cifar10(world: Path, backbone: Backbone) -> None:
    batch = pickle.loads((world / "cifar-10-batches-py/test_batch").read_bytes())
    images = batch[b"data"][:300].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    listed = [Image.fromarray(np.ascontiguousarray(image)) for image in images]
    assert 0.6 < _accuracy(backbone, "cifar10", listed, batch[b"labels"][:300]) < 0.99


def test_zero_shot_iwildcam(world: Path, backbone: Backbone) -> None:
    base = world / "iwildcam_v2.0"
    rows = [line.split(",") for line in (base / "metadata.csv").read_text().splitlines()[1:]]
    kept = [row for row in rows if row[1] == "test"][::2]
    images = [Image.open(base / "train" / row[9]) for row in kept]
    assert len(iwildcam.NAMES) == 12
    assert 0.5 < _accuracy(backbone, "iwildcam", images, [int(row[6]) for row in kept]) < 0.98


def test_zero_shot_fmow(world: Path, backbone: Backbone) -> None:
    base = world / "fmow_v1.1"
    rows = [line.split(",") for line in (base / "rgb_metadata.csv").read_text().splitlines()[1:]]
    kept = [i for i, row in enumerate(rows) if row[0] == "test"][::4]
    images = [Image.open(base / "images" / f"rgb_img_{i}.png") for i in kept]
    label = [CLASSES["fmow"].index(rows[i][5]) for i in kept]
    assert 0.6 < _accuracy(backbone, "fmow", images, label) < 0.99
