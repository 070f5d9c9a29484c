"""Evaluation of 11 interpolated models: the papers' loop against the suite's."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shiftbench.core.cpus import available_cpus
from shiftbench.data.preprocessing import Preprocessing
from shiftbench.evaluation import inference
from shiftbench.evaluation.inference import head_logits, image_features
from shiftbench.models.classifier import ImageClassifier
from shiftbench.models.weights import interpolate
from torch import Tensor

from tests.perf.gpu import papers
from tests.perf.gpu.timing import seconds
from tests.perf.gpu.training import classifier
from tests.perf.gpu.training import ours as as_ours
from tests.perf.gpu.world import Sizes, workspace

ALPHAS = [a / 10 for a in range(11)]


def ends(sizes: Sizes, device: torch.device) -> tuple[ImageClassifier, ImageClassifier]:
    """Two models that differ a little, as before and after fine-tuning; a head of CLIP's scale."""
    first, _ = classifier(sizes.model, sizes.classes, device)
    with torch.no_grad():
        rows = torch.randn_like(first.head.weight)
        first.head.weight.copy_(100 * rows / rows.norm(dim=1, keepdim=True))
        second = copy.deepcopy(first)
        for parameter in second.parameters():
            parameter.add_(torch.randn_like(parameter) * 1e-3)
    return first.eval(), second.eval()


def sweep(sizes: Sizes, root: Path, device: torch.device) -> dict[str, Any]:
    """Seconds of 11 alphas on a set of JPEGs."""
    from open_clip.transform import image_transform

    first, second = ends(sizes, device)
    theta0 = {name: tensor.cpu() for name, tensor in first.state_dict().items()}
    theta1 = {name: tensor.cpu() for name, tensor in second.state_dict().items()}
    space, run = workspace(root, device)
    preprocessing = space.backbone(run).preprocessing
    images = space.evaluation_images(run, "id-test")
    found: dict[str, Any] = {"images": len(images)}
    found["store_seconds"] = seconds(lambda: space.store.evaluation(images, preprocessing))
    pixels = space.store.evaluation(images, preprocessing)

    def ours(model: ImageClassifier, alphas: Sequence[float] = ALPHAS) -> dict[str, float]:
        load = compute = 0.0
        for alpha in alphas:
            load += seconds(lambda a=alpha: model.load_state_dict(interpolate(theta0, theta1, a)))  # type: ignore[misc]

            def predict() -> None:
                features = image_features(model, pixels, preprocessing, device, "bf16")
                head_logits(model.head, features, device).argmax(axis=1)

            compute += seconds(predict)
        share = len(alphas) / len(ALPHAS)
        return {"load": load / share, "compute": compute / share, "measured": len(alphas)}

    eager, compiled = as_ours(first, compiled=False), as_ours(first)
    few = pixels[: inference.GPU_BATCH]
    image_features(eager, few, preprocessing, device, "bf16")
    found["compile_seconds"] = seconds(
        lambda: image_features(compiled, few, preprocessing, device, "bf16")
    )
    found["ours_bf16"] = ours(eager, ALPHAS[:2])
    found["ours_bf16_compiled"] = ours(compiled)

    transform = image_transform(preprocessing.size, is_train=False)
    files = papers.Files(sorted((root / "test").glob("*/*.jpg")), transform)
    each = []
    for alpha in ALPHAS[: sizes.alphas]:
        started = time.perf_counter()
        first.load_state_dict(interpolate(theta0, theta1, alpha))
        loading = time.perf_counter() - started
        each.append(papers.evaluate(first, files, device, available_cpus())[0] + loading)
    found["papers_fp32_each"] = each
    found["papers_fp32"] = float(np.median(each)) * len(ALPHAS)
    return found


def batches(sizes: Sizes, device: torch.device) -> dict[str, float]:
    """Images per second by the size of a batch, compiled, on pixels that are there."""
    model, side = classifier(sizes.model, sizes.classes, device)
    model, preprocessing = as_ours(model.eval()), Preprocessing(side)
    found = {}
    for size in (64, 128, 256, 512, 1024):
        pixels = torch.randint(0, 256, (size, side, side, 3), dtype=torch.uint8, device=device)
        passes = max(1, 4096 // size) if device.type == "cuda" else 1

        def work(count: int, pixels: Tensor = pixels) -> None:
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
                for _ in range(count):
                    model.features(preprocessing.normalise(pixels))

        work(2)
        found[str(size)] = passes * size / seconds(lambda: work(passes))  # noqa: B023
    return found


def rounding(sizes: Sizes, root: Path, device: torch.device) -> dict[str, Any]:
    """What bf16 changes: logits of random weights, and answers of the trained miniature model."""
    model, _ = ends(sizes, device)
    space, run = workspace(root, device)
    preprocessing = space.backbone(run).preprocessing
    images = space.evaluation_images(run, "id-test")
    pixels = space.store.evaluation(images, preprocessing)[:2048]
    compiled = as_ours(model)
    exact = head_logits(model.head, image_features(model, pixels, preprocessing, device), device)
    found: dict[str, Any] = {"logit_scale": 100.0, "spread": float(exact.std(axis=1).mean())}
    for name, kind, precision in [
        ("tf32", model, "tf32"),
        ("bf16", model, "bf16"),
        ("bf16_compiled", compiled, "bf16"),
    ]:
        features = image_features(kind, pixels, preprocessing, device, precision)  # type: ignore[arg-type]
        logits = head_logits(kind.head, features, device)
        found[name] = {
            "largest_difference": float(np.abs(logits - exact).max()),
            "same_answer": float((logits.argmax(1) == exact.argmax(1)).mean()),
        }
    return found
