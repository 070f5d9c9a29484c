"""What the suite costs beyond arithmetic, from the first row to the last worker, as ratios.

    python -m tests.perf.overhead [--only row evaluation trial step workers] [--rounds 5]

- ``row``: the first row of a quickstart from an empty cache (``tests.perf.fixed``).
- ``evaluation``: one job that predicts a set, against the forward passes alone.
- ``trial``: a warm trial of a search, against its arithmetic (``tests.perf.search``).
- ``step``: a training step, against a plain loop (``tests.perf.training``).
- ``workers``: the same global batch by one worker and by two (``tests.perf.training``).
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from shiftbench.evaluation.inference import DecodedOnAccess, image_features
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.setup import Setup
from shiftbench.execution.stages.predict import predict
from shiftbench.execution.workspace import Workspace
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

from tests.perf import fixed, search, training
from tests.perf.measurement import Measurement, alternating, lines

IMAGES = 256


def first_row(rounds: int) -> list[Measurement]:
    """The quickstart's first row, and a bare ``import torch`` beside it."""
    del rounds  # each round would be a whole quickstart
    with tempfile.TemporaryDirectory() as folder:
        (torch_alone, *_) = fixed.start(Path(folder), 1)
        whole, first, *_ = fixed.quickstart(Path(folder), 1)
    reference = torch_alone.ours
    return [replace(first, reference=reference, against="a bare `import torch`", goal=None), whole]


def evaluation(rounds: int) -> list[Measurement]:
    """A job that predicts: images at hand, weights loaded, features not known, a file written."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHIFTBENCH_CACHE", str(Path(folder) / "cache"))
        overrides = (
            "tasks=[cifar10]",
            "methods=[zero-shot]",
            f"budget.evaluation_images={IMAGES}",
            "resources.limits.features_bytes=0",
        )
        plan = Plan.build(Suite.load("quickstart", overrides))
        (run,) = plan.runs.values()
        results = Path(folder) / "results"
        setup = Setup("perf", plan.runs, results, "miniature", plan.suite.resources, Remarks())
        space = Workspace(setup, torch.device("cpu"))
        part = space.folder(run).part("", "cifar10.1")
        predict(space, run.id, "", "cifar10.1")
        images = space.evaluation_images(run, "cifar10.1")
        backbone = space.backbone(run)
        pixels = DecodedOnAccess(images.images, backbone.preprocessing)[: len(images)]
        model = space.pretrained(run)

        def job() -> None:
            part.unlink()
            predict(space, run.id, "", "cifar10.1")

        def passes() -> None:
            image_features(model, pixels, backbone.preprocessing, torch.device("cpu"))

        times = alternating({"job": job, "passes": passes}, rounds)
    what = f"a job that predicts {len(images)} images, miniature"
    found = times["job"].processor, times["passes"].processor
    return [Measurement(what, *found, "forward passes", 1.05)]


def trial(rounds: int) -> list[Measurement]:
    """A warm trial of AutoFT."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        plan = search.plan_of(search.MINIATURE.format(task="cifar10"), Path(folder))
        return search.one_trial(plan, rounds)[0]


def step(rounds: int) -> list[Measurement]:
    """A training step on a batch that is there."""
    return training.measure(rounds, ("step",))


def workers(rounds: int) -> list[Measurement]:
    """Two workers for one, each with half of every batch."""
    return [replace(found, goal=1.6) for found in training.measure(rounds, ("workers",))]


PARTS: Mapping[str, Callable[[int], list[Measurement]]] = {
    "row": first_row,
    "evaluation": evaluation,
    "trial": trial,
    "step": step,
    "workers": workers,
}


def measure(parts: Sequence[str] = tuple(PARTS), rounds: int = 5) -> list[Measurement]:
    """Measure some parts, and print each as it is known."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found = []
    for part in parts:
        for one in PARTS[part](rounds):
            print(*lines([one]), flush=True)
            found.append(one)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=tuple(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    measure(given.only, given.rounds)
