"""Settings of methods: what a suite may say of them, typed and closed."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from shiftbench.data.shards import Form
from shiftbench.models.precision import Precision


class MethodConfig(BaseModel):
    """Settings of a method. Every field is part of a run's identity; unknown keys are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True
    )

    @classmethod
    def of_trial(cls, settings: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of a trial of a search; for those of which others must follow.

        Args:
            settings: all of a configuration, as JSON.
            values: what the trial has instead, by name.
        """
        return {**settings, **values}


class StoreConfig(MethodConfig):
    """Training images that are shrunk once and kept, as FFCV does (arXiv 2306.12517)."""

    side: Annotated[
        int,
        Field(ge=16, description="pixels of the shorter side; images that are smaller stay so"),
    ]
    format: Annotated[
        Literal["uint8", "jpeg"],
        Field(description="uint8: pixels, nothing to decode; jpeg: quality 95, a seventh as large"),
    ] = "uint8"

    @property
    def form(self) -> Form:
        """The same, for the store."""
        return Form(self.side, self.format)


class _IsFile:
    """Marks settings that are a file or folder of the user's."""


FileOfSuite = Annotated[str, _IsFile()]
"""A path relative to the suite's file; of a run's identity is not the path but what is there."""


@functools.cache
def file_settings(config: type[MethodConfig]) -> frozenset[str]:
    """Names of the settings that are files or folders."""
    return frozenset(
        name
        for name, field in config.model_fields.items()
        if any(isinstance(mark, _IsFile) for mark in field.metadata)
    )


def file_digests(config: MethodConfig) -> Mapping[str, str]:
    """The SHA-256 of every file or folder that settings name, by the name of the setting.

    Raises:
        InputError: one is not there.
    """
    names = sorted(file_settings(type(config)))
    if not names:
        return {}
    from shiftbench.models.foreign import digest

    return {name: digest(Path(getattr(config, name))) for name in names}


class TrainingConfig(MethodConfig):
    """Settings of the training loop; defaults are WiSE-FT's (arXiv 2109.01903, App. D.2)."""

    lr: Annotated[float, Field(gt=0, description="peak learning rate of AdamW")] = 3e-5
    weight_decay: Annotated[float, Field(ge=0, description="decoupled weight decay")] = 0.1
    epochs: Annotated[float, Field(gt=0, description="passes over the training set")] = 10
    batch_size: Annotated[int, Field(ge=1, description="global batch, over all workers")] = 512
    warmup_steps: Annotated[int, Field(ge=0, description="linear warm-up, in steps")] = 500
    max_grad_norm: Annotated[
        float | None, Field(gt=0, description="global gradient norm; null: off")
    ] = 1.0
    label_smoothing: Annotated[
        float, Field(ge=0, lt=1, description="part of the target spread over all classes")
    ] = 0.0
    train_head: Annotated[
        bool,
        Field(
            exclude_if=lambda value: value is True,  # as before it was there
            description="also train the head; false: it stays the zero-shot one, so that the model "
            "still tells any classes by their names (PAINT, arXiv 2208.05592)",
        ),
    ] = True
    precision: Annotated[
        Precision,
        Field(description="of matrix products; weights, head and loss are always fp32"),
    ] = "fp32"
    batch_norm: Annotated[
        Literal["frozen", "train"],
        Field(
            description="layers with running statistics, such as batch norm: frozen normalises by "
            "the pretrained statistics, which stay; train normalises by those of the global batch "
            "and follows them, and takes no micro-batches"
        ),
    ] = "frozen"
    decoder: Annotated[
        Literal["pil", "turbo"],
        Field(description="pil: as the papers' code; turbo: faster, pixels may differ by rounding"),
    ] = "pil"
    store: Annotated[
        StoreConfig | None,
        Field(
            # Absent from the identity of runs that do not ask for it, as before it was there.
            exclude_if=lambda value: value is None,
            description="training images shrunk once to {side, format} and kept, which changes "
            "their pixels; null: those of the files",
        ),
    ] = None
    checkpoint: Annotated[
        Literal["last", "id-val"],
        Field(description="the epoch whose weights are kept: the last, or the best on id-val"),
    ] = "last"

    @property
    def peak_lr(self) -> float:
        """The peak of the learning rate of a whole training; trials of a search have ``lr``."""
        return self.lr

    @property
    def passes(self) -> int:
        """Passes over the training set that count as one epoch."""
        return 1
