"""How cost grows with what is asked for: four sizes each, and the power that fits them.

    python -m tests.perf.growth [--only CURVE …]

Time against images, parameters, variants, runs and workers; memory against images, classes and
variants. One thread; processor time after a first, uncounted pass; memory in a process of its own
for each size, as its peak.
"""

from __future__ import annotations

import argparse
import copy
import math
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shiftbench.data.preprocessing import Preprocessing
from shiftbench.evaluation.inference import head_logits, image_features
from shiftbench.models.classifier import ImageClassifier
from shiftbench.models.weights import interpolate
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite
from torch import Tensor, nn

CPU = torch.device("cpu")
REPEATS = 3
SIDE = 32


@dataclass(frozen=True)
class Curve:
    """A cost at several sizes.

    Attributes:
        name: of the curve.
        against: what grows.
        cost: what is measured, with its unit.
        sizes: four of them.
        costs: at each.
        expected: the power that is right: 1 for proportional, 0 for flat; ``None`` where none is.
    """

    name: str
    against: str
    cost: str
    sizes: Sequence[float]
    costs: Sequence[float]
    expected: float | None

    @property
    def power(self) -> float:
        """The exponent p of the best cost ∝ size^p."""
        x, y = np.log(self.sizes), np.log(np.maximum(self.costs, 1e-9))
        return float(np.polyfit(x, y, 1)[0])


def seconds(work: Callable[[], object]) -> float:
    """Median processor time of some work, which is done once before."""
    work()
    times = []
    for _ in range(REPEATS):
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return statistics.median(times)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def model(width: int = 64, layers: int = 4, classes: int = 10) -> ImageClassifier:
    """A small vision transformer of random weights."""
    from open_clip.transformer import VisionTransformer

    torch.manual_seed(0)
    tower = VisionTransformer(SIDE, 8, width, layers, width // 32, 4.0, output_dim=64)
    return ImageClassifier(tower, nn.Linear(64, classes)).eval()


class Noise:
    """Preprocessed images that take no memory until they are read."""

    def __init__(self, n: int) -> None:
        self._n = n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, part: slice) -> np.ndarray[Any, np.dtype[np.uint8]]:
        rows = len(range(self._n)[part])
        return np.random.default_rng(part.start).integers(
            0, 256, (rows, SIDE, SIDE, 3), dtype=np.uint8
        )


