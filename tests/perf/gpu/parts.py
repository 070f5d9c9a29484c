"""Decoding a core, SAFT, and where the time of a step goes."""

from __future__ import annotations

import gzip
import io
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from shiftbench.core.cpus import loader_processes
from shiftbench.data.batches import WorkerPlace, micro_batches
from shiftbench.data.decoding import augmented
from shiftbench.data.loading import ImageLoader
from shiftbench.data.preprocessing import Preprocessing
from shiftbench.data.sources.files import FileImages
from shiftbench.execution.schedule import Schedule
from shiftbench.execution.training import Trainer
from shiftbench.methods.base import Batch, Context
from shiftbench.methods.builtin.saft import SaftConfig
from shiftbench.models.classifier import ImageClassifier
from shiftbench.models.gpu import suit_gpu
from torch import nn

from tests.perf.gpu.timing import interleaved, synchronize
from tests.perf.gpu.training import MANY, Ours, classifier, ours, repeated
from tests.perf.gpu.world import Sizes, model_config, random_clip

PROFILED = 3  # steps


def decoding(sizes: Sizes, root: Path, device: torch.device, side: int) -> dict[str, Any]:
    """Images per second of a core, by decoder, and of all loader processes."""
    names = sorted(str(p.relative_to(root)) for p in (root / "train").glob("*/*.jpg"))
    images = FileImages(str(root), np.array(names))
    preprocessing = Preprocessing(side)
    count = min(150, len(images))

    def rate(work: Callable[[int], object]) -> float:
        times = []
        for index in range(count):
            started = time.perf_counter()
            work(index)
            times.append(time.perf_counter() - started)
        return 1 / statistics.median(times)

    from torchvision.transforms import InterpolationMode, RandomResizedCrop

    crop = RandomResizedCrop(side, (0.9, 1.0), interpolation=InterpolationMode.BICUBIC)

    def papers(index: int) -> object:
        with Image.open(root / names[index]) as image:
            return np.asarray(crop(image.convert("RGB")))

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    found: dict[str, Any] = {
        "papers": rate(papers),
        "pil": rate(lambda i: augmented(images, i, preprocessing, generator, "pil")),
        "turbo": rate(lambda i: augmented(images, i, preprocessing, generator, "turbo")),
    }
    torch.set_num_threads(threads)
    processes = max(1, loader_processes(1)) if device.type == "cuda" else 2
    labels = np.zeros(len(images), dtype=np.int64)
    steps = range(max(4, 6_000 // sizes.batch if sizes.batch > 64 else 4))
    for decoder in ("pil", "turbo"):
        loader = ImageLoader(
            images,
            labels,
            preprocessing,
            decoder,
            processes,
            pin_memory=device.type == "cuda",  # type: ignore[arg-type]
        )
        order = list(micro_batches(len(images), sizes.batch, 0, steps, WorkerPlace(), sizes.batch))
        stream = loader.stream(order, 0)
        next(stream)
        started, seen = time.perf_counter(), 0
        for pieces in stream:
            seen += sum(len(piece.labels) for piece in pieces)
        found[f"{decoder}_{processes}_processes"] = seen / (time.perf_counter() - started)
        del loader, stream
    return found


def nvjpeg(root: Path, device: torch.device) -> dict[str, Any]:
    """torchvision's decoder on the GPU: images per second, and differences from Pillow's pixels."""
    names = sorted(str(p.relative_to(root)) for p in (root / "train").glob("*/*.jpg"))
    images = FileImages(str(root), np.array(names))
    from torchvision.io import ImageReadMode, decode_jpeg

    files = [
        torch.frombuffer(bytearray(images.encoded(i) or b""), dtype=torch.uint8) for i in range(512)
    ]
    decoded = decode_jpeg(files[:64], ImageReadMode.RGB, device=device)
    exact = [np.asarray(Image.open(io.BytesIO(bytes(f.numpy()))).convert("RGB")) for f in files[:8]]
    differences = [
        np.abs(mine.permute(1, 2, 0).cpu().numpy().astype(int) - theirs)
        for mine, theirs in zip(decoded, exact, strict=False)
    ]
    synchronize()
    started = time.perf_counter()
    decode_jpeg(files, ImageReadMode.RGB, device=device)
    synchronize()
    return {
        "nvjpeg_decoding_only": len(files) / (time.perf_counter() - started),
        "nvjpeg_largest_difference": int(max(d.max() for d in differences)),
        "nvjpeg_mean_difference": float(np.mean([d.mean() for d in differences])),
    }


def saft(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """SAFT's step against AdamW on every weight of both towers: time, memory, optimizer state."""
    from shiftbench.methods.builtin.saft import Saft

    from tests.perf.saft import Dense

    side = model_config(sizes.model)["vision_cfg"]["image_size"]
    batch = sizes.batch // 2
    images = torch.randn(batch, 3, side, side, device=device)
    labels = torch.arange(batch, device=device) % sizes.prompts
    read = repeated(images, labels)
    settings = SaftConfig(
        density=1e-3, lr=1e-4, epochs=1, batch_size=batch, warmup_steps=0, precision="bf16"
    )
    found: dict[str, Any] = {"batch": batch, "prompts": sizes.prompts}
    trainers: dict[str, Trainer] = {}
    for name, kind in [("dense", Dense), ("saft", Saft)]:
        method: Any = kind(settings)
        model = both_towers(sizes, device)
        examples = lambda: iter([Batch(images, labels)])  # noqa: E731
        context = Context({}, examples, MANY, seed=0, place=WorkerPlace())
        method.prepare(model, context)
        schedule = Schedule(MANY, batch, batch, save_every=MANY, constant=True)
        trainers[name] = trainer = Trainer(model, method, schedule, read, seed=0)
        held = torch.cuda.memory_allocated() if device.type == "cuda" else 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        trainer.run(until=2)
        states = trainer._optimizer.state.values()
        tensors = [t for state in states for t in state.values() if torch.is_tensor(t)]
        found[name] = {"state_bytes": sum(t.numel() * t.element_size() for t in tensors)}
        if device.type == "cuda":
            found[name]["peak_gib_beyond_model"] = (
                torch.cuda.max_memory_allocated() - held
            ) / 2**30
    done = dict.fromkeys(trainers, 2)

    def steps(name: str) -> Callable[[int], None]:
        def work(count: int) -> None:
            done[name] += count
            trainers[name].run(until=done[name])

        return work

    times = interleaved({name: steps(name) for name in trainers}, sizes.rounds, sizes.steps)
    for name, each in times.items():
        found[name]["step"] = each.summary()
    return found


def both_towers(sizes: Sizes, device: torch.device) -> ImageClassifier:
    """A classifier with a text tower and prompts, of random weights."""
    clip = random_clip(sizes.model, device, text=True)
    visual = clip.visual
    del clip.visual
    width = clip.text_projection.shape[-1]
    generator = torch.Generator().manual_seed(1)
    shape = (2, sizes.prompts, clip.context_length)
    prompts = torch.randint(1, clip.vocab_size - 1, shape, generator=generator)
    prompts[..., -1] = clip.vocab_size - 1
    model = ImageClassifier(visual, nn.Linear(width, sizes.prompts), clip, prompts).to(device)
    suit_gpu(model)
    model.head.requires_grad_(False)
    return model.eval()


def timeline(sizes: Sizes, device: torch.device, out: Path) -> dict[str, Any]:
    """Where the time goes: kernels by their time, and how long none ran."""
    model, side = classifier(sizes.model, sizes.classes, device)
    images = torch.randn(sizes.batch, 3, side, side, device=device)
    labels = torch.randint(sizes.classes, (sizes.batch,), device=device)
    pixels = torch.zeros(sizes.batch, side, side, 3, dtype=torch.uint8, device=device)
    found: dict[str, Any] = {}

    def trains(compiled: bool) -> Callable[[], None]:
        read = repeated(images, labels)
        loop = Ours(ours(model, compiled=compiled), read, sizes.batch, precision="bf16")
        return lambda: loop.steps(1)

    def evaluates(compiled: bool) -> Callable[[], None]:
        of = ours(model, compiled=compiled).eval()

        def work() -> None:
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
                of.features(Preprocessing(side).normalise(pixels))

        return work

    for name, work in [
        ("training", trains(compiled=False)),
        ("training_compiled", trains(compiled=True)),
        ("evaluation", evaluates(compiled=False)),
        ("evaluation_compiled", evaluates(compiled=True)),
    ]:
        found[name] = _kernels(work, device, out / f"{name}.json")
    return found


def _kernels(work: Callable[[], None], device: torch.device, trace: Path) -> dict[str, Any]:
    from torch.profiler import ProfilerActivity, profile

    for _ in range(3):
        work()
    synchronize()
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiled:
        started = time.perf_counter()
        for _ in range(PROFILED):
            work()
        synchronize()
        wall = time.perf_counter() - started
    kernels = [
        event
        for event in profiled.key_averages()
        if event.self_device_time_total > 0 and str(event.device_type).endswith("CUDA")
    ]
    kernels.sort(key=lambda event: -event.self_device_time_total)
    busy = sum(event.self_device_time_total for event in kernels) / 1e6
    if device.type == "cuda" and "training_compiled" in trace.name:
        profiled.export_chrome_trace(str(trace))
        with trace.open("rb") as source, gzip.open(f"{trace}.gz", "wb") as target:
            shutil.copyfileobj(source, target)
        trace.unlink()
    words = ("flash", "fmha", "attention", "sdpa")
    names = {event.key[:90] for event in kernels}
    return {
        "ms": wall * 1e3 / PROFILED,
        "busy": busy / wall,
        "kernels": [
            {
                "name": event.key[:90],
                "share": event.self_device_time_total / 1e6 / busy,
                "ms": event.self_device_time_total / 1e3 / PROFILED,
                "calls": event.count / PROFILED,
            }
            for event in kernels[:30]
        ],
        "attention": sorted(n for n in names if any(word in n.lower() for word in words)),
    }
