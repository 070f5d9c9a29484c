"""Where a process is that Ray started, and its workspace there.

Actors that are told of processes import this and are to be small, so torch comes when it is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from shiftbench.core.stacks import Place, stop, watchable

if TYPE_CHECKING:
    from shiftbench.execution.setup import Setup
    from shiftbench.execution.workspace import Workspace

_STOP_S = 30.0


class Home(NamedTuple):
    """A process on a cluster.

    Attributes:
        node: id of its node.
        place: of the process there.
    """

    node: str
    place: Place


@cache
def home() -> Home:
    """That of this process, which can be asked for its stack from now on."""
    return Home(ray.get_runtime_context().get_node_id(), watchable())


def stop_at(homes: Iterable[Home]) -> str | None:
    """Kill processes; the stacks of the threads of those that answer, ``None`` if all were gone."""

    def stopped(where: Home) -> Any:
        on_its_node = NodeAffinitySchedulingStrategy(where.node, soft=False)
        options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": on_its_node}
        return ray.remote(**options)(stop).remote(where.place)

    stacks = []
    for answer in [stopped(where) for where in homes]:
        try:
            stacks.append(ray.get(answer, timeout=_STOP_S))
        except GetTimeoutError:
            stacks.append("")
        except RayError:  # its node is gone
            stacks.append(None)
    return None if all(stack is None for stack in stacks) else "\n".join(filter(None, stacks))


def workspace_here(setup: Setup) -> Workspace:
    """A workspace on the GPU that Ray gave this process, or on as many CPU threads."""
    import torch

    from shiftbench.execution.workspace import Workspace

    gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU")
    torch.set_num_threads(max(1, int(setup.resources.cpus_per_worker)))
    return Workspace(setup, torch.device("cuda" if gpus else "cpu"))
