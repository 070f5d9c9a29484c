"""What ``plan`` says a suite takes against what it takes: calibrated, with one worker and with two.

    python -m tests.perf.forecast [--seconds 30]

The suite is the quickstart's CIFAR-10 with fewer methods and longer trainings. Starting and checking data are not
counted, which no scheduler decides: the clock runs while jobs do.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from shiftbench.data.roots import resolve
from shiftbench.execution.calibrated import keep
from shiftbench.execution.calibrating import calibrate
from shiftbench.execution.cost import plan_state
from shiftbench.execution.forecast import Cluster, forecast
from shiftbench.execution.launch import launch
from shiftbench.execution.processes import Processes
from shiftbench.execution.throughput import CPU
from shiftbench.execution.work import Work
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

from tests.perf.measurement import Measurement, lines

OVERRIDES = ("tasks=[cifar10]", "methods=[zero-shot, linear-probe, full, wise-ft]", "budget.steps=60")


class Clocked(Processes):
    """The executor of one machine, with the seconds that its jobs took."""

    seconds = 0.0

    def execute(self, work: Work) -> None:
        begun = time.perf_counter()
        super().execute(work)
        self.seconds = time.perf_counter() - begun


def measure(seconds: float = 30.0, overrides: tuple[str, ...] = OVERRIDES) -> list[Measurement]:
    """Plan and run with one worker and with two.

    Args:
        seconds: of the calibration.
        overrides: of the quickstart suite.
    """
    found = []
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHIFTBENCH_CACHE", folder)
        root = resolve("miniature")
        suite = Suite.load("quickstart", overrides)
        for workers in (1, 2):
            keep(calibrate(["miniature"], torch.device("cpu"), seconds))
            resources = suite.resources.model_copy(update={"max_concurrent": workers})
            limited = replace(suite, resources=resources)
            plan, results = Plan.build(limited), Path(folder) / f"results-{workers}"
            estimator = plan_state(plan, results, root, CPU).estimator
            planned = forecast(plan, {*plan.runs}, estimator, Cluster(1, workers, CPU))
            executor = Clocked()
            executor.prepare(plan)
            outcome = launch(limited, results, executor, Console(quiet=True), decode=False)
            assert not outcome.failed
            found.append(
                Measurement(
                    f"{len(plan.runs)} runs, {workers} at once: taken",
                    executor.seconds,
                    planned.asked.seconds,
                    "planned",
                )
            )
            print(*lines(found[-1:]), flush=True)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=30.0)
    measure(parser.parse_args().seconds)
