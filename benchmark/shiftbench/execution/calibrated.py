"""Speeds of this machine's devices, as ``shiftbench calibrate`` keeps them in the cache. No torch.

A file for each kind of device: one that was measured elsewhere may be copied into the folder, and
is what plans for such a device are made of.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shiftbench.core.errors import InputError, first_line
from shiftbench.core.files import written_atomically
from shiftbench.core.locations import cache_dir
from shiftbench.models.arithmetic import tower_of
from shiftbench.models.precision import Precision

Work = Literal["training", "prediction"]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class BackboneSpeed(_Closed):
    """Images per second of a backbone, by precision.

    Attributes:
        training: of optimizer steps.
        prediction: of forward passes.
        batch: images of a step, by precision.
    """

    training: Mapping[Precision, float] = Field(default_factory=dict)
    prediction: Mapping[Precision, float] = Field(default_factory=dict)
    batch: Mapping[Precision, int] = Field(default_factory=dict)


class Calibration(_Closed):
    """What a device was measured to compute.

    Attributes:
        device: its model, as rows name it.
        kind: whether it is a GPU or a processor; of a processor, speeds are of one core.
        measured: the day.
        versions: of the packages that computed.
        backbones: by name.
    """

    device: str
    kind: Literal["gpu", "cpu"]
    measured: str
    versions: Mapping[str, str]
    backbones: Mapping[str, BackboneSpeed]

    def images(self, backbone: str, work: Work, precision: Precision) -> float | None:
        """Images per second of a backbone, or as its arithmetic compares with one measured.

        Returns:
            ``None`` where nothing was measured in this precision, or the arithmetic is not known.
        """
        speeds: dict[str, float] = {
            name: speed
            for name, of in self.backbones.items()
            if (speed := getattr(of, work).get(precision)) is not None
        }
        if backbone in speeds:
            return speeds[backbone]
        towers = {name: tower for name in speeds if (tower := tower_of(name)) is not None}
        tower = tower_of(backbone)
        if tower is None or not towers:
            return None
        flops = tower.flops
        like = min(towers, key=lambda name: abs(math.log(towers[name].flops / flops)))
        return speeds[like] * towers[like].flops / flops


def folder() -> Path:
    """Where calibrations are kept."""
    return cache_dir() / "calibration"


def calibrations() -> list[Calibration]:
    """All that are kept.

    Raises:
        InputError: a file is none.
    """
    return [_read(file) for file in sorted(folder().glob("*.json"))]


def keep(calibration: Calibration) -> Path:
    """Keep a calibration; what else was measured before on the device stays.

    Returns:
        the file.
    """
    file = folder() / f"{re.sub(r'[^A-Za-z0-9]+', '-', calibration.device).strip('-')}.json"
    if file.exists():
        together = {**_read(file).backbones, **calibration.backbones}
        calibration = calibration.model_copy(update={"backbones": together})
    file.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(file) as temporary:
        temporary.write_text(calibration.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return file


def _read(file: Path) -> Calibration:
    try:
        return Calibration.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, ValidationError) as error:
        raise InputError(
            f"{file}: is no calibration ({first_line(error)}); delete it, and "
            "shiftbench calibrate makes another"
        ) from error
