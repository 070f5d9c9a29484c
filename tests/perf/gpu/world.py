"""JPEGs like photographs, a backbone of the right architecture, and a suite on both."""

from __future__ import annotations

import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.setup import Setup
from shiftbench.execution.workspace import Workspace
from shiftbench.models.hub import WEIGHTS
from shiftbench.models.names import CONFIG
from shiftbench.suite.plan import Plan, Run
from shiftbench.suite.suite import Suite

CLASSES = 10
TRAINING, TEST = 20_000, 10_000
TINY: dict[str, Any] = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        model: name of open_clip's architecture; ``tiny`` for a smoke test.
        batch: of a training step.
        files: distinct JPEGs.
        training: images of the training set, files repeated.
        test: images of the evaluation set.
        matmul: side of the matrices.
        classes: of the head in evaluation.
        prompts: classes whose texts SAFT encodes.
        rounds: turns of each variant.
        steps: of a turn.
        fed: steps of a training from JPEGs.
        alphas: of the reference that are measured, of 11.
    """

    model: str = "ViT-B-16-quickgelu"
    batch: int = 512
    files: int = 1_000
    training: int = 20_000
    test: int = 10_000
    matmul: int = 8192
    classes: int = 1_000
    prompts: int = 100
    rounds: int = 3
    steps: int = 5
    fed: int = 30
    alphas: int = 1


SMOKE = Sizes("tiny", 16, 40, 80, 64, 256, 10, 4, 2, 2, 4, 1)


def model_config(name: str, *, text: bool = False) -> dict[str, Any]:
    """open_clip's configuration of an architecture; one layer of text where none is measured."""
    import open_clip

    config: dict[str, Any] = TINY if name == "tiny" else open_clip.get_model_config(name)
    if text:
        return config
    return {**config, "text_cfg": {**config["text_cfg"], "layers": 1}}


def random_clip(name: str, device: torch.device, *, text: bool = False) -> Any:
    """A model of random weights, made where it will be."""
    from open_clip.model import CLIP

    torch.manual_seed(0)
    with device:
        return CLIP(**model_config(name, text=text))


def photograph(seed: int, folder: Path, side: int = 400) -> None:
    """Write a JPEG of 400 px: noise whose power falls with frequency, some edges, grain."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((side, side, 3), dtype=np.float32)
    for octave in range(1, 8):
        coarse = rng.normal(size=(2**octave, 2**octave, 3)).astype(np.float32)
        for channel in range(3):
            layer = Image.fromarray(coarse[..., channel])
            large = layer.resize((side, side), Image.Resampling.BICUBIC)
            pixels[..., channel] += np.asarray(large) / 2 ** (0.8 * octave)
    for _ in range(6):
        top, left = rng.integers(0, side - 40, 2)
        height, width = rng.integers(20, side // 2, 2)
        pixels[top : top + height, left : left + width] += rng.normal(size=3) / 2
    pixels -= pixels.min()
    pixels *= 255 / pixels.max()
    pixels += rng.normal(size=pixels.shape) * 12
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    image.save(folder / f"{seed:05d}.jpg", quality=90)


def draw(root: Path, sizes: Sizes) -> dict[str, float]:
    """Draw the files and link them into ``train`` and ``test``, a folder for each class."""
    distinct = root / "distinct"
    distinct.mkdir(parents=True)
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(photograph, folder=distinct), range(sizes.files), chunksize=8))
    files = sorted(distinct.iterdir())
    for name, count in [("train", sizes.training), ("test", sizes.test)]:
        for index in range(count):
            folder = root / name / f"c{index % CLASSES}"
            folder.mkdir(parents=True, exist_ok=True)
            os.link(files[index % len(files)], folder / f"{index:06d}.jpg")
    return {"kilobytes": float(np.mean([file.stat().st_size for file in files])) / 1e3}


def write_backbone(folder: Path, name: str, device: torch.device) -> None:
    """Random weights of an architecture, as a folder that a suite can name."""
    config = model_config(name)
    clip = random_clip(name, device)
    folder.mkdir(parents=True)
    (folder / CONFIG).write_text(
        json.dumps(
            {"model_cfg": config, "preprocess_cfg": {"size": config["vision_cfg"]["image_size"]}}
        )
    )
    weights = {k: v.cpu().contiguous() for k, v in clip.state_dict().items() if k != "attn_mask"}
    save_file(weights, folder / WEIGHTS[0])


@cache
def workspace(root: Path, device: torch.device) -> tuple[Workspace, Run]:
    """What a worker has that trains and evaluates on the drawn data, and the run."""
    suite = root / "gpu.yaml"
    suite.write_text(
        json.dumps(
            {
                "data": str(root),
                "tasks": {
                    "photographs": {
                        "classes": [f"c{i}" for i in range(CLASSES)],
                        "templates": "simple",
                        "train": {"kind": "image-folder", "path": "train"},
                        "id_val": {"holdout": 0.05},
                        "id_test": {"source": {"kind": "image-folder", "path": "test"}},
                    }
                },
                "backbones": [str(root / "backbone")],
                "methods": {"full": {"precision": "bf16"}},
                "budget": {"evaluation_precision": "bf16"},
                "resources": {"gpus_per_worker": float(device.type == "cuda")},
            }
        )
    )
    loaded = Suite.load(suite)
    plan = Plan.build(loaded)
    setup = Setup("gpu", plan.runs, root / "results", str(root), loaded.resources, Remarks())
    (run,) = plan.runs.values()
    return Workspace(setup, device), run
