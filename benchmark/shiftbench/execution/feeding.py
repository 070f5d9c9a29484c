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
from shiftbench.execution.schedule import make_schedule
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


def schedule_of(
    workspace: Workspace, run: Run, method: TrainedMethod[MethodConfig], workers: int = 1
) -> Schedule:
    """The schedule of a run's training, shared by so many workers."""
    return make_schedule(
        len(workspace.data(run).train),
        method.training,
        workers,
        workspace.resources.micro_batch if method.inputs == "images" else None,
        run.budget.steps,
        whole_batch=method.whole_batch,
    )


def context(
    workspace: Workspace,
    run: Run,
    method: TrainedMethod[MethodConfig],
    schedule: Schedule,
    place: WorkerPlace = WorkerPlace(),
) -> Context:
    """The context that a method's ``prepare`` is given.

    Its examples come in batches as large as a worker holds in the training.
    """
    batch = workspace.resources.micro_batch or schedule.batch_size // place.size

    def examples() -> Iterator[Batch]:
        return _plain_batches(workspace, run, method, batch)

    return Context(parents(workspace, run), examples, schedule.steps, run.seed, place)


def probe(workspace: Workspace, run: Run, method: TrainedMethod[MethodConfig]) -> Batch:
    """The first two examples of the training set, un-augmented, with captions where asked for."""
    inputs, labels, *_ = next(_plain_batches(workspace, run, method, 2))
    prompts = workspace.pretrained(run).prompts
    if not method.captions or prompts is None:
        return Batch(inputs, labels)
    return Batch(inputs, labels, prompts[0, labels.cpu()].to(workspace.device))


def _plain_batches(
    workspace: Workspace, run: Run, method: TrainedMethod[MethodConfig], size: int
) -> Iterator[Batch]:
    """The training set once, in its order, un-augmented, in batches of ``size`` examples."""
    examples = workspace.data(run).train
    preprocessing = workspace.backbone(run).preprocessing
    device = workspace.device
    pixels = DecodedOnAccess(examples.images, preprocessing)
    labels = torch.from_numpy(examples.labels)
    known: Array | None = None
    if method.inputs == "features":
        known = workspace.pretrained_features(run, examples, pixels)
    for start in range(0, len(examples), size):
        part = slice(start, start + size)
        if known is not None:
            inputs = torch.from_numpy(np.array(known[part])).to(device)
        else:
            raw = torch.from_numpy(np.array(pixels[part])).to(device)
            inputs = preprocessing.normalise(raw)
        yield Batch(inputs, labels[part].to(device))


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
