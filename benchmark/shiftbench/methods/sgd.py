"""SGD with momentum, as heads for few shots are trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from shiftbench.methods.config import TrainingConfig

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import SGD


class SgdConfig(TrainingConfig):
    """Settings of a training by SGD of what makes a head; neither warm-up nor clipping."""

    lr: Annotated[float, Field(gt=0, description="peak learning rate of SGD")] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1, description="without dampening")] = 0.9
    weight_decay: Annotated[float, Field(ge=0, description="coupled")] = 0.0
    warmup_steps: Annotated[
        int, Field(ge=0, description="linear; the released code has one epoch at 1e-5")
    ] = 0
    max_grad_norm: Annotated[float | None, Field(gt=0, description="null: off")] = None
    train_head: Annotated[
        Literal[True], Field(exclude_if=lambda value: value, description="it is what trains")
    ] = True


def sgd(parameters: Sequence[nn.Parameter], settings: SgdConfig) -> SGD:
    """The optimizer of some parameters."""
    from torch.optim import SGD

    return SGD(
        parameters,
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
