"""Input of a training: a model to start from, and batches in an order that only seeds decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from shiftbench.data.batches import (
    WorkerPlace,
    caption_templates,
    feature_batches,
    micro_batches,
)
from shiftbench.data.loading import ImageLoader
from shiftbench.evaluation.inference import Array, DecodedOnAccess
from shiftbench.execution.evaluated import pretrained_features
from shiftbench.execution.memory import Memory
from shiftbench.execution.schedule import make_schedule
from shiftbench.execution.variants import parents
from shiftbench.methods.base import Batch, Context, TrainedMethod
from shiftbench.models.transfer import Upload, ahead

if TYPE_CHECKING:
    from shiftbench.data.shared import SharedBatches
    from shiftbench.execution.schedule import Schedule
    from shiftbench.execution.workspace import Workspace
    from shiftbench.methods.config import MethodConfig, TrainingConfig
    from shiftbench.models.classifier import ImageClassifier
    from shiftbench.suite.plan import Run


def fresh_model(workspace: Workspace, run: Run) -> ImageClassifier:
    """A pretrained model, ready for a method's ``prepare``, on the device."""
    model = workspace.copied(run)
    model.head.requires_grad_(workspace.architecture(run).head == "linear")
    model.chunk = workspace.setup.resources_of(run.id).micro_batch
    return model


def schedule_of(
    workspace: Workspace, run: Run, method: TrainedMethod[MethodConfig], workers: int = 1
) -> Schedule:
    """The schedule of a run's training, shared by so many workers."""
    return make_schedule(
        len(workspace.data(run).train),
        method.training,
        workers,
        workspace.setup.resources_of(run.id).micro_batch if method.inputs == "images" else None,
        run.budget.steps,
        whole_batch=method.whole_batch,
    )


def memory_of(workspace: Workspace, run: Run) -> Memory:
    """What a run's training may hold of a step, before anything is known of the memory."""
    resources = workspace.setup.resources_of(run.id)
    return Memory(resources.activation_checkpointing, given=resources.micro_batch is not None)


def prepared(
    workspace: Workspace,
    run: Run,
    method: TrainedMethod[MethodConfig],
    schedule: Schedule,
    memory: Memory,
    fresh: Callable[[], ImageClassifier],
    place: WorkerPlace = WorkerPlace(),
) -> ImageClassifier:
    """A model that the method has made ready, which may look at many examples with gradient.

    Args:
        workspace: of this process.
        run: to be trained.
        method: of the run, or a candidate of its search.
        schedule: of the training.
        memory: what may be held at a time; less of it where that is too much.
        fresh: gives a pretrained model, again for every attempt.
        place: this worker among those that share the training.
    """
    while True:
        model = fresh()
        memory.apply(model)
        examples = context(workspace, run, method, schedule, place, memory.micro_batch)
        try:
            method.ready(model, examples)
        except torch.OutOfMemoryError:
            # Workers that share a training may wait for each other here.
            if place.size > 1 or not memory.less(method, schedule.batch_size):
                raise
        else:
            return model


def context(
    workspace: Workspace,
    run: Run,
    method: TrainedMethod[MethodConfig],
    schedule: Schedule,
    place: WorkerPlace = WorkerPlace(),
    held: int | None = None,
) -> Context:
    """The context that a method's ``prepare`` is given.

    Its examples come in batches as large as a worker holds in the training: ``held`` where that was
    found, else what the suite says, else a worker's share.
    """
    given = workspace.setup.resources_of(run.id).micro_batch
    batch = held or given or schedule.batch_size // place.size

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
    examples = workspace.training_images(run, method)
    preprocessing = workspace.backbone(run).preprocessing
    device = workspace.device
    pixels = DecodedOnAccess(examples.images, preprocessing)
    labels = torch.from_numpy(examples.labels)
    known: Array | None = None
    if method.inputs == "features":
        known = pretrained_features(workspace, run, examples, pixels)
    source = pixels if known is None else known
    parts = [slice(start, start + size) for start in range(0, len(examples), size)]
    read = ahead(lambda part: torch.from_numpy(np.array(source[part])), parts, depth=2)
    for part, values in zip(parts, read, strict=True):
        inputs = values.to(device)
        if known is None:
            inputs = preprocessing.normalise(inputs)
        yield Batch(inputs, labels[part].to(device))


