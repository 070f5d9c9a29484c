"""What a logger is: it is told of a training's steps while the training goes on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

Step = tuple[int, Mapping[str, float]]
"""A step, counted from 1, and its values by the names of a training curve's columns."""


@dataclass(frozen=True)
class Logged:
    """The training that a logger is told of.

    Attributes:
        run_id: of the run.
        suite: its name.
        name: of the run for people, which is also a plain file name and no other run's.
        results: the results folder.
        settings: task, backbone, method, seed and settings; plain values by plain names.
        done: steps that an earlier attempt has saved a state of. It may have told of steps after
            that; they come again.
    """

    run_id: str
    suite: str
    name: str
    results: Path
    settings: Mapping[str, Any]
    done: int


class Logger(ABC):
    """Shows one training somewhere.

    Whatever it raises costs the training a warning and nothing else. It is made, told and closed by
    the process that trains; of several that share a training, by one.

    Attributes:
        name: by which suites and ``--logger`` refer to it.
        package: that must be importable.
        install: how to get that.
    """

    name: ClassVar[str]
    package: ClassVar[str]
    install: ClassVar[str]

    @abstractmethod
    def __init__(self, training: Logged) -> None: ...

    @abstractmethod
    def log(self, steps: Sequence[Step]) -> None:
        """Show steps, each after those before it."""

    @abstractmethod
    def close(self) -> None:
        """There are no more steps; what was told is stored when this returns."""
