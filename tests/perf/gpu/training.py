"""A training step: the papers' loop against the suite's, without data and from JPEGs."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from shiftbench.data.batches import WorkerPlace
from shiftbench.execution.feeding import batches, fresh_model
from shiftbench.execution.schedule import Schedule
from shiftbench.execution.training import Trainer
from shiftbench.methods.base import Batch
from shiftbench.methods.registry import METHODS
from shiftbench.models.classifier import ImageClassifier
from shiftbench.models.compiling import compile_blocks
from shiftbench.models.gpu import suit_gpu
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tests.perf.gpu import papers
from tests.perf.gpu.timing import interleaved, seconds
from tests.perf.gpu.world import Sizes, model_config, random_clip, workspace

MANY = 1_000_000  # steps, more than are ever done


def classifier(name: str, classes: int, device: torch.device) -> tuple[ImageClassifier, int]:
    """A classifier of random weights, and the side of its images."""
    config = model_config(name)
    clip = random_clip(name, device)
    head = nn.Linear(config["embed_dim"], classes, device=device)
    return ImageClassifier(clip.visual, head), config["vision_cfg"]["image_size"]


def ours(model: ImageClassifier, *, compiled: bool = True) -> ImageClassifier:
    """A copy as the suite has it on a GPU."""
    model = copy.deepcopy(model)
    suit_gpu(model)
    if compiled:
        compile_blocks(model)
    return model


class Ours:
    """The suite's loop on batches from somewhere."""

    def __init__(
        self,
        model: ImageClassifier,
        read: Callable[[range], Iterator[Batch]],
        batch: int,
        **settings: Any,
    ) -> None:
        kind = METHODS.load("full")
        method: Any = kind(kind.Config(batch_size=batch, **settings))
        schedule = Schedule(MANY, batch, batch, save_every=MANY, constant=True)
        self.trainer = Trainer(model, method, schedule, read, seed=0, place=WorkerPlace())
        self._done = 0

    def steps(self, count: int) -> None:
        """Some optimizer steps, and a look at their losses."""
        self._done += count
        self.trainer.run(until=self._done)


def repeated(images: Tensor, labels: Tensor) -> Callable[[range], Iterator[Batch]]:
    """The same batch again and again, on the device already."""
    return lambda steps: (Batch(images, labels, step=step) for step in steps)


def operations(name: str, classes: int, device: torch.device) -> dict[str, float]:
    """Floating-point operations of an image, forward alone and forward and back."""
    model, side = classifier(name, classes, device)
    images = torch.randn(2, 3, side, side, device=device)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model(images)
    with FlopCounterMode(display=False) as both:
        model(images).square().mean().backward()
    return {"forward": forward.get_total_flops() / 2, "training": both.get_total_flops() / 2}


def without_data(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """Seconds of a step of every variant, on a batch that is on the device."""
    model, side = classifier(sizes.model, sizes.classes, device)
    images = torch.randn(sizes.batch, 3, side, side, device=device)
    labels = torch.randint(sizes.classes, (sizes.batch,), device=device)
    read = repeated(images, labels)
    parts = 1
    reference = papers.Training(copy.deepcopy(model), images, labels, parts)
    try:
        seconds(lambda: reference.steps(1))
    except torch.OutOfMemoryError:
        del reference
        torch.cuda.empty_cache()
        parts = 4
        reference = papers.Training(copy.deepcopy(model), images, labels, parts)
    found: dict[str, Any] = {"papers_parts": parts}
    if device.type == "cuda":
        found["papers_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        torch.cuda.reset_peak_memory_stats()

    def with_precision(work: Callable[[int], None], tf32: bool) -> Callable[[int], None]:
        def steps(count: int) -> None:
            torch.set_float32_matmul_precision("high" if tf32 else "highest")
            work(count)
            torch.set_float32_matmul_precision("highest")

        return steps

    loops = {
        "ours_bf16": Ours(ours(model, compiled=False), read, sizes.batch, precision="bf16"),
        "ours_bf16_compiled": Ours(ours(model), read, sizes.batch, precision="bf16"),
    }
    for name, loop in loops.items():
        found[f"{name}_first_step"] = seconds(lambda loop=loop: loop.steps(1))  # type: ignore[misc]
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            loop.steps(1)
            found[f"{name}_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    slow = interleaved(
        {
            "papers_fp32": with_precision(reference.steps, tf32=False),
            "papers_tf32": with_precision(reference.steps, tf32=True),
        },
        max(2, sizes.rounds // 2),
        1,
    )
    fast = interleaved(
        {name: loop.steps for name, loop in loops.items()}, sizes.rounds, sizes.steps
    )
    found["step"] = {name: times.summary() for name, times in {**slow, **fast}.items()}
    return found


def from_files(sizes: Sizes, root: Path, device: torch.device) -> dict[str, Any]:
    """Seconds of a step that is fed from JPEGs, between steps that need no data."""
    found: dict[str, Any] = {}
    for decoder in ("pil", "turbo"):
        space, run = workspace(root, device)
        begun = time.perf_counter()
        model = fresh_model(space, run)
        prepared = time.perf_counter() - begun
        compile_blocks(model)
        kind = METHODS.load("full")
        method: Any = kind(kind.Config(batch_size=sizes.batch, precision="bf16", decoder=decoder))
        schedule = Schedule(MANY, sizes.batch, sizes.batch, save_every=MANY, constant=True)
        fed = Trainer(model, method, schedule, batches(space, run, method, schedule), seed=0)
        side = space.backbone(run).preprocessing.size
        free = Ours(
            model,
            repeated(
                torch.randn(sizes.batch, 3, side, side, device=device),
                torch.zeros(sizes.batch, dtype=torch.int64, device=device),
            ),
            sizes.batch,
            precision="bf16",
        )
        start = seconds(lambda fed=fed: fed.run(until=2))  # type: ignore[misc]
        free.steps(2)
        before = seconds(lambda free=free: free.steps(10)) / 10  # type: ignore[misc]
        fed.run(until=6)
        waited = fed.done.waited
        took = seconds(lambda fed=fed: fed.run(until=6 + sizes.fed)) / sizes.fed  # type: ignore[misc]
        after = seconds(lambda free=free: free.steps(10)) / 10  # type: ignore[misc]
        found[decoder] = {
            "prepared": prepared,
            "start": start,
            "step": took,
            "without_data": [before, after],
            "waited": (fed.done.waited - waited) / (took * sizes.fed),
            "images_per_second": sizes.batch / took,
        }
        del fed, free
    return found
