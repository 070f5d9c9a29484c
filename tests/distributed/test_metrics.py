"""Prometheus counters, into a registry that only adds up."""

from __future__ import annotations

from collections import Counter as Sum

from shiftbench.distributed.metrics import COUNTERS, Metrics
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite


class Registry:
    def __init__(self) -> None:
        self.sums = Sum[str]()

    def Counter(self, name: str, description: str = "", tag_keys: tuple[str, ...] = ()) -> Counted:
        assert description and tag_keys == ("suite",)
        return Counted(self, name.removeprefix("shiftbench_"))


class Counted:
    def __init__(self, registry: Registry, name: str) -> None:
        self._registry, self._name = registry, name

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert value > 0 and tags == {"suite": "quickstart"}  # as Ray has it
        self._registry.sums[self._name] += value


def test_what_a_launch_does_is_counted_once() -> None:
    runs = Plan.build(Suite.load("quickstart", ["tasks=[cifar10]"])).runs
    full = next(run for run in runs.values() if run.label == "full")
    reference = next(run for run in runs.values() if run.label == "zero-shot")
    registry = Registry()
    metrics = Metrics("quickstart", runs, registry)
    metrics.ended({"jobs": 2, "runs_done": 1, "runs_failed": 0})
    metrics.ended({"jobs": 5, "runs_done": 1, "runs_failed": 3})
    metrics.waited(0.5, 4)
    metrics.waited(0.5, 0)
    for step in (7, 10, 4, 6):  # begun elsewhere, goes on, is interrupted and goes on again
        metrics.steps({full.id: (step, 24), reference.id: (step, 24)})
    assert registry.sums == {
        "jobs": 5,
        "runs_done": 1,
        "runs_failed": 3,
        "waiting_seconds": 2.0,
        "images": (3 + 2) * full.config.batch_size,  # type: ignore[attr-defined]
    }
    assert registry.sums.keys() == COUNTERS.keys()
