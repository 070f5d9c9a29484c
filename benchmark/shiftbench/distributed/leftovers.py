"""Places on a cluster that Ray Train has left taken.

Ray keeps a placement group until the driver ends, if the actor that made it has not removed it. The
actor that leads a group of workers does not where one dies after they were made and before they
train: it ends, or starts others, for which there may be no place.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ray
from ray import PlacementGroupID
from ray._private.state import state
from ray.core.generated.gcs_pb2 import PlacementGroupTableData
from ray.util import remove_placement_group
from ray.util.placement_group import PlacementGroup

from shiftbench.distributed.cluster import LEADER, own_actors

_LOOK_EVERY_S = 5.0
_LOOKS = 100.0
"""So many times as long as a look took is the time until the next: Ray keeps a record of all that
the cluster ever had."""


def own_places() -> list[Any]:
    """The placement groups of this driver that have not been removed, as Ray's own records."""
    mine = ray.get_runtime_context().get_job_id()
    every = state._connect_and_get_accessor().get_placement_group_table()
    return [
        place
        for place in map(PlacementGroupTableData.FromString, every)
        if place.creator_job_id.hex() == mine and place.state != PlacementGroupTableData.REMOVED
    ]


def leftovers() -> list[bytes]:
    """Ids of the placement groups that nobody uses.

    They are those that a dead actor made, and all but the last of each that leads a group. Those of
    trials are made by the driver, which is no actor.
    """
    leaders = own_actors("ALIVE", LEADER)
    made_by_actors = [
        place for place in own_places() if not ray.ActorID(place.creator_actor_id).is_nil()
    ]
    newest: dict[bytes, int] = {}
    for place in made_by_actors:
        leader, made = place.creator_actor_id, place.placement_group_creation_timestamp_ms
        newest[leader] = max(newest.get(leader, 0), made)

    def left(place: Any) -> bool:
        leader, made = place.creator_actor_id, place.placement_group_creation_timestamp_ms
        older = leader.hex() in leaders and made < newest[leader]
        return not place.is_detached and (place.creator_actor_dead or older)

    return [place.placement_group_id for place in made_by_actors if left(place)]


class Leftovers:
    """Removes what nobody uses.

    Args:
        clock: gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = float("-inf")

    def remove(self) -> None:
        """Remove it, now and then."""
        began = self._clock()
        if began < self._next:
            return
        for place in leftovers():
            remove_placement_group(PlacementGroup(PlacementGroupID(place)))
        ended = self._clock()
        self._next = ended + max(_LOOK_EVERY_S, _LOOKS * (ended - began))
