"""The course of a training: what is kept of every step."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from shiftbench.data.batches import WorkerPlace
from shiftbench.leaderboard import training_curve
from shiftbench.leaderboard.training_curve import ID_VAL, NORM, RATE, SPEED, STEP, TrainingCurve

LOSS = "loss"
"""The term of a method's ``loss`` that is minimised."""
SECONDS = "seconds"


@dataclass
class Trained:
    """The course of a training.

    Attributes:
        losses: mean loss over the global batch, of every step.
        terms: the same of every other term that the method's ``loss`` returned, by name; ``None``
            at steps where it was absent or not finite.
        images: examples seen, repetitions included.
        seconds: wall time in the loop, interrupted attempts included up to their last saved state;
            that of attempts with other numbers of workers as if it had been shared by these.
        waited: of those, seconds in which there was nothing to compute because no batch was there.
        measured: other values of every step, by name; ``None`` where there is none.
    """

    losses: list[float] = field(default_factory=list)
    terms: dict[str, list[float | None]] = field(default_factory=dict)
    images: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    measured: dict[str, list[float | None]] = field(default_factory=dict)

    def add(
        self, steps: Sequence[Mapping[str, float]], measured: Mapping[str, Sequence[float]]
    ) -> None:
        """Add steps to those before.

        Args:
            steps: the terms of each, the loss among them.
            measured: other values of each; those of the last steps may be missing.
        """
        for i, terms in enumerate(steps):
            finite = {
                name: value if math.isfinite(value) else None
                for name, value in terms.items()
                if name != LOSS
            }
            self._extend(self.terms, finite)
            self._extend(self.measured, {n: of[i] for n, of in measured.items() if i < len(of)})
            self.losses.append(terms[LOSS])

    def note(self, name: str, value: float) -> None:
        """Add something that was measured after the last step."""
        values = self.measured.setdefault(name, [None] * len(self.losses))
        values[-1] = value

    def curve(self, batch_size: int) -> TrainingCurve:
        """All of it by step.

        Args:
            batch_size: images of a step, of all workers together.
        """
        absent: list[float | None] = [None] * len(self.losses)
        seconds = self.measured.get(SECONDS, absent)
        return TrainingCurve(
            {
                STEP: [*range(1, len(self.losses) + 1)],
                training_curve.LOSS: self.losses,
                **{training_curve.TERM + name: values for name, values in self.terms.items()},
                **{name: self.measured.get(name, absent) for name in (RATE, NORM)},
                SPEED: [batch_size / each if each else None for each in seconds],
                ID_VAL: self.measured.get(ID_VAL, absent),
            }
        )

    def _extend(
        self, columns: dict[str, list[float | None]], step: Mapping[str, float | None]
    ) -> None:
        """Add one step's values; what is new, or is not there this time, has gaps."""
        for name in [name for name in step if name not in columns]:
            columns[name] = [None] * len(self.losses)
        for name, values in columns.items():
            values.append(step.get(name))


class Recent:
    """The steps since the last saved state; what a GPU computed of them is still there.

    Args:
        place: this worker among those that share the run.
    """

    def __init__(self, place: WorkerPlace) -> None:
        self._place = place
        self.clear()

    def clear(self) -> None:
        """Forget them; the next step begins now."""
        self.terms: list[dict[str, Tensor]] = []
        self.rates: list[float] = []
        self._seconds: list[float] = []
        self._since = time.monotonic()

    def stepped(self) -> None:
        """A step has ended, as far as this process knows."""
        now = time.monotonic()
        self._seconds.append(now - self._since)
        self._since = now

    def add_to(self, done: Trained, norms: Sequence[float]) -> None:
        """Add them to the steps before; all workers must do so at once.

        Args:
            done: of the steps before.
            norms: of the gradient, for each step.
        """
        measured = {RATE: self.rates, NORM: norms, SECONDS: self._seconds}
        done.add(_mean_over_workers(self.terms, self._place), measured)


def _mean_over_workers(
    steps: list[dict[str, Tensor]], place: WorkerPlace
) -> list[dict[str, float]]:
    """The mean over workers of every term of every step; all workers have the same terms."""
    if not steps:
        return []
    stacked = torch.stack([term for terms in steps for term in terms.values()])
    if place.size > 1:
        dist.all_reduce(stacked)
        stacked /= place.size
    values = iter(stacked.tolist())
    return [{name: next(values) for name in terms} for terms in steps]
