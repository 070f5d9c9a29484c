"""A classifier and data so small that a training takes milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmark import plugins
from benchmark.data.batches import World, micro_batches
from benchmark.methods.base import Method, TrainingConfig
from benchmark.models.classifier import ImageClassifier
from benchmark.schedule import Schedule
from tests.methods.settings import SETTINGS

CLASSES = 3
EXAMPLES = 30


def make_method(name: str, **changes: object) -> Method[TrainingConfig]:
    """A method with its setting of the table."""
    cls = plugins.method(name)
    return cls(cls.Config(**{**SETTINGS[name], **changes}))  # type: ignore[arg-type, return-value]


def make_model(seed: int = 0) -> ImageClassifier:
    """A two-layer image tower over 3×4×4 images and a head."""
    torch.manual_seed(seed)
    tower = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.GELU(), nn.Linear(16, 8))
    return ImageClassifier(tower, nn.Linear(8, CLASSES))


def make_examples() -> tuple[Tensor, Tensor]:
    """Images (30, 3, 4, 4) whose mean tells the class, and labels (30,)."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(EXAMPLES) % CLASSES
    images = torch.randn(EXAMPLES, 3, 4, 4, generator=generator) + labels.view(-1, 1, 1, 1)
    return images, labels


def make_batches(
    method: Method[TrainingConfig], model: ImageClassifier, schedule: Schedule, world: World
) -> Callable[[range], Iterator[tuple[Tensor, Tensor]]]:
    """Batches of the examples, as features of ``model`` where the method trains on those."""
    images, labels = make_examples()
    with torch.no_grad():
        inputs = model.features(images) if method.inputs == "features" else images

    def batches(steps: range) -> Iterator[tuple[Tensor, Tensor]]:
        size, micro = schedule.batch_size, schedule.micro_batch
        for pairs in micro_batches(EXAMPLES, size, 0, steps, world, micro):
            indices = torch.tensor([index for _, index in pairs])
            yield inputs[indices], labels[indices]

    return batches
