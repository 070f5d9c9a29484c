"""A training step against a plain loop, from memory and from JPEGs; and two workers against one.

    python -m tests.perf.training [--rounds 5] [--only step|optimizer|jpeg|workers]

The plain loop is that of the papers' code: AdamW, gradients clipped, a DataLoader over Pillow and
``RandomResizedCrop``. One thread each, processor time; of workers, wall time of the same global
batch in one process and in two that share it.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image
from shiftbench.data.batches import WorkerPlace
from shiftbench.execution.feeding import batches, fresh_model
from shiftbench.execution.schedule import Schedule
from shiftbench.execution.training import Trainer
from shiftbench.methods.registry import METHODS
from shiftbench.models.backbones import load_backbone
from shiftbench.models.classifier import ImageClassifier
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from tests.perf.gpu import papers
from tests.perf.gpu.training import MANY, Ours, classifier, repeated
from tests.perf.gpu.world import Sizes, draw, workspace, write_backbone
from tests.perf.measurement import Measurement, alternating, lines

PARTS = ("step", "optimizer", "jpeg", "workers")
CPU = torch.device("cpu")
CLASSES = 10


def measure(rounds: int = 5, parts: Sequence[str] = PARTS) -> list[Measurement]:
    """All measurements; takes about two minutes on two cores.

    Args:
        rounds: how often each way has its turn.
        parts: some of ``PARTS``.
    """
    torch.set_num_threads(1)
    found: list[Measurement] = []
    if "step" in parts:
        found += from_memory(rounds)
    if "optimizer" in parts:
        found.append(optimizer(rounds))
    if "jpeg" in parts:
        found += from_files(rounds)
    if "workers" in parts:
        found += workers(rounds)
    return found


def miniature() -> tuple[ImageClassifier, int]:
    """The miniature backbone with a head, and the side of its images."""
    backbone = load_backbone("miniature")
    width = backbone.clip.text_projection.shape[-1]
    model = ImageClassifier(copy.deepcopy(backbone.clip.visual), nn.Linear(width, CLASSES))
    return model, backbone.preprocessing.size


def from_memory(rounds: int) -> list[Measurement]:
    """Steps on a batch that is there."""
    found = []
    for name, (model, side), batch, steps in [
        ("miniature, 24 images", miniature(), 24, 10),
        ("ViT-B/32, 8 images", classifier("ViT-B-32-quickgelu", CLASSES, CPU), 8, 1),
    ]:
        images, labels = torch.randn(batch, 3, side, side), torch.arange(batch) % CLASSES
        plain = papers.Training(copy.deepcopy(model), images, labels)
        ours = Ours(copy.deepcopy(model), repeated(images, labels), batch)
        times = alternating(
            {
                "plain": lambda plain=plain, steps=steps: plain.steps(steps),  # type: ignore[misc]
                "ours": lambda ours=ours, steps=steps: ours.steps(steps),  # type: ignore[misc]
            },
            rounds,
        )
        found.append(
            Measurement(
                f"a training step, {name}",
                times["ours"].processor / steps,
                times["plain"].processor / steps,
                "a plain loop",
                1.05,
            )
        )
    return found


def optimizer(rounds: int) -> Measurement:
    """AdamW on a ViT-B/32 as it is used on a CPU, and over lists; both give the same bits."""
    model, _ = classifier("ViT-B-32-quickgelu", CLASSES, CPU)
    ways, steps = {}, {}
    for name, over_lists in (("alone", False), ("lists", True)):
        parameters = [*copy.deepcopy(model).parameters()]
        for parameter in parameters:
            torch.manual_seed(0)
            parameter.grad = torch.randn(parameter.shape)
        ways[name] = parameters
        steps[name] = torch.optim.AdamW(parameters, foreach=over_lists).step
    times = alternating(steps, rounds)
    assert all(map(torch.equal, ways["alone"], ways["lists"]))
    what = "a step of AdamW, ViT-B/32, one parameter after the other"
    return Measurement(what, times["alone"].processor, times["lists"].processor, "`foreach`")


class Crops(Dataset[tuple[Tensor, int]]):
    """JPEG files, decoded and cropped at random by torchvision."""

    def __init__(self, paths: Sequence[Path], side: int) -> None:
        from open_clip.transform import image_transform

        self._paths = paths
        self._transform: Any = image_transform(side, is_train=True)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self._paths[index]) as image:
            return self._transform(image), index % CLASSES


def from_files(rounds: int) -> list[Measurement]:
    """Steps that decode their JPEGs of 400 px, in the process that trains."""
    steps, batch = 2, 32
    sizes = Sizes(model="tiny", files=128, training=128, test=32)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        draw(root, sizes)
        write_backbone(root / "backbone", "tiny", CPU)
        space, run = workspace(root, CPU)
        kept = space.store.decoded
        space.store.decoded = lambda images, *rest: images.images  # type: ignore[method-assign]
        files = sorted((root / "train").glob("*/*.jpg"))
        side = space.backbone(run).preprocessing.size
        plain = papers.Training(
            fresh_model(space, run), torch.zeros(1, 3, side, side), torch.zeros(1)
        )

        def by_papers() -> None:
            order = torch.utils.data.RandomSampler(files, num_samples=steps * batch)  # type: ignore[arg-type]
            for images, labels in DataLoader(Crops(files, side), batch, sampler=order):
                plain.images, plain.labels = (images,), (labels,)
                plain.steps(1)

        ways: dict[str, Callable[[], object]] = {"plain": by_papers}
        for decoder in ("pil", "turbo"):
            ways[decoder] = suite_steps(space, run, steps, batch, decoder=decoder)
        times = alternating(ways, rounds)
        space.store.decoded = kept  # type: ignore[method-assign]
        for decoder in ("pil", "turbo"):
            found.append(
                Measurement(
                    f"a step from JPEGs of 400 px, `decoder: {decoder}`",
                    times[decoder].processor / steps,
                    times["plain"].processor / steps,
                    "DataLoader over Pillow",
                    faster=True,
                    note="a tower of two layers, so that data are what it costs",
                )
            )
    return found


def suite_steps(
    space: Any, run: Any, steps: int, batch: int, **settings: object
) -> Callable[[], object]:
    """A function that goes on with the suite's training, so many steps at a time."""
    method = type(run.create())(
        run.config.model_copy(update={"batch_size": batch, "precision": "fp32", **settings})
    )
    schedule = Schedule(MANY, batch, batch, save_every=MANY, constant=True)
    trainer = Trainer(
        fresh_model(space, run), method, schedule, batches(space, run, method, schedule), seed=0
    )
    done = [0]

    def work() -> None:
        done[0] += steps
        trainer.run(until=done[0])

    return work


