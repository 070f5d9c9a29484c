"""Workers that sleep, and write down when; in processes of Ray, which import little else."""

from __future__ import annotations

import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

LOG = "log"
"""Folder in the results."""


def slept(folder: str, what: str, seconds: float) -> None:
    """Sleep, and note from when to when, in a file of its own."""
    begun = time.time()
    time.sleep(seconds)
    entry = {"what": what, "begun": begun, "ended": time.time(), "process": os.getpid()}
    (Path(folder) / f"{uuid.uuid4().hex}.json").write_text(json.dumps(entry))


class Sleeper:
    """An actor that sleeps when it is told to.

    Args:
        folder: of the log.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def sleep(self, what: str, seconds: float) -> None:
        """Sleep for so long."""
        slept(self._folder, what, seconds)


class SleepingWorker:
    """In place of ``distributed.workers.WarmWorker``: each prediction is a short sleep."""

    seconds = 0.5

    def __init__(self, setup: Any, progress: Any) -> None:
        self._folder = str(setup.results / LOG)

    def home(self) -> None:
        """Nobody asks for the stack of this."""

    def predict(self, run_id: str, variant: str, evaluation_set: str) -> None:
        """Sleep for an evaluation."""
        slept(self._folder, f"predict {run_id} {evaluation_set}", self.seconds)
