"""What ``plan`` says a suite takes against what it takes: calibrated, with one worker and with two.

    python -m tests.perf.forecast [--seconds 20]

The suite is the quickstart's CIFAR-10 with fewer methods and longer trainings. Processor time of
the busiest worker, as other work on the machine does not change it much; of one worker that is all
of the work, of two what the scheduler gave to the one with more of it. Starting and checking data
are not counted.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from shiftbench.data.roots import resolve
from shiftbench.execution.calibrated import keep
from shiftbench.execution.calibrating import calibrate
from shiftbench.execution.cost import plan_state
from shiftbench.execution.forecast import Cluster, forecast
from shiftbench.execution.throughput import CPU
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

from tests.perf.fixed import shiftbench
from tests.perf.measurement import Measurement, lines
from tests.perf.processes import used_by

OVERRIDES = (
    "tasks=[cifar10]",
    "methods=[zero-shot, linear-probe, full, l2-sp, wise-ft]",
    "budget.steps=40",
)


def measure(seconds: float = 20.0, overrides: tuple[str, ...] = OVERRIDES) -> list[Measurement]:
    """Plan and run with one worker and with two.

    Args:
        seconds: of the calibration.
        overrides: of the quickstart suite.
    """
    found = []
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        cache = Path(folder) / "cache"
        patch.setenv("SHIFTBENCH_CACHE", str(cache))
        resolve("miniature")
        keep(calibrate(["miniature"], torch.device("cpu"), seconds))
        suite = Suite.load("quickstart", overrides)
        for workers in (1, 2):
            own = Path(folder) / f"cache-{workers}"  # with no features of the run before
            shutil.copytree(cache, own)
            patch.setenv("SHIFTBENCH_CACHE", str(own))
            root = resolve("miniature")
            resources = suite.resources.model_copy(update={"max_concurrent": workers})
            plan = Plan.build(replace(suite, resources=resources))
            results = Path(folder) / f"results-{workers}"
            estimator = plan_state(plan, results, root, CPU).estimator
            planned = forecast(plan, {*plan.runs}, estimator, Cluster(1, workers, CPU))
            changes = (*overrides, f"resources.max_concurrent={workers}")
            options = [word for change in changes for word in ("--set", change)]
            command = shiftbench("run", "quickstart", "--results", results, *options)
            used = used_by(command, os.environ)
            taken = max(used.each[1:])  # the first is the driver
            note = f"wall time with all else {used.wall:.0f} s"
            what = f"{len(plan.runs)} runs, {workers} at once: taken"
            found.append(Measurement(what, taken, planned.asked.seconds, "planned", note=note))
            print(*lines(found[-1:]), flush=True)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=20.0)
    measure(parser.parse_args().seconds)
