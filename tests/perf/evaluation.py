"""What it costs to evaluate 11 interpolated models, against the papers' loop and forward passes.

    python -m tests.perf.evaluation [--rounds 3] [--only miniature|vit] [--images 100]

The pretrained and the fine-tuned model have been evaluated before, as a suite does, so 9 of the 11
models are new. Measured in turns, one thread each, in processor time:

- ``papers``: the loop of WiSE-FT's code, a DataLoader that decodes again for each of 11 models;
- ``forward``: the image tower alone, on pixels in memory, for the 9 models that are new;
- ``ours``: the stages ``predict`` and ``score`` of all 11 in one process that begins with nothing;

and then ``run``, the same by the command, with its wall time and that of all its processes.
The miniature has 17 sets of at most 100 images in 4 tasks; ViT-B/32 has random weights and JPEGs of
400 px.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from shiftbench.core.locations import CACHE_VARIABLE, cache_dir
from shiftbench.evaluation.inference import BATCH
from shiftbench.execution.in_process import InProcess
from shiftbench.execution.launch import launch
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.setup import Setup
from shiftbench.execution.stages.predict import predict
from shiftbench.execution.stages.score import score
from shiftbench.execution.variants import weights
from shiftbench.execution.workspace import Workspace
from shiftbench.suite.plan import Plan, Run, evaluation_metrics
from shiftbench.suite.suite import Suite
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tests.perf.gpu.world import CLASSES, Sizes, draw, write_backbone
from tests.perf.measurement import Measurement, alternating, lines
from tests.perf.processes import Used, used_by

CPU = torch.device("cpu")
PAPERS_BATCH = 128
METHODS = {
    "zero-shot": {},
    "full": {"lr": 1e-4, "batch_size": 8, "warmup_steps": 0},
    "wise-ft": {},
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=100, help="most images of a set")
    parser.add_argument("--only", choices=["miniature", "vit"])
    arguments = parser.parse_args()
    print("\n".join(lines(measure(arguments.rounds, arguments.images, arguments.only))))


def measure(rounds: int = 3, images: int = 100, only: str | None = None) -> list[Measurement]:
    """All measurements.

    Args:
        rounds: how often each way has its turn.
        images: of a set, at most; of ViT-B/32's two sets together half as many.
        only: ``miniature`` or ``vit``; ``None`` for both.
    """
    found = []
    for name, prepare in (("miniature", miniature), ("vit", vit)):
        if only not in (None, name):
            continue
        with _alone(), tempfile.TemporaryDirectory() as folder:
            sweep = Sweep(Path(folder), prepare(Path(folder), images))
            found += sweep.measure(name, rounds)
    return found


def miniature(folder: Path, images: int) -> dict[str, object]:
    """A suite on the miniature world."""
    del folder
    return {
        "data": "miniature",
        "backbones": ["miniature"],
        "tasks": ["imagenet", "cifar10", "iwildcam", "fmow"],
        "methods": METHODS,
        "budget": {"evaluation_images": images, "steps": 4},
    }


def vit(folder: Path, images: int) -> dict[str, object]:
    """A suite on JPEGs of 400 px and a ViT-B/32 of random weights."""
    test = images // 2
    sizes = Sizes("ViT-B-32-quickgelu", files=100, training=100, test=test)
    draw(folder / "data", sizes)
    write_backbone(folder / "backbone", sizes.model, CPU)
    task = {
        "classes": [f"c{i}" for i in range(CLASSES)],
        "overlap": "label",  # the same files are linked into both sets
        "templates": "simple",
        "train": {"kind": "image-folder", "path": "train"},
        "id_val": {"holdout": 0.1},
        "id_test": {"source": {"kind": "image-folder", "path": "test"}},
    }
    return {
        "data": str(folder / "data"),
        "backbones": [str(folder / "backbone")],
        "tasks": {"photographs": task},
        "methods": METHODS,
        "budget": {"evaluation_images": test, "steps": 1},
    }


@contextmanager
def _alone() -> Iterator[None]:
    """One thread, and a cache of its own."""
    threads, cache = torch.get_num_threads(), os.environ.get(CACHE_VARIABLE)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[CACHE_VARIABLE] = folder
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            os.environ.pop(CACHE_VARIABLE)
            if cache is not None:
                os.environ[CACHE_VARIABLE] = cache


class _Images(Dataset[tuple[Tensor, int]]):
    """Images of a set through open_clip's transform, decoded whenever they are asked for."""

    def __init__(self, images: object, labels: object, transform: Callable[..., Tensor]) -> None:
        self._images, self._labels, self._transform = images, labels, transform

    def __len__(self) -> int:
        return len(self._labels)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(self._images[index]), int(self._labels[index])  # type: ignore[index]


@dataclass(frozen=True)
class _Case:
    """A run of the sweep with what the references need: its sets, and its models' weights."""

    run: Run
    sets: tuple[str, ...]
    models: dict[str, dict[str, Tensor]]


