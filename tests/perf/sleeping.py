"""Workers that sleep, and write down when; in processes of Ray, which import little else."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import ray

LOG = "log"
"""Folder in the results."""


@cache
def started() -> float:
    """When this process was started, by the clock."""
    ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    up = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - up + ticks / os.sysconf("SC_CLK_TCK")


class Sleeper:
    """An actor that sleeps when it is told to, and notes from when to when: a file each time.

    Args:
        folder: of the log.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._process = {
            "process": os.getpid(),
            "slot": ray.get_runtime_context().get_node_id(),
            "started": started(),
            "ready": time.time(),
        }

    def sleep(self, what: str, seconds: float) -> None:
        """Sleep for so long."""
        begun = time.time()
        time.sleep(seconds)
        entry = {"what": what, "begun": begun, "ended": time.time(), **self._process}
        (self._folder / f"{uuid.uuid4().hex}.json").write_text(json.dumps(entry))

    def serve(self, rank: int, size: int, feed: Any, seconds: Mapping[str, float]) -> None:
        """What ``distributed.groups`` has each worker of a group do, each job being a sleep.

        Args:
            rank: of this worker.
            size: of the group; as in a training, none begins before all are there.
            feed: handle of the ``Feed``.
            seconds: of a job, by its stage.
        """
        ray.get(feed.join.remote(rank, None))
        while len(ray.get(feed.homes.remote())) < size:
            time.sleep(0.05)
        index = ray.get(feed.first.remote())
        while (given := ray.get(feed.get.remote(rank, index))) is not None:
            stage, run_id, _, evaluation_set = given
            self.sleep(f"{stage} {run_id} {evaluation_set}", seconds[stage])
            if stage != "fit":
                ray.get(feed.returned.remote(rank, None))
                continue
            if rank == 0:
                ray.get(feed.ended.remote(index, None))
            index += 1


class SleepingWorker(Sleeper):
    """In place of ``distributed.workers.WarmWorker``: each prediction is a short sleep."""

    seconds = 0.5

    def __init__(self, setup: Any, progress: Any) -> None:
        super().__init__(str(setup.results / LOG))

    def home(self) -> None:
        """Nobody asks for the stack of this."""

    def predict(self, run_id: str, variant: str, evaluation_set: str) -> None:
        """Sleep for an evaluation."""
        self.sleep(f"predict {run_id} {evaluation_set}", self.seconds)