def features(of: ImageClassifier, n: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Features of so many images."""
    return image_features(of, Noise(n), Preprocessing(SIDE), CPU)


def time_of_images(n: int) -> float:
    """Evaluating so many images."""
    of = model()
    return seconds(lambda: features(of, n))


def memory_of_images(n: int) -> float:
    """Evaluating so many images: the whole process."""
    of = model(width=256)
    features(of, n)
    return _peak() / 1e6


def time_of_parameters(width: int) -> float:
    """A training step of a tower of so many channels."""
    from tests.perf.gpu.training import Ours, repeated

    images, labels = torch.randn(16, 3, SIDE, SIDE), torch.arange(16) % 10
    loop = Ours(model(width), repeated(images, labels), 16)
    return seconds(lambda: loop.steps(2)) / 2


def parameters(width: int) -> int:
    """How many parameters a tower of so many channels has."""
    return sum(p.numel() for p in model(width).parameters())


def _sweep(variants: int, n: int = 256) -> Callable[[], object]:
    """Evaluation of so many points between two models, one after the other."""
    first = model(width=128)
    second = copy.deepcopy(first)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(torch.randn_like(parameter) * 1e-3)
    ends: list[dict[str, Tensor]] = [dict(m.state_dict()) for m in (first, second)]
    shown = copy.deepcopy(first)

    def work() -> None:
        for alpha in np.linspace(0, 1, variants):
            shown.load_state_dict(interpolate(*ends, float(alpha)))
            head_logits(shown.head, features(shown, n), CPU).argmax(1)

    return work


def time_of_variants(variants: int) -> float:
    """Evaluating so many points between two models."""
    return seconds(_sweep(variants))


def memory_of_variants(variants: int) -> float:
    """Evaluating so many points between two models: the whole process."""
    _sweep(variants)()
    return _peak() / 1e6


def memory_of_classes(classes: int) -> float:
    """Logits of 2,000 images over so many classes: beyond what there was before."""
    of = model(classes=classes)
    values = np.random.default_rng(0).normal(size=(2000, 64)).astype(np.float32)
    head_logits(of.head, values[:1], CPU)
    before = _peak()
    head_logits(of.head, values, CPU)
    return (_peak() - before) / 1e6


def time_of_runs(runs: int) -> float:
    """Building the plan of so many runs."""
    seeds = list(range(runs // 8))
    text = (
        "data: miniature\nbackbones: [miniature]\ntasks: [cifar10, fmow]\n"
        "methods: {full: {}, lp-ft: {parent: linear-probe}, linear-probe: {}, "
        "wise-ft: {parent: full}}\n"
        f"seeds: {seeds}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "suite.yaml"
        file.write_text(text)
        suite = Suite.load(file)
        assert len(Plan.build(suite).runs) == runs
        return seconds(lambda: Plan.build(suite))


def time_of_workers(workers: int) -> float:
    """Wall time of a step of one global batch, shared by so many workers."""
    from tests.perf.training import train_together

    return train_together(workers, 2, steps=3) / 3


@dataclass(frozen=True)
class Kind:
    """What is measured of a curve, before it is."""

    against: str
    cost: str
    sizes: Sequence[int]
    measure: Callable[[int], float]
    expected: float | None = None
    of: Callable[[int], float] = float


KINDS = {
    "time against images": Kind("images", "s", (512, 1024, 2048, 4096), time_of_images, 1),
    "time against parameters": Kind(
        "parameters", "s a step", (64, 128, 256, 512), time_of_parameters, 1, of=parameters
    ),
    "time against variants": Kind("variants", "s", (2, 4, 8, 16), time_of_variants, 1),
    "time against runs": Kind("runs", "s to plan", (400, 800, 1600, 3200), time_of_runs, 1),
    "time against workers": Kind("workers", "s a step, wall", (1, 2, 3, 4), time_of_workers),
    "memory against images": Kind("images", "MB", (1024, 2048, 4096, 8192), memory_of_images, 0),
    "memory against classes": Kind(
        "classes", "MB", (4000, 8000, 16000, 32000), memory_of_classes, 1
    ),
    "memory against variants": Kind("variants", "MB", (2, 4, 8, 16), memory_of_variants, 0),
}


def curves(names: Sequence[str] = tuple(KINDS)) -> list[Curve]:
    """All curves, or some; takes about three minutes on two cores."""
    torch.set_num_threads(1)
    found = []
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.perf.growth"])
    for name in names:
        kind = KINDS[name]
        costs = []
        for size in kind.sizes:
            if kind.cost == "MB":
                with ProcessPoolExecutor(1, context, torch.set_num_threads, (1,)) as pool:
                    costs.append(pool.submit(kind.measure, size).result())
            else:
                costs.append(kind.measure(size))
        sizes = [kind.of(size) for size in kind.sizes]
        print(f"  {name}: {', '.join(f'{cost:.3g}' for cost in costs)}", flush=True)
        found.append(Curve(name, kind.against, kind.cost, sizes, costs, kind.expected))
    return found


# Drawn

WIDTH, HEIGHT, MARGIN, COLUMNS = 190, 150, 34, 4
COLOUR = "#3f51b5"


def svg(found: Sequence[Curve]) -> str:
    """All curves as small charts with logarithmic axes, and the line of the fitted power."""
    rows = math.ceil(len(found) / COLUMNS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * COLUMNS} {HEIGHT * rows}" '
        'font-family="sans-serif" font-size="9" fill="#555">'
    ]
    for i, curve in enumerate(found):
        x, y = WIDTH * (i % COLUMNS), HEIGHT * (i // COLUMNS)
        parts.append(f'<g transform="translate({x} {y})">{_chart(curve)}</g>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _chart(curve: Curve) -> str:
    costs = np.maximum(curve.costs, 1e-9)
    sizes = np.asarray(curve.sizes, dtype=float)
    low, high = math.log(costs.min()), math.log(costs.max())
    middle, half = (low + high) / 2, max((high - low) / 2, math.log(sizes[-1] / sizes[0]) / 4) * 1.2
    left, right, top, bottom = MARGIN, WIDTH - 12, 24, HEIGHT - 26

    def place(size: float, cost: float) -> tuple[float, float]:
        across = math.log(size / sizes[0]) / math.log(sizes[-1] / sizes[0])
        up = (math.log(cost) - middle + half) / (2 * half)
        return left + across * (right - left), bottom - up * (bottom - top)

    intercept = float(np.mean(np.log(costs) - curve.power * np.log(sizes)))
    ends = [place(s, math.exp(intercept + curve.power * math.log(s))) for s in sizes[[0, -1]]]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in ends)
    points = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOUR}"/>'
        for x, y in (place(s, c) for s, c in zip(sizes, costs, strict=True))
    )
    what = curve.name.partition(" ")[0]
    return (
        f'<text x="{left}" y="12" font-weight="bold">{what} ({curve.cost}) ∝ '
        f"{curve.against}^{curve.power:.2f}</text>"
        f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="#aaa"/>'
        f'<polyline points="{line}" fill="none" stroke="{COLOUR}" stroke-opacity="0.4"/>{points}'
        f'<text x="{left - 3}" y="{place(sizes[0], costs.max())[1] + 3:.1f}" text-anchor="end">'
        f"{costs.max():.2g}</text>"
        f'<text x="{left - 3}" y="{place(sizes[0], costs.min())[1] + 3:.1f}" text-anchor="end">'
        f"{costs.min():.2g}</text>"
        f'<text x="{left}" y="{bottom + 12}">{_short(sizes[0])}</text>'
        f'<text x="{right}" y="{bottom + 12}" text-anchor="end">'
        f"{_short(sizes[-1])} {curve.against}</text>"
    )


def _short(value: float) -> str:
    return f"{value / 1e6:.1f}M" if value >= 1e6 else f"{value:,.0f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=tuple(KINDS))
    parser.add_argument("--svg", type=Path)
    given = parser.parse_args()
    found = curves(given.only)
    for curve in found:
        values = ", ".join(
            f"{s:,.0f}: {c:.3g}" for s, c in zip(curve.sizes, curve.costs, strict=True)
        )
        print(f"{curve.name} ({curve.cost}): {values}; power {curve.power:.2f}")
    if given.svg:
        given.svg.write_text(svg(found))


if __name__ == "__main__":
    main()
