"""How many images a second: measured where something like it has run, else from published numbers.

One table says what kinds of devices have been seen to compute in published benchmarks. It knows
nothing of decoding, of small batches, of other processes: an estimate from it is not calibrated,
and says so. What ``shiftbench calibrate`` measured on such a device takes its place, and before
that what the rows of a results folder say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from shiftbench.core.errors import InputError
from shiftbench.core.words import nearest
from shiftbench.execution.calibrated import Calibration, calibrations
from shiftbench.models.arithmetic import tower_of

if TYPE_CHECKING:
    from typing import Any

    from shiftbench.execution.calibrated import Work
    from shiftbench.methods.base import TrainedMethod
    from shiftbench.models.precision import Precision
    from shiftbench.suite.file import Resources
    from shiftbench.suite.plan import Run

TIMM = "timm's results/benchmark-{}.csv, vit_base_patch16_224"
OURS = "docs/performance.md, ViT-B/16"
SHEET = "the data sheet's dense bf16 or fp16 rate, of which 40 % are counted on"
SHARE = 0.4
"""Of a data sheet's rate: the least that the measured GPUs below reach (H200: 403 of 989)."""
BACKWARD = 3
"""A training step costs as much as so many forward passes of its images."""
SLOWER = {"bf16": 1.0, "tf32": 0.25, "fp32": 0.1}
"""Speed of a GPU in other precisions than the table's, as measured (docs/performance.md)."""


@dataclass(frozen=True)
class Device:
    """A kind of device, and what it has been seen to compute.

    Attributes:
        name: for people.
        kind: whether it is a GPU or a processor's core.
        training: operations a second in training; of a processor, of one core.
        prediction: the same in evaluation.
        source: where the numbers are from.
    """

    name: str
    kind: Literal["gpu", "cpu"]
    training: float
    prediction: float
    source: str

    @property
    def memory(self) -> float:
        """Bytes of a GPU; the least of those sold under the name, 0 where that is not known."""
        return MEMORY_GB.get(self.name, 0) * 1e9

    def is_kind_of(self, model: str | None) -> bool:
        """True for a model, as rows name it, that is of this kind; processors are all of one."""
        named = None if model is None else _named(model)
        if named is None:
            return model == self.name or self.kind == "cpu"
        return named.name == self.name


def _sheet(name: str, peak: float) -> Device:
    return Device(name, "gpu", SHARE * peak, SHARE * peak, SHEET)


CPU = Device(
    # 8.33 images/s of 35.13 · 10⁹ operations on 14 cores, batch 1.
    *("processor", "cpu", 21e9, 21e9, TIMM.format("infer-fp32-nchw-pt240-cpu-i7_12700h-dynamo"))
)
GPUS = (
    Device("H200", "gpu", 403e12, 401e12, OURS),
    Device("H100", "gpu", 403e12, 401e12, f"{OURS}, on an H200, whose arithmetic is the same"),
    Device("RTX PRO 6000", "gpu", 98e12, 164e12, TIMM.format("infer-amp-nchw-pt291-cu130-pro6000")),
    Device("RTX 5090", "gpu", 83e12, 138e12, TIMM.format("infer-amp-nchw-pt291-cu130-5090")),
    Device("RTX 4090", "gpu", 60e12, 100e12, TIMM.format("infer-amp-nhwc-pt240-cu124-rtx4090")),
    Device("RTX 3090", "gpu", 41e12, 55e12, TIMM.format("{train-…-pt112,infer-…-pt240}-rtx3090")),
    _sheet("B200", 2250e12),
    _sheet("A100", 312e12),
    _sheet("L40S", 362e12),
    _sheet("L4", 121e12),
    _sheet("A10G", 70e12),
    _sheet("A10", 125e12),
    _sheet("V100", 125e12),
    _sheet("T4", 65e12),
)
"""GPUs that a name is looked up in, in this order. Where training was not published, 60 % of the
rate of evaluation are counted on (75 % were reached on the RTX 3090)."""
MEMORY_GB = {
    device: memory
    for memory, names in {
        16: ("V100", "T4"),
        24: ("RTX 4090", "RTX 3090", "L4", "A10G", "A10"),
        32: ("RTX 5090",),
        40: ("A100",),
        48: ("L40S",),
        80: ("H100",),
        96: ("RTX PRO 6000",),
        141: ("H200",),
        180: ("B200",),
    }.items()
    for device in names
}
"""Of the GPUs, by name."""
ASSUMED = "A100"
"""The GPU that a plan is made for where none is seen and none is named."""
DRIVER = Path("/proc/driver/nvidia/gpus")

