"""What SAFT saves and costs, against training every weight of the same model.

    python -m tests.perf.saft [--model ViT-B-32] [--steps 3] [--batch 8] [--full ViT-B-16]
        [--prompts ViT-B-16]

With ``--model`` (the miniature backbone unless another open_clip model is named, whose weights are
then random) it trains both towers with the text head, once by SAFT and once with AdamW on every
weight, the two taking turns: bytes of optimizer state and of the stored weights, seconds of a step,
and the peak memory of each in a process of its own.
With random scores of the shapes of ``--full`` it times the selection and its peak memory beyond the
scores, each in a process of its own, against a concatenation and ``torch.topk``; with ``--prompts``
what encoding ``--count`` prompts with gradient takes in chunks and at once, likewise.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from shiftbench.data.batches import WorkerPlace
from shiftbench.execution.schedule import Schedule
from shiftbench.execution.training import Trainer
from shiftbench.methods.base import Batch, Context, TrainedMethod
from shiftbench.methods.builtin.saft import Saft, SaftConfig
from shiftbench.methods.config import TrainingConfig
from shiftbench.methods.masks import candidates
from shiftbench.models.backbones import load_backbone
from shiftbench.models.checkpoints import save
from shiftbench.models.classifier import ImageClassifier
from shiftbench.models.sparse import select_mask, selected_count
from shiftbench.models.weights import sparse_delta
from torch import Tensor, nn

from tests.perf.measurement import Measurement, alternating, lines

CLASSES = 10
TEMPLATES = 2
DENSITY = 1e-3
DENSE = "AdamW on every weight"

T = TypeVar("T")


class Dense(Saft):
    """AdamW on every candidate, with SAFT's objective: what SAFT is compared with."""

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        model.requires_grad_(False)
        for tensor in candidates(model).values():
            tensor.requires_grad_(True)

    def parameters(self, model: ImageClassifier) -> list[nn.Parameter]:
        return TrainedMethod.parameters(self, model)

    def before_step(self, model: ImageClassifier) -> None: ...

    def after_step(self, model: ImageClassifier, step: int) -> None: ...


def build(name: str) -> tuple[ImageClassifier, int]:
    """A classifier with both towers, and the side of its images."""
    if name == "miniature":
        clip = load_backbone(name).clip
    else:
        import open_clip

        torch.manual_seed(0)
        clip = open_clip.create_model(name, pretrained=None)
    visual, side = clip.visual, clip.visual.image_size
    del clip.visual
    width = clip.text_projection.shape[-1]
    generator = torch.Generator().manual_seed(1)
    shape = (TEMPLATES, CLASSES, clip.context_length)
    prompts = torch.randint(1, clip.vocab_size - 1, shape, generator=generator)
    prompts[..., -1] = clip.vocab_size - 1
    model = ImageClassifier(visual, nn.Linear(width, CLASSES), clip, prompts).eval()
    model.head.requires_grad_(False)
    return model, side if isinstance(side, int) else side[0]


def make_trainer(
    method: TrainedMethod[TrainingConfig], name: str, steps: int, size: int
) -> tuple[ImageClassifier, Trainer]:
    """A model and what trains it, on noise."""
    model, side = build(name)
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(size, 3, side, side, generator=generator)
    labels = torch.arange(size) % CLASSES

    def batches(wanted: range) -> Iterator[Batch]:
        return (Batch(images, labels, step=step) for step in wanted)

    context = Context({}, lambda: batches(range(1)), steps, seed=0, place=WorkerPlace())
    method.prepare(model, context)
    schedule = Schedule(steps, size, size, save_every=steps)
    return model, Trainer(model, method, schedule, batches, seed=0)


