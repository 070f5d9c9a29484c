"""What workers of a group hear from outside: an end that is near, and that others go on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray
import ray.train
from ray.exceptions import RayError
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

from shiftbench.core.notices import heed


def leaving() -> bool:
    """True once Ray drains a node of the group; all its workers must ask at once."""
    return ray.train.get_preemption_info() is not None


class Recall:
    """Whether others are to go on with a training, for the first worker of its group.

    It does not wait for the answer: as it runs, a training needs nothing of the driver's node.

    Args:
        feed: handle of the group's ``Feed``.
    """

    def __init__(self, feed: Any) -> None:
        self._feed = feed
        self._asked: Any = None

    def __call__(self) -> bool:
        """Whether the training is recalled, as an earlier call asked; false while nobody knows."""
        if self._asked is None:
            self._asked = self._feed.recalled.remote()
        answered, _ = ray.wait([self._asked], timeout=0)
        if not answered:
            return False
        self._asked = None
        try:
            return bool(ray.get(answered[0]))
        except RayError:
            return False


@dataclass
class HeedingConfig(TorchConfig):  # type: ignore[misc]
    """Torch's process group, by workers that save their training at a SIGTERM.

    Trainings run in other threads than the main one, which is the one that hears signals.
    """

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """What starts the process group."""
        return _HeedingBackend


class _HeedingBackend(_TorchBackend):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        super().on_start(worker_group, backend_config)
        worker_group.execute(heed)
