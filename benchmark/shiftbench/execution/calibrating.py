"""Measures how many images a second a device trains on and predicts, backbone by backbone. No ray.

What is timed are the suite's own steps and forward passes, on random weights and images that are
there: nothing is downloaded, and decoding is not counted.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from shiftbench.core.provenance import device_name, package_versions
from shiftbench.data.batches import WorkerPlace
from shiftbench.data.preprocessing import Preprocessing
from shiftbench.evaluation.inference import image_features
from shiftbench.execution.calibrated import BackboneSpeed, Calibration
from shiftbench.execution.schedule import Schedule
from shiftbench.execution.training import Trainer
from shiftbench.methods.base import Batch
from shiftbench.methods.registry import METHODS
from shiftbench.models.backbones import image_tower
from shiftbench.models.classifier import ImageClassifier
from shiftbench.models.gpu import suit_gpu
from shiftbench.models.precision import Precision
from shiftbench.models.towers import image_side

CLASSES = 1000
LONG_S = 0.4
"""Seconds of a step or a pass from which on more images would not compute faster."""
LARGEST = 256
"""Images of a step."""
ROUNDS = 20
PRECISIONS: Mapping[str, tuple[Precision, ...]] = {"cpu": ("fp32",), "cuda": ("bf16", "fp32")}
"""What is measured on a device."""
_MANY = 1_000_000  # steps, more than are ever done


@dataclass(frozen=True)
class Measured:
    """A line of a calibration: one backbone in one precision, images and steps a second."""

    backbone: str
    precision: Precision
    training: float
    prediction: float
    batch: int

    @property
    def steps(self) -> float:
        """Optimizer steps a second, of ``batch`` images."""
        return self.training / self.batch


def calibrate(
    backbones: Sequence[str],
    device: torch.device,
    seconds: float,
    show: Callable[[Measured], None] = lambda measured: None,
) -> Calibration:
    """Measure backbones on a device; of a processor on one core, as a worker has by default.

    Args:
        backbones: by name; their weights need not be there.
        device: to measure.
        seconds: for all of them together, about.
        show: called with each line as it is known.

    Raises:
        InputError: a backbone is unknown.
    """
    precisions = PRECISIONS[device.type]
    towers = {name: image_tower(name) for name in backbones}
    end = time.monotonic() + seconds
    works = len(backbones) * len(precisions) * 2
    found: dict[str, BackboneSpeed] = {}

    def share() -> float:
        """Seconds of the next work: an even part of what is left."""
        nonlocal works
        works -= 1
        return max(0.0, end - time.monotonic()) / (works + 1)

    with _threads(1):
        for name, tower in towers.items():
            model = classifier(tower, device)
            side = image_side(tower)
            lines = []
            for precision in precisions:
                training, batch = trained(model, side, precision, device, share())
                prediction = predicted(model, side, precision, device, share())
                lines.append(Measured(name, precision, training, prediction, batch))
                show(lines[-1])
            found[name] = BackboneSpeed(
                training={line.precision: line.training for line in lines},
                prediction={line.precision: line.prediction for line in lines},
                batch={line.precision: line.batch for line in lines},
            )
    return Calibration(
        device=device_name(device),
        kind="cpu" if device.type == "cpu" else "gpu",
        measured=datetime.now(UTC).date().isoformat(),
        versions=package_versions(),
        backbones=found,
    )


def classifier(tower: nn.Module, device: torch.device) -> ImageClassifier:
    """A classifier of random weights on a device.

    Args:
        tower: on the meta device.
        device: for its copy.
    """
    side = image_side(tower)
    with torch.no_grad():
        width = tower(torch.empty(1, 3, side, side, device="meta")).shape[-1]
        visual = copy.deepcopy(tower).to_empty(device=device)
        for tensor in [*visual.parameters(), *visual.buffers()]:
            if tensor.is_floating_point():
                tensor.normal_(0, 0.02)
    for layer in visual.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.reset_running_stats()
    model = ImageClassifier(visual, nn.Linear(width, CLASSES, device=device))
    if device.type == "cuda":
        suit_gpu(model)
    return model


def trained(
    model: ImageClassifier, side: int, precision: Precision, device: torch.device, seconds: float
) -> tuple[float, int]:
    """Images a second of optimizer steps, and images of a step."""

    def steps(batch: int) -> Callable[[], None]:
        kind = METHODS.load("full")
        method: Any = kind(kind.Config(batch_size=batch, precision=precision))  # type: ignore[call-arg]
        schedule = Schedule(_MANY, batch, batch, save_every=_MANY, constant=True)
        images = torch.randn(batch, 3, side, side, device=device)
        labels = torch.arange(batch, device=device) % CLASSES

        def read(of: range) -> Iterator[Batch]:
            return (Batch(images, labels, step=step) for step in of)

        trainer = Trainer(model, method, schedule, read, seed=0, place=WorkerPlace())
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            trainer.run(until=done)

        return step

    return _images_a_second(steps, device, seconds)


def predicted(
    model: ImageClassifier, side: int, precision: Precision, device: torch.device, seconds: float
) -> float:
    """Images a second of forward passes."""
    preprocessing = Preprocessing(side)
    model.eval()

    def passes(batch: int) -> Callable[[], None]:
        pixels = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), np.uint8)

        def encode() -> None:
            image_features(model, pixels, preprocessing, device, precision)

        return encode

    return _images_a_second(passes, device, seconds)[0]


def _images_a_second(
    work: Callable[[int], Callable[[], None]], device: torch.device, seconds: float
) -> tuple[float, int]:
    """Speed of some work on so many images that more would not be faster, and how many these are.

    Args:
        work: makes what is done with a number of images at once.
        device: that does it.
        seconds: for all of this, about; twice the work is done in any case.
    """
    end = time.monotonic() + seconds
    batch = 4 if device.type == "cpu" else 32
    do = work(batch)
    _timed(do, device)  # the first is no measure
    each = _timed(do, device)
    while each < LONG_S and batch < LARGEST and time.monotonic() + 6 * each < end:
        try:
            larger = work(batch * 2)
            _timed(larger, device)
        except torch.OutOfMemoryError:
            break
        do, batch, each = larger, batch * 2, _timed(larger, device)
    times = [each]
    while len(times) < ROUNDS and time.monotonic() + each < end:
        times.append(_timed(do, device))
    return batch / median(times), batch


def _timed(do: Callable[[], None], device: torch.device) -> float:
    """Seconds of a GPU, or of a processor: those of this process, whatever else works there."""
    if device.type == "cpu":
        begun = time.process_time()
        do()
        return time.process_time() - begun
    begun = time.perf_counter()
    do()
    torch.cuda.synchronize(device)
    return time.perf_counter() - begun


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Compute with so many threads in the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