def state_bytes(trainer: Trainer) -> int:
    """Bytes of an optimizer's state."""
    states = trainer._optimizer.state.values()
    tensors = [t for state in states for t in state.values() if isinstance(t, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def file_bytes(weights: Mapping[str, Tensor]) -> int:
    """Bytes of stored weights."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save(path, weights, {})
        return path.stat().st_size


def measure(model: str = "ViT-B-16", steps: int = 3, batch: int = 4) -> list[Measurement]:
    """A step, what the optimizer holds, what is stored, and the peak of memory.

    Args:
        model: ``miniature``, or an open_clip model, whose weights are then random.
        steps: timed, in turns.
        batch: images of a step.
    """
    torch.set_num_threads(1)
    found = training(model, steps, batch)
    peaks = in_new_processes(peak_of_training, ("SAFT", "dense"), model, batch)
    return [
        *found,
        Measurement(
            f"peak memory of SAFT's training, {model}, {batch} images",
            peaks["SAFT"] / 1e9,
            peaks["dense"] / 1e9,
            DENSE,
            1.0,
            unit="GB",
        ),
    ]


def training(name: str, steps: int, size: int) -> list[Measurement]:
    """Train both ways in turns."""
    config = SaftConfig(density=DENSITY, lr=1e-4, epochs=1, batch_size=size, warmup_steps=0)
    methods: dict[str, TrainedMethod[TrainingConfig]] = {
        "SAFT": Saft(config),  # type: ignore[dict-item]
        "dense": Dense(config),  # type: ignore[dict-item]
    }
    start = {key: tensor.clone() for key, tensor in build(name)[0].state_dict().items()}
    built = {label: make_trainer(m, name, steps + 1, size) for label, m in methods.items()}
    done = dict.fromkeys(built, 0)

    def step(label: str) -> None:
        done[label] += 1
        built[label][1].run(until=done[label])

    times = alternating({label: partial(step, label) for label in built}, steps)
    facts = methods["SAFT"].details(built["SAFT"][0])
    states = {label: state_bytes(trainer) for label, (_, trainer) in built.items()}
    stored = {
        "SAFT": file_bytes(sparse_delta(start, built["SAFT"][0].state_dict())),
        "dense": file_bytes(built["dense"][0].state_dict()),
    }
    seconds = {label: spent.processor for label, spent in times.items()}
    selected = f"{facts['selected']:,} of {facts['candidates']:,} weights selected"
    return [
        Measurement(
            f"SAFT's step, {name}, both towers, {size} images",
            seconds["SAFT"],
            seconds["dense"],
            DENSE,
            1.0,
            note=selected,
        ),
        Measurement(
            f"SAFT's optimizer state, {name}",
            states["SAFT"] / 1e6,
            states["dense"] / 1e6,
            DENSE,
            1.1e-3,
            unit="MB",
        ),
        Measurement(
            f"SAFT's stored weights, {name}",
            stored["SAFT"] / 1e6,
            stored["dense"] / 1e6,
            DENSE,
            unit="MB",
        ),
    ]


def shapes(name: str) -> list[tuple[int, ...]]:
    """Of all candidates of an open_clip model, without allocating any."""
    import open_clip

    with torch.device("meta"):
        clip = open_clip.CLIP(**open_clip.get_model_config(name))
    return [tuple(p.shape) for key, p in clip.named_parameters() if "logit_" not in key]


def peak() -> int:
    """The most memory that this process has had so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def selecting(way: str, sizes: list[tuple[int, ...]]) -> tuple[float, int]:
    """Seconds and peak bytes, beyond the scores, of a selection; in a process of its own."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    scores = [torch.rand(shape, generator=generator) for shape in sizes]
    select_mask([torch.rand(10)], 0.5)  # what is loaded at a first call is not counted
    before = peak()
    started = time.perf_counter()
    if way == "histogram":
        found = sum(len(part) for part in select_mask(scores, DENSITY))
    else:
        everything = torch.cat([score.flatten() for score in scores])
        k = selected_count(DENSITY, len(everything))
        found = len(torch.topk(everything, k).indices)
    seconds = time.perf_counter() - started
    if found != selected_count(DENSITY, sum(score.numel() for score in scores)):
        raise RuntimeError("the selection has another size")
    return seconds, peak() - before


def in_new_processes(
    function: Callable[..., T], ways: Sequence[str], *arguments: object
) -> dict[str, T]:
    """What a function returns for each of several first arguments, each in a process of its own."""
    found = {}
    for way in ways:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            found[way] = pool.submit(function, way, *arguments).result()
    return found


def peak_of_training(way: str, name: str, size: int) -> int:
    """Peak bytes of a process that takes two steps."""
    config = SaftConfig(density=DENSITY, lr=1e-4, epochs=1, batch_size=size, warmup_steps=0)
    method = Saft(config) if way == "SAFT" else Dense(config)
    make_trainer(method, name, 2, size)[1].run(until=2)  # type: ignore[arg-type]
    return peak()


def cost_of_prompts(way: str, name: str, prompts: int) -> tuple[float, int]:
    """Seconds and peak bytes, beyond the model, of embedding prompts forth and back."""
    model, _ = build(name)
    model.visual = nn.Identity()
    tokens = torch.randint(1, 1000, (prompts, model.text_tower.context_length))
    tokens[:, -1] = model.text_tower.vocab_size - 1
    before = peak()
    started = time.perf_counter()
    model.encode_text(tokens, None if way == "at once" else int(way)).sum().backward()
    return time.perf_counter() - started, peak() - before


def compare_prompts(name: str, prompts: int) -> None:
    """Encode in chunks and at once, each in a new process, and print."""
    ways = ("at once", "64", "16")
    found = in_new_processes(cost_of_prompts, ways, name, prompts)
    reference, most = found["at once"]
    print(
        f"{name}: {prompts:,} prompts with gradient; at once {reference:.0f} s, {most / 1e9:.1f} GB"
    )
    for way in ways[1:]:
        seconds, extra = found[way]
        print(
            f"  {way + ' at a time:':26}{seconds / reference:.2f} of the time, "
            f"{extra / most:.3f} of the memory ({extra / 1e9:.2f} GB)"
        )


def compare_selection(name: str) -> None:
    """Select both ways, each in a new process, and print."""
    sizes = shapes(name)
    n = sum(torch.Size(shape).numel() for shape in sizes)
    rounds = [in_new_processes(selecting, ("histogram", "topk"), sizes) for _ in range(3)]
    found = {way: [of_round[way] for of_round in rounds] for way in ("histogram", "topk")}
    seconds = {way: statistics.median(t for t, _ in measured) for way, measured in found.items()}
    extra = {way: statistics.median(m for _, m in measured) for way, measured in found.items()}
    print(f"{name}: selecting {selected_count(DENSITY, n):,} of {n:,} scores")
    print(
        f"{'seconds:':28}{seconds['histogram']:.2f} against {seconds['topk']:.2f} of cat and topk: "
        f"{seconds['histogram'] / seconds['topk']:.2f} of it"
    )
    print(
        f"{'peak beyond the scores, MB:':28}{extra['histogram'] / 1e6:.0f} against "
        f"{extra['topk'] / 1e6:.0f}: {extra['histogram'] / max(extra['topk'], 1):.3f} of it; "
        f"the scores are {4 * n / 1e6:.0f}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="miniature")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--full", metavar="MODEL", help="measure the selection on its shapes")
    parser.add_argument("--prompts", metavar="MODEL", help="measure its text tower on prompts")
    parser.add_argument("--count", type=int, default=1000, help="prompts")
    arguments = parser.parse_args()
    if arguments.prompts:
        compare_prompts(arguments.prompts, arguments.count)
        return
    print("\n".join(lines(measure(arguments.model, arguments.steps, arguments.batch))))
    if arguments.full:
        compare_selection(arguments.full)


if __name__ == "__main__":
    main()
