"""What a Ray cluster has room for, as nodes come and go."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import ray
from ray import JobID
from ray._private.state import actors, available_resources_per_node
from ray.autoscaler.sdk import request_resources
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from shiftbench.execution.group_rules import ROUNDING, bundle

if TYPE_CHECKING:
    from shiftbench.suite.file import Resources

_ASK_EVERY_S = 1.0
_TELL_EVERY_S = 10.0
_GROWS_S = 60.0
LEADER, MEMBER = "TrainController", "RayTrainWorker"
"""What Ray Train calls the actors of a group: the one that leads it, and its workers."""
_MOST_ASKED = 1000  # an autoscaler has a limit of its own


def slots(nodes: Iterable[Mapping[str, float]], resources: Resources) -> int:
    """Number of workers that fit on nodes at once; a worker is on one node.

    Args:
        nodes: the resources of each, by Ray's names.
        resources: of a worker.
    """
    worker = bundle(resources).items()
    return sum(
        min(int(node.get(kind, 0.0) / each + ROUNDING) for kind, each in worker) for node in nodes
    )


class Cluster:
    """The cluster that this process is connected to.

    Args:
        resources: of a worker.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._asked = float("-inf")
        self._told, self._told_at = 0, float("-inf")
        self._nodes: dict[str, Mapping[str, float]] = {}
        self._lost_at = float("-inf")
        self._most, self._grew_at = 0, time.monotonic()

    @property
    def grows(self) -> bool:
        """True if the cluster has just become larger, and may go on to do so."""
        return time.monotonic() - self._grew_at < _GROWS_S

    def slots(self) -> int:
        """Number of workers that fit; asked anew at most once a second."""
        if time.monotonic() - self._asked > _ASK_EVERY_S:
            self.look()
        room = slots(self._nodes.values(), self._resources)
        if room > self._most:
            self._most, self._grew_at = room, time.monotonic()
        return min(room, self._resources.max_concurrent or room)

    def look(self) -> None:
        """Ask which nodes there are."""
        before = self._nodes
        self._nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
        self._asked = time.monotonic()
        if before.keys() - self._nodes.keys():
            self._lost_at = self._asked

    def ask_for(self, workers: int) -> None:
        """Tell an autoscaler, if there is one, how many workers could work now.

        The last word of all drivers on a cluster counts, so it is said again now and then.
        """
        workers = min(workers, self._resources.max_concurrent or _MOST_ASKED)
        again = workers > 0 and time.monotonic() - self._told_at > _TELL_EVERY_S
        if workers != self._told or again:
            self._told, self._told_at = workers, time.monotonic()
            request_resources(bundles=[bundle(self._resources)] * workers)

    def fit(self, resources: Resources) -> int:
        """Number of workers with some resources that fit on the cluster, were it empty."""
        self.look()
        return slots(self._nodes.values(), resources)

    def room(self, resources: Resources) -> int:
        """Number of workers with some resources that have room now, beside all that is there."""
        return slots(available_resources_per_node().values(), resources)

    def has(self, node: str) -> bool:
        """True if a node is there now."""
        self.look()
        return node in self._nodes

    def lost_a_node(self, since: float) -> bool:
        """True if a node has gone after that moment of the monotonic clock.

        Ray notes that a node is gone before it says so of what was on it.
        """
        self.look()
        return self._lost_at >= since


def beside_the_driver() -> dict[str, Any]:
    """Options of an actor that must live as long as the driver does, and takes no CPU."""
    here = ray.get_runtime_context().get_node_id()
    return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False)}


def own_actors(state: str, kind: str | None = None) -> dict[str, Any]:
    """What Ray knows of this driver's actors, by id.

    Args:
        state: that they are in, by Ray's name.
        kind: their class's name; ``None``: any.
    """
    mine = JobID(bytes.fromhex(ray.get_runtime_context().get_job_id()))
    found = actors(job_id=mine, actor_state_name=state)
    return {
        actor: facts for actor, facts in found.items() if kind in (None, facts["ActorClassName"])
    }
