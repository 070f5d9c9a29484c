"""Every kind of source that a task may name; see the modules of the families for each."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from shiftbench.data.base import AbsentError, Closed, Documented, Finding, SourceBase
from shiftbench.data.cifar import Cifar10, Cifar10C, Cifar101, Cifar102
from shiftbench.data.folder import ImageFolder
from shiftbench.data.imagenet import (
    ImageNet,
    ImageNetA,
    ImageNetC,
    ImageNetR,
    ImageNetSketch,
    ImageNetV2,
    ObjectNet,
)
from shiftbench.data.parquet import Parquet
from shiftbench.data.wilds import FMoW, IWildCam

__all__ = [
    "AbsentError",
    "Cifar10",
    "Cifar10C",
    "Cifar101",
    "Cifar102",
    "Closed",
    "Documented",
    "FMoW",
    "Finding",
    "IWildCam",
    "ImageFolder",
    "ImageNet",
    "ImageNetA",
    "ImageNetC",
    "ImageNetR",
    "ImageNetSketch",
    "ImageNetV2",
    "ObjectNet",
    "Parquet",
    "Source",
    "SourceBase",
]

Source = Annotated[
    ImageNet
    | ImageNetV2
    | ImageNetR
    | ImageNetSketch
    | ImageNetA
    | ObjectNet
    | ImageNetC
    | Cifar10
    | Cifar101
    | Cifar102
    | Cifar10C
    | IWildCam
    | FMoW
    | ImageFolder
    | Parquet,
    Field(discriminator="kind"),
]