def workers(rounds: int) -> list[Measurement]:
    """Wall time of the same global batch by one worker and by two that share it."""
    return [
        Measurement(
            "1 → 2 workers, the same global batch of 96, miniature",
            train_together(2, rounds),
            train_together(1, rounds),
            "1 worker",
            1.7,
            faster=True,
            note="wall time, one thread each",
        )
    ]


def train_together(size: int, rounds: int, steps: int = 8, batch: int = 96) -> float:
    """Median seconds of some steps by so many workers, measured by the first."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_worker, (size, Path(folder), rounds, steps, batch), nprocs=size)
        return float(np.load(Path(folder) / "seconds.npy"))


def _worker(rank: int, size: int, folder: Path, rounds: int, steps: int, batch: int) -> None:
    torch.set_num_threads(1)
    if size > 1:
        rendezvous = f"file://{folder}/rendezvous"
        dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=size)
    model, side = miniature()
    share = batch // size
    images, labels = torch.randn(share, 3, side, side), torch.arange(share) % CLASSES
    kind = METHODS.load("full")
    method: Any = kind(kind.Config(batch_size=batch))  # type: ignore[call-arg]
    schedule = Schedule(MANY, batch, share, save_every=MANY, constant=True)
    place = WorkerPlace(rank, size)
    trainer = Trainer(model, method, schedule, repeated(images, labels), seed=0, place=place)
    times = []
    for turn in range(rounds + 1):
        if size > 1:
            dist.barrier()
        begun = time.perf_counter()
        trainer.run(until=(turn + 1) * steps)
        times.append(time.perf_counter() - begun)
    if rank == 0:
        np.save(folder / "seconds.npy", np.median(times[1:]))
    if size > 1:
        dist.destroy_process_group()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    given = parser.parse_args()
    print("\n".join(lines(measure(given.rounds, given.only))))


if __name__ == "__main__":
    main()
