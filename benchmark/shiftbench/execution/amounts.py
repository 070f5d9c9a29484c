"""Amounts of which perhaps only a part is known, and costs made of them. No torch, no ray."""

from __future__ import annotations

from dataclasses import dataclass

from shiftbench.execution.throughput import Rate


@dataclass(frozen=True)
class Amount:
    """A number of which perhaps only a part is known; then it is at least so much.

    Attributes:
        known: the part.
        whole: whether that is all.
    """

    known: float = 0
    whole: bool = True

    @classmethod
    def of(cls, number: float | None, least: float = 0) -> Amount:
        """A number, or where it is not known the least that it can be."""
        return cls(least, False) if number is None else cls(number)

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.known + other.known, self.whole and other.whole)

    def __mul__(self, factor: float) -> Amount:
        return Amount(self.known * factor, self.whole)

    def seconds(self, rate: Rate | None, workers: float = 1) -> Amount:
        """The time of so many images at a rate, divided over workers."""
        if rate is None:
            return Amount(0, self.known == 0 and self.whole)
        return self * (1 / (rate.images * workers))


@dataclass(frozen=True)
class Cost:
    """The cost of some runs.

    Attributes:
        steps: optimizer steps.
        images: images trained on, repetitions included.
        predictions: images predicted, over all variants and evaluation sets.
        seconds: estimated time, one run after the other.
        worker_seconds: the same for every worker that is at it: what is paid for.
        disk: bytes that will be written and kept.
        estimated: seconds of ``seconds`` that are from published throughputs.
        calibrated: seconds of ``seconds`` that are from a calibration.
    """

    steps: Amount = Amount()
    images: Amount = Amount()
    predictions: Amount = Amount()
    seconds: Amount = Amount()
    worker_seconds: Amount = Amount()
    disk: Amount = Amount()
    estimated: float = 0.0
    calibrated: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.steps + other.steps,
            self.images + other.images,
            self.predictions + other.predictions,
            self.seconds + other.seconds,
            self.worker_seconds + other.worker_seconds,
            self.disk + other.disk,
            self.estimated + other.estimated,
            self.calibrated + other.calibrated,
        )

    @classmethod
    def of(
        cls,
        rate: Rate | None,
        seconds: Amount,
        *,
        workers: float = 1,
        steps: Amount = Amount(),
        images: Amount = Amount(),
        predictions: Amount = Amount(),
        disk: Amount = Amount(),
    ) -> Cost:
        """The cost of work that takes so long at a rate, with so many workers at it."""
        source = None if rate is None else rate.source
        return cls(
            *(steps, images, predictions, seconds, seconds * workers, disk),
            estimated=seconds.known if source == "published" else 0.0,
            calibrated=seconds.known if source == "calibrated" else 0.0,
        )
