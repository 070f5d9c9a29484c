"""Workers of a group hear of the end of their process or of their machine before it comes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray.train
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

from shiftbench.core.notices import heed


def leaving() -> bool:
    """True once Ray drains a node of the group; all its workers must ask at once."""
    return ray.train.get_preemption_info() is not None


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