class Sweep:
    """A suite whose parents are done and whose sweep is left.

    Args:
        folder: for the suite and its results.
        suite: its content.
    """

    def __init__(self, folder: Path, suite: dict[str, object]) -> None:
        self.file = folder / "sweep.yaml"
        parents = {name: METHODS[name] for name in ("zero-shot", "full")}
        self.file.write_text(json.dumps({**suite, "methods": parents}))
        self._done = folder / "done"
        launch(Suite.load(self.file), self._done, InProcess(), Console(quiet=True))
        self.file.write_text(json.dumps({**suite, "methods": METHODS}))
        self.plan = Plan.build(Suite.load(self.file))
        self.features = folder / "features"
        shutil.copytree(cache_dir() / "features", self.features)
        self.results = folder / "results"
        self._forget()
        workspace = self.workspace()
        self.cases = [
            _Case(
                run,
                tuple(evaluation_metrics(run.task)),
                {name: dict(weights(workspace, run, name)) for name in run.create().variants()},
            )
            for run in self.plan.runs.values()
            if run.label == "wise-ft"
        ]
        self._inputs = {
            (case.run.id, name): self._pixels(workspace, case.run, name)
            for case in self.cases
            for name in case.sets
        }

    def workspace(self) -> Workspace:
        """What a process has that knows nothing yet."""
        suite = self.plan.suite
        data = suite.require_data()
        setup = Setup("sweep", self.plan.runs, self.results, data, suite.resources, Remarks())
        return Workspace(setup, CPU)

    def measure(self, name: str, rounds: int) -> list[Measurement]:
        """Time the ways in turns."""
        forwards = sum(
            len(pixels) * (len(case.models) - 2)
            for case in self.cases
            for (run_id, _), pixels in self._inputs.items()
            if run_id == case.run.id
        )
        ways: dict[str, Callable[[], object]] = {
            "forward": self.forward,
            "ours": self.ours,
            "papers": self.papers,
        }
        times = alternating(ways, rounds)
        forward, ours, papers = (times[way].processor for way in ways)
        commands = [self.command() for _ in range(min(rounds, 3))]
        wall = statistics.median(command.wall for command in commands)
        processor = statistics.median(command.processor for command in commands)
        spent = ", ".join(f"{seconds:.1f}" for seconds in commands[-1].each if seconds >= 0.1)
        note = f"driver, server and workers of the last: {spent} s"
        jobs = sum(len(case.sets) * len(case.models) for case in self.cases)
        what = f"{name}: 11 alphas, {jobs} pairs of alpha and set, {forwards} distinct forwards"
        return [
            Measurement(f"{what}, one process", ours, forward, "forward only", 1.03),
            Measurement(f"{what}, one process", ours, papers, "the papers' loop", 1.35, True),
            Measurement(
                f"{what}, the command, all processes", processor, forward, "forward", 1.2, note=note
            ),
            Measurement(f"{what}, the command, wall", wall, None, "", 14 if jobs > 100 else None),
        ]

    def papers(self) -> None:
        """Every model on every set as WiSE-FT's code does it."""
        from open_clip.transform import image_transform

        workspace = self.workspace()
        for case in self.cases:
            model = workspace.copied(case.run)
            transform = image_transform(workspace.backbone(case.run).preprocessing.size, False)
            for state in case.models.values():
                model.load_state_dict(state)
                for name in case.sets:
                    images = workspace.evaluation_images(case.run, name)
                    dataset = _Images(images.images, images.labels, transform)
                    right = 0
                    with torch.no_grad():
                        for batch, labels in DataLoader(dataset, batch_size=PAPERS_BATCH):
                            right += int((model(batch).argmax(dim=1) == labels).sum().item())

    def forward(self) -> None:
        """The image tower alone, on the models that nothing has evaluated."""
        workspace = self.workspace()
        for case in self.cases:
            model = workspace.copied(case.run)
            preprocessing = workspace.backbone(case.run).preprocessing
            for name, state in case.models.items():
                if name in ("alpha=0.0", "alpha=1.0"):
                    continue
                model.load_state_dict(state)
                with torch.inference_mode():
                    for of_set in case.sets:
                        pixels = self._inputs[case.run.id, of_set]
                        for batch in pixels.split(BATCH):
                            model.features(preprocessing.normalise(batch))

    def ours(self) -> None:
        """The stages of all that is left, in a process that begins with nothing."""
        self._forget()
        workspace = self.workspace()
        for case in self.cases:
            for variant in case.models:
                for name in case.sets:
                    predict(workspace, case.run.id, variant, name)
            score(workspace, case.run.id)

    def command(self) -> Used:
        """The same by the command, on all processors."""
        self._forget()
        arguments = ["run", str(self.file), "--results", str(self.results)]
        return used_by([sys.executable, "-m", "shiftbench", *arguments], os.environ)

    def _forget(self) -> None:
        """Make the sweep be left to do, with the features that its parents left."""
        for there, before in (
            (self.results, self._done),
            (cache_dir() / "features", self.features),
        ):
            shutil.rmtree(there, ignore_errors=True)
            shutil.copytree(before, there, copy_function=os.link)

    @staticmethod
    def _pixels(workspace: Workspace, run: Run, name: str) -> Tensor:
        images = workspace.evaluation_images(run, name)
        pixels = workspace.store.evaluation(images, workspace.backbone(run).preprocessing)
        return torch.from_numpy(pixels[:].copy())


if __name__ == "__main__":
    main()
