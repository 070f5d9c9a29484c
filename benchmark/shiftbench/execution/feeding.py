"""Input of a training: a model to start from, and batches in an order that only seeds decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from shiftbench.data.batches import (
    AugmentedImages,
    WorkerPlace,
    caption_templates,
    feature_batches,
    image_batches,
    micro_batches,
)
from shiftbench.evaluation.inference import Array, DecodedOnAccess
from shiftbench.execution.variants import parents
from shiftbench.methods.base import Batch, Context, TrainedMethod

if TYPE_CHECKING:
    from shiftbench.execution.schedule import Schedule
    from shiftbench.execution.workspace import Workspace
    from shiftbench.methods.config import MethodConfig
    from shiftbench.models.classifier import ImageClassifier
    from shiftbench.suite.plan import Run


def fresh_model(workspace: Workspace, run: Run) -> ImageClassifier:
    """A pretrained model, ready for a method's ``prepare``, on the device."""
    model = deepcopy(workspace.pretrained(run)).to(workspace.device)
    model.head.requires_grad_(workspace.architecture(run).head == "linear")
    model.chunk = workspace.resources.micro_batch
    return model


def micro_batch(workspace: Workspace, method: TrainedMethod[MethodConfig]) -> int | None:
    """Examples of a method that a worker holds at a time; ``None`` for its whole share."""
    whole = method.whole_batch or method.inputs != "images"
    return None if whole else workspace.resources.micro_batch


def context(
    workspace: Workspace,
    run: Run,
    method: TrainedMethod[MethodConfig],
    place: WorkerPlace,
    steps: int,
) -> Context:
    """The context that a method's ``prepare`` is given."""
    examples = workspace.data(run).train
    preprocessing = workspace.backbone(run).preprocessing
    device = workspace.device
    batch = workspace.resources.micro_batch or 256

    def images() -> Iterator[Batch]:
        pixels = DecodedOnAccess(examples.images, preprocessing)
        labels = torch.from_numpy(examples.labels)
        known: Array | None = None
        if method.inputs == "features":
            known = workspace.pretrained_features(run, examples, pixels)
        for start in range(0, len(examples), batch):
            part = slice(start, start + batch)
            if known is not None:
                inputs = torch.from_numpy(np.array(known[part])).to(device)
            else:
                raw = torch.from_numpy(np.array(pixels[part])).to(device)
                inputs = preprocessing.normalise(raw)
            yield Batch(inputs, labels[part].to(device))

    return Context(parents(workspace, run), images, steps, run.seed, place)


def batches(
    workspace: Workspace,
    run: Run,
    method: TrainedMethod[MethodConfig],
    schedule: Schedule,
    place: WorkerPlace = WorkerPlace(),
    order_seed: int | None = None,
) -> Callable[[range], Iterator[Batch]]:
    """This worker's micro-batches of a range of steps, on the device.

    Args:
        workspace: of this process.
        run: whose training set is read.
        method: says what it wants.
        schedule: how steps are cut up.
        place: this worker among those that share the run.
        order_seed: of order, augmentation and captions; ``None`` for the run's.
    """
    seed = run.seed if order_seed is None else order_seed
    examples = workspace.data(run).train
    preprocessing = workspace.backbone(run).preprocessing
    prompts = workspace.pretrained(run).prompts
    device, on_gpu = workspace.device, workspace.device.type == "cuda"
    accumulate = schedule.batch_size // place.size // schedule.micro_batch

    def order(steps: range) -> Iterator[list[tuple[int, int]]]:
        n, batch, micro = len(examples), schedule.batch_size, schedule.micro_batch
        return micro_batches(n, batch, seed, steps, place, micro)

    def captions(labels: Tensor, positions: Tensor) -> Tensor | None:
        if not method.captions or prompts is None:
            return None
        templates = caption_templates(positions.numpy(), len(prompts), seed)
        return prompts[torch.from_numpy(templates), labels].to(device, non_blocking=True)

    def images(steps: range) -> Iterator[Batch]:
        decoded = workspace.store.raw(examples, workspace.resources.limits.decoded_bytes)
        dataset = AugmentedImages(decoded, examples.labels, preprocessing, seed)
        loader_workers = workspace.resources.data_workers
        parts = image_batches(dataset, order(steps), loader_workers, on_gpu)
        for i, (pixels, labels, positions) in enumerate(parts):
            yield Batch(
                preprocessing.normalise(pixels.to(device, non_blocking=True)),
                labels.to(device, non_blocking=True),
                captions(labels, positions),
                steps[i // accumulate],
            )

    def features(steps: range) -> Iterator[Batch]:
        pixels = DecodedOnAccess(examples.images, preprocessing)
        known = workspace.pretrained_features(run, examples, pixels)
        parts = feature_batches(known, examples.labels, order(steps))
        for i, (inputs, labels) in enumerate(parts):
            yield Batch(inputs.to(device), labels.to(device), None, steps[i // accumulate])

    return images if method.inputs == "images" else features