def batches(
    workspace: Workspace,
    run: Run,
    method: TrainedMethod[MethodConfig],
    schedule: Schedule,
    place: WorkerPlace = WorkerPlace(),
    order_seed: int | None = None,
    shared: SharedBatches | None = None,
) -> Callable[[range], Iterator[Batch]]:
    """This worker's micro-batches of a range of steps, on the device.

    Args:
        workspace: of this process.
        run: whose training set is read.
        method: says what it wants.
        schedule: how steps are cut up.
        place: this worker among those that share the run.
        order_seed: of order, augmentation and captions; ``None`` for the run's.
        shared: images that others have decoded already, and may want from this process.
    """
    seed = run.seed if order_seed is None else order_seed
    examples = workspace.training_images(run, method)
    preprocessing = workspace.backbone(run).preprocessing
    prompts = workspace.pretrained(run).prompts
    device = workspace.device
    accumulate = schedule.batch_size // place.size // schedule.micro_batch

    def order(steps: range) -> Iterator[list[tuple[int, int]]]:
        n, batch, micro = len(examples), schedule.batch_size, schedule.micro_batch
        return micro_batches(n, batch, seed, steps, place, micro)

    def captions(labels: Tensor, positions: Tensor) -> Tensor | None:
        if not method.captions or prompts is None:
            return None
        templates = caption_templates(positions.numpy(), len(prompts), seed)
        tokens = prompts[torch.from_numpy(templates), labels]
        return tokens.pin_memory() if device.type == "cuda" else tokens

    def images(steps: range) -> Iterator[Batch]:
        upload = Upload(device)
        decoding, read = loader(workspace, run, method), order(steps)
        stream = decoding.stream(read, seed)
        if shared is not None:
            stream = shared.stream(decoding, _form(method.training), read, seed)
        for i, pieces in enumerate(stream):
            pixels, labels, positions = zip(*pieces, strict=True)
            tokens = captions(torch.cat(labels), torch.cat(positions))
            on_cpu = [pixels, labels] if tokens is None else [pixels, labels, [tokens]]
            moved = upload(*on_cpu)
            yield Batch(
                preprocessing.normalise(moved[0]),
                moved[1],
                None if tokens is None else moved[2],
                steps[i // accumulate],
            )

    def features(steps: range) -> Iterator[Batch]:
        pixels = DecodedOnAccess(examples.images, preprocessing)
        known = pretrained_features(workspace, run, examples, pixels)
        parts = feature_batches(known, examples.labels, order(steps))
        for i, (inputs, labels) in enumerate(parts):
            yield Batch(inputs.to(device), labels.to(device), None, steps[i // accumulate])

    return images if method.inputs == "images" else features


def _form(training: TrainingConfig) -> str:
    """What of a training's settings its pixels depend on, as a part of a file's name."""
    kept = "files" if training.store is None else training.store.form.key()
    return f"{training.decoder}-{kept}"


def loader(workspace: Workspace, run: Run, method: TrainedMethod[MethodConfig]) -> ImageLoader:
    """What decodes the run's training images, kept for the next run, rung or trial on them."""
    preprocessing, settings = workspace.backbone(run).preprocessing, method.training

    def make() -> ImageLoader:
        examples = workspace.training_images(run, method)
        images = examples.images
        if settings.store is None:
            limit = workspace.resources.limits.decoded_bytes
            images = workspace.store.decoded(examples, limit)
        return ImageLoader(
            images,
            examples.labels,
            preprocessing,
            settings.decoder,
            workspace.data_workers,
            pin_memory=workspace.device.type == "cuda",
        )

    key = (workspace.data_key(run), preprocessing.key(), settings.decoder, settings.store)
    return workspace.loaders.get(key, make)