Kind: TypeAlias = tuple[str, str, str]
"""Backbone; what a training is on, or the method that is evaluated; precision."""


@dataclass(frozen=True)
class Speeds:
    """Measured throughput.

    Attributes:
        training: images per second and worker, by backbone, what the method trains on, and
            precision.
        prediction: images per second, by backbone, method and precision.
    """

    training: Mapping[Kind, float] = field(default_factory=dict)
    prediction: Mapping[Kind, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Rate:
    """Images a second of one worker.

    Attributes:
        images: each second.
        source: runs like these, a calibration of such a device, or the table.
    """

    images: float
    source: Literal["rows", "calibrated", "published"]


@dataclass(frozen=True)
class Rates:
    """Images a second of runs.

    Args:
        measured: where something like it has run.
        device: that the rest is estimated for.
        share: of a GPU, or cores, that a worker has.
        calibration: of such a device, if there is one.
    """

    measured: Speeds
    device: Device
    share: float = 1.0
    calibration: Calibration | None = None

    def training(self, run: Run, method: TrainedMethod[Any]) -> Rate | None:
        """Of a worker in training; ``None`` where neither rows nor the table tell."""
        precision = method.training.precision
        if speed := self.measured.training.get((run.backbone, method.inputs, precision)):
            return Rate(speed, "rows")
        if method.inputs != "images":  # each is encoded once, and what comes after costs nothing
            return self._of_device(run, "prediction", run.budget.evaluation_precision)
        return self._of_device(run, "training", precision)

    def prediction(self, run: Run) -> Rate | None:
        """In evaluation."""
        precision = run.budget.evaluation_precision
        if speed := self.measured.prediction.get((run.backbone, run.method, precision)):
            return Rate(speed, "rows")
        return self._of_device(run, "prediction", precision)

    def _of_device(self, run: Run, work: Work, precision: Precision) -> Rate | None:
        """As such a device was calibrated, or else as the table has it."""
        if self.calibration is not None:
            images = self.calibration.images(run.backbone, work, precision)
            if images is not None:
                return Rate(images * self.share, "calibrated")
        tower = tower_of(run.backbone)
        if tower is None:
            return None
        slower = SLOWER[precision] if self.device.kind == "gpu" else 1.0
        passes = BACKWARD if work == "training" else 1
        flops: float = getattr(self.device, work)
        return Rate(flops * slower * self.share / (passes * tower.flops), "published")


def calibration_of(device: Device) -> Calibration | None:
    """The calibration of a kind of device; of several, that of the last day.

    Raises:
        InputError: a file among the calibrations is none.
    """
    alike = [
        found
        for found in calibrations()
        if found.kind == device.kind and device.is_kind_of(found.device)
    ]
    return max(alike, key=lambda found: found.measured, default=None)


def device_of(
    resources: Resources,
    name: str | None = None,
    driver: Path = DRIVER,
    option: str = "--device",
) -> Device:
    """The device that a plan's times are estimated for.

    Args:
        resources: of a worker: with GPUs it is the one that this machine has, or ``ASSUMED``.
        name: of a GPU, to be meant whatever this machine has.
        driver: where the driver of GPUs tells their models.
        option: of a command, that named it.

    Raises:
        InputError: the table has no such device.
    """
    if name is not None:
        found = _named(name)
        if found is None:
            known = [device.name for device in (*GPUS, CPU)]
            raise InputError(f"{option} {name}: not in the table{nearest(name, known, len(known))}")
        return found
    if not resources.gpus_per_worker:
        return CPU
    (assumed,) = (device for device in GPUS if device.name == ASSUMED)
    models = gpu_models(driver)
    for model in models:
        if (device := _named(model)) is not None:
            return device
    if models:  # what its own rows say counts; before there are any, it is taken to be like that
        return replace(assumed, name=models[0], source=f"taken to be like {ASSUMED}: {SHEET}")
    return assumed


def gpu_models(driver: Path = DRIVER) -> list[str]:
    """The models of this machine's NVIDIA GPUs, as the driver tells them; no torch."""
    models = []
    for file in sorted(driver.glob("*/information")):
        lines = dict(
            line.split(":", 1)
            for line in file.read_text(errors="replace").splitlines()
            if ":" in line
        )
        models.append(lines.get("Model", "").strip())
    return models


def _named(name: str) -> Device | None:
    """The first device of the table whose name is in a model's name."""
    words = name.lower().replace("-", " ").split()
    for device in (*GPUS, CPU):
        wanted = device.name.lower().split()
        if any(words[i : i + len(wanted)] == wanted for i in range(len(words))):
            return device
    return None
